"""The mathematics of DeFT: pure functions over tensors.

Notation of the paper: ``l_ik = s * sim(I_i, T_k)`` are logits of image i and class k, for positive and negative
prompts. Where a function takes logits of the given label only, they have shape (N,) instead of (N, K).

References
----------
Wei et al., "Vision-Language Models are Strong Noisy Label Detectors", NeurIPS 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CONE_SINE = 0.2
"""Sine of the half-angle of the cone within which a negative prompt may move away from the background."""


def clean_probability(positive_logits: Tensor, negative_logits: Tensor) -> Tensor:
    """Compute p_clean = exp(l+) / (exp(l+) + exp(l-)), in [0, 1], high = clean.

    Parameters
    ----------
    positive_logits, negative_logits : Tensor of any shape, the same

    Examples
    --------
    >>> clean_probability(torch.tensor([2.0, 0.0]), torch.tensor([2.0, 1.0]))
    tensor([0.5000, 0.2689])
    """
    return torch.sigmoid(positive_logits - negative_logits)


def select_clean(positive_logits: Tensor, negative_logits: Tensor | float) -> Tensor:
    """Select as DeFT does: clean where closer to the positive prompt, strictly; a tie is an issue.

    Examples
    --------
    >>> select_clean(torch.tensor([2.0, 0.0]), torch.tensor([2.0, -1.0]))
    tensor([False,  True])
    """
    return positive_logits > negative_logits


def pseudo_labels(labels: Tensor, is_clean: Tensor, positive_logits: Tensor) -> Tensor:
    """Given label where selected, else the class of the closest positive prompt.

    Parameters
    ----------
    labels : Tensor of shape (N,), int64
    is_clean : Tensor of shape (N,), bool
    positive_logits : Tensor of shape (N, K)

    Examples
    --------
    >>> pseudo_labels(torch.tensor([0, 0]), torch.tensor([True, False]), torch.tensor([[1.0, 2.0], [1.0, 2.0]]))
    tensor([0, 1])
    """
    return torch.where(is_clean, labels, positive_logits.argmax(dim=-1))


def complementary_labels(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """Draw a label other than the given one, uniformly; the same shape as `labels`."""
    shift = torch.randint(1, num_classes, labels.shape, generator=generator).to(labels.device)
    return (labels + shift) % num_classes


def dp_loss(logits_of_label: Tensor, logits_of_complement: Tensor, *, floor: float = 0.0) -> Tensor:
    """L_dp = NLL(p_clean, label) + NLL(1 - p_clean, complementary label), per example.

    Parameters
    ----------
    logits_of_label, logits_of_complement : Tensor of any shape, the same
        ``l+ - l-`` of the (pseudo-)label and of the complementary label. The caller detaches ``l+``: L_dp trains
        the negative side only, as the authors' code does.
    floor : float
        Probabilities below it count as this much, and give no gradient. The authors' code clamps at 1e-5; log
        sigmoid in one step needs no clamp.
    """
    if floor:
        of_label, of_complement = torch.sigmoid(logits_of_label), torch.sigmoid(-logits_of_complement)
        return -of_label.clamp(min=floor).log() - of_complement.clamp(min=floor).log()
    return -F.logsigmoid(logits_of_label) - F.logsigmoid(-logits_of_complement)


def sim_loss(positive_logits: Tensor, labels: Tensor, is_clean: Tensor) -> Tensor:
    """L_sim: mean cross-entropy over the selected examples; 0 if none is selected.

    Parameters
    ----------
    positive_logits : Tensor of shape (..., B, K)
    labels, is_clean : Tensor of shape (..., B)

    Returns
    -------
    Tensor of shape (...)
    """
    log_p = F.log_softmax(positive_logits, dim=-1)
    nll = -log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)  # (..., B)
    return (nll * is_clean).sum(-1) / is_clean.sum(-1).clamp(min=1)


def symmetric_cross_entropy(
    positive_logits: Tensor, labels: Tensor, *, alpha: float = 0.1, beta: float = 1.0, log_of_zero: float = -4.0
) -> Tensor:
    """Cross-entropy times alpha, plus reverse cross-entropy times beta, per example (B,).

    Parameters
    ----------
    positive_logits : Tensor of shape (B, K)
    labels : Tensor of shape (B,), int64
    log_of_zero : float
        What stands for log 0 in the reverse cross-entropy.

    References
    ----------
    Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", ICCV 2019, eq. 7.
    """
    forward = F.cross_entropy(positive_logits, labels, reduction="none")
    of_label = positive_logits.softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return alpha * forward - beta * log_of_zero * (1 - of_label)


def background_logits(positive_logits: Tensor, transition: Tensor, labels: Tensor) -> Tensor:
    """Logits of the "anything else" that carries a label: what a negative prompt is measured against.

    ``b_iy = log sum_{j != y} exp(l_ij) T_jy - log T_yy``, so that ``l_iy > b_iy`` says that label y is more
    probably right than wrong, if T_jy is the probability that an image of class j is given label y.

    Parameters
    ----------
    positive_logits : Tensor of shape (..., K)
    transition : Tensor of shape (K, K)
        Rows: true class; columns: given label. Each row sums to 1.
    labels : Tensor of shape (...)

    Returns
    -------
    Tensor of shape (...)
    """
    log_t = transition.clamp(min=1e-12).log()
    weights = log_t.T[labels]  # (..., K): log T_jy over j
    own = weights.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    others = (positive_logits + weights).scatter(-1, labels.unsqueeze(-1), float("-inf"))
    return others.logsumexp(dim=-1) - own


def margins(positive_logits: Tensor, negative: Tensor, labels: Tensor, transition: Tensor | None = None) -> Tensor:
    """Positive minus negative logit of `labels`: the label is clean where it is > 0, and p_clean is its sigmoid.

    Parameters
    ----------
    positive_logits : Tensor of shape (..., B, K)
    negative : Tensor of shape (..., B)
        Negative logits of `labels`.
    labels : Tensor of shape (..., B), int64
    transition : Tensor of shape (K, K), optional
        Without it the negative prompt is measured from the origin, as in the paper. With it, for features without a
        cone, from the background (`background_logits`), and moves within a cone of `CONE_SINE`.

    Returns
    -------
    Tensor of shape (..., B)
    """
    own = positive_logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    if transition is None:
        return own - negative
    return own - background_logits(positive_logits, transition, labels) - CONE_SINE * negative


def judge(
    positive_logits: Tensor,
    negative_logits: Tensor,
    labels: Tensor,
    transition: Tensor | None = None,
    *,
    is_real_noise: bool = False,
) -> tuple[Tensor, Tensor]:
    """Judge labels by logits of all classes.

    Parameters
    ----------
    positive_logits, negative_logits : Tensor of shape (B, K)
    labels : Tensor of shape (B,), int64
    transition : Tensor of shape (K, K), optional
        See `margins`.
    is_real_noise : bool
        The authors' variant: a clean label must also be the class with the highest p_clean.

    Returns
    -------
    margins : Tensor of shape (B,)
    is_clean : Tensor of shape (B,), bool
    """
    against = negative_logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)  # (B,)
    of_labels = margins(positive_logits, against, labels, transition)
    is_clean = select_clean(of_labels.detach(), 0.0)
    if is_real_noise:
        is_clean = is_clean & ((positive_logits - negative_logits).argmax(-1) == labels)
    return of_labels, is_clean


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
    positive_logits: Tensor, labels: Tensor, transition: Tensor, *, smoothing: float = 3.0, steps: int = 20
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
    posterior = positive_logits.softmax(dim=-1)  # (N, K)
    for _ in range(steps):
        truth = posterior * transition.T[labels]
        truth = truth / truth.sum(-1, keepdim=True).clamp(min=1e-12)
        counts = truth.new_zeros(num_classes, num_classes).index_add_(0, labels, truth).T  # (true, given)
        wrong = counts * off_diagonal
        total, moved = counts.sum(1, keepdim=True), wrong.sum(1, keepdim=True)
        ratio = ((moved + smoothing * wrong.sum() / len(labels)) / (total + smoothing)).clamp(max=1)  # rounding
        where = (wrong + smoothing * off_diagonal) / (moved + smoothing * (num_classes - 1))
        transition = ratio * where + torch.diag(1 - ratio.squeeze(1))
    return transition
