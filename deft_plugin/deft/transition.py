"""How labels go wrong: the probability that an image of a true class is given a label, estimated from verdicts."""

from __future__ import annotations

import torch
from torch import Tensor


def symmetric_transition(num_classes: int, noise_ratio: float = 0.5) -> Tensor:
    """Transition matrix (K, K) of labels that are redrawn uniformly with probability `noise_ratio`.

    Examples
    --------
    >>> symmetric_transition(2, 0.5)
    tensor([[0.7500, 0.2500],
            [0.2500, 0.7500]])
    """
    return torch.full((num_classes, num_classes), noise_ratio / num_classes) + (1 - noise_ratio) * torch.eye(
        num_classes
    )


def estimate_transition(
    positive_logits: Tensor, labels: Tensor, transition: Tensor, *, smoothing: float, steps: int
) -> Tensor:
    """Estimate how labels go wrong by expectation maximisation over the hidden true classes.

    Parameters
    ----------
    positive_logits : Tensor of shape (N, K)
        Out-of-sample, or else the labels explain themselves.
    labels : Tensor of shape (N,), int64
        Given labels.
    transition : Tensor of shape (K, K)
        Where to start.
    smoothing : float
        Pseudo-count of each wrong label of each class; it shrinks towards uniform noise.
    steps : int
        Of expectation maximisation.

    Returns
    -------
    Tensor of shape (K, K)
        Rows sum to 1.

    References
    ----------
    Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates", 1979, with one observer and a
    classifier's posterior as the prior of the truth.
    """
    num_classes = positive_logits.shape[-1]
    off_diagonal = 1 - torch.eye(num_classes, device=positive_logits.device)
    # The classifier stands for the prior of the truth; it must not have seen the labels that it explains here.
    posterior = positive_logits.softmax(dim=-1)  # (N, K)
    for _ in range(steps):
        truth = posterior * transition.T[labels]
        truth = truth / truth.sum(-1, keepdim=True).clamp(min=1e-12)
        counts = truth.new_zeros(num_classes, num_classes).index_add_(0, labels, truth).T  # (true, given)
        wrong = counts * off_diagonal
        total, moved = counts.sum(1, keepdim=True), wrong.sum(1, keepdim=True)
        # Shrink the ratio of a small class towards that of all, and where its labels go towards uniform.
        ratio = ((moved + smoothing * wrong.sum() / len(labels)) / (total + smoothing)).clamp(max=1)  # rounding
        where = (wrong + smoothing * off_diagonal) / (moved + smoothing * (num_classes - 1))
        transition = ratio * where + torch.diag(1 - ratio.squeeze(1))
    return transition
