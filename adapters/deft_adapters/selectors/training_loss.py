"""Losses of a training run on the noisy labels, as the selectors read them."""

from __future__ import annotations

import numpy as np

from deft_plugin import Run


def example_losses(run: Run) -> np.ndarray:
    """Mean over the epochs of each example's cross-entropy, (N,).

    The mean over epochs ranks better than any single epoch, since wrong labels are learned late (Huang et al.,
    "O2U-Net", ICCV 2019).
    """
    return run.training_losses.mean(axis=0)


def loss_quality(losses: np.ndarray) -> np.ndarray:
    """exp(-loss): the geometric mean of the given label's probability; in [0, 1], low = bad.

    Examples
    --------
    >>> loss_quality(np.array([0.0, 30.0])).round(3)
    array([1., 0.])
    """
    return np.exp(-losses)
