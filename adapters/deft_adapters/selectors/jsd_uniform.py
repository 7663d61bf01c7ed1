"""UNICON's selection: the labels that diverge least from the predictions, as many in each class."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

from deft_adapters.selectors.by_class import smallest_in_classes
from deft_plugin import Run, Selection

TAU = 5.0
D_MU = 0.7


class JsdUniform:
    """Clean where the divergence of prediction and label is among the smallest of its class, as many in every class.

    The divergence is Jensen and Shannon's, with logarithms to base 2: in [0, 1]. The share R of examples below a cutoff
    says how many are kept: ``R N / K`` in each class, or all of a class that has no more. The cutoff is the mean
    divergence; if that is above 0.7, a fifth of the way from it to the smallest divergence.

    Choices: the paper selects anew at each epoch, by the mean prediction of two networks; ours is the prediction of one
    classifier after its last epoch. The divergence depends on the label's probability only. (The released code takes
    natural logarithms, so that its divergence never comes up to 0.7.) Label quality is 1 less the divergence.

    References
    ----------
    Karim et al., "UNICON: Combating Label Noise Through Uniform Selection and Contrastive Learning", CVPR 2022,
    section 4.1: τ = 5, d_μ = 0.7; nazmul-karim170/UNICON, ``Train_cifar.py`` and ``dataloader_cifar.py``.
    """

    def select(self, run: Run) -> Selection:
        """Keep as many of the least divergent labels in each class."""
        divergence = label_divergence(np.exp(-run.training_losses[-1]))
        cutoff = float(divergence.mean())
        if cutoff > D_MU:
            cutoff -= (cutoff - float(divergence.min())) / TAU
        num_below = int((divergence < cutoff).sum())  # R N
        selection = Selection(
            is_clean=smallest_in_classes(divergence, run.labels, num_below // run.num_classes),
            label_quality=1 - divergence,
            predicted_labels=run.training_predictions,
            details={"cutoff": cutoff, "filter_rate": num_below / len(divergence)},
        )
        return run.share_verdicts(selection)


def label_divergence(probability: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence, in [0, 1], of a one-hot label and a prediction that gives it this probability (N,).

    Examples
    --------
    >>> label_divergence(np.array([1.0, 0.5, 0.0])).round(3)
    array([0.   , 0.311, 1.   ])
    """
    mixed = (1 + probability) / 2
    # The other classes, p in the prediction and p / 2 in the mixture, add (1 - probability) log 2.
    nats = xlogy(probability, probability / mixed) - np.log(mixed) + (1 - probability) * np.log(2)
    return np.clip(nats / (2 * np.log(2)), 0, 1)
