"""Losses that learners share; those of DeFT alone are in `deft_plugin.deft.losses`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each example.

    Parameters
    ----------
    logits : Tensor of shape (..., K)
    labels : Tensor of shape (...), int64

    Returns
    -------
    Tensor of shape (...)
    """
    return -F.log_softmax(logits, dim=-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def symmetric_cross_entropy(
    logits: Tensor, labels: Tensor, *, alpha: float = 0.1, beta: float = 1.0, log_of_zero: float = -4.0
) -> Tensor:
    """Cross-entropy times alpha, plus reverse cross-entropy times beta, per example (B,).

    Parameters
    ----------
    logits : Tensor of shape (B, K)
    labels : Tensor of shape (B,), int64
    log_of_zero : float
        What stands for log 0 in the reverse cross-entropy.

    References
    ----------
    Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019, eq. 7.
    """
    forward = cross_entropies(logits, labels)
    of_label = logits.softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return alpha * forward - beta * log_of_zero * (1 - of_label)
