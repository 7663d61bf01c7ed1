"""The losses of DeFT, and the labels that they are learned from: pure functions over tensors.

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

from deft_plugin.training.losses import cross_entropies


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
    # A shift by 1 … K-1 is never the label itself, and all others are equally probable.
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
    if floor:  # as the authors clamp; their gradient vanishes below it, which the faithful protocol keeps
        of_label, of_complement = torch.sigmoid(logits_of_label), torch.sigmoid(-logits_of_complement)
        return -of_label.clamp(min=floor).log() - of_complement.clamp(min=floor).log()
    return -F.logsigmoid(logits_of_label) - F.logsigmoid(-logits_of_complement)


def sim_losses(positive_logits: Tensor, labels: Tensor, is_clean: Tensor) -> Tensor:
    """L_sim of each example: cross-entropy where the label is selected, else 0.

    Parameters
    ----------
    positive_logits : Tensor of shape (..., B, K)
    labels, is_clean : Tensor of shape (..., B)

    Returns
    -------
    Tensor of shape (..., B)
    """
    return cross_entropies(positive_logits, labels) * is_clean


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
    # A batch without a selected example divides 0 by 1; the authors' code gives NaN there.
    return sim_losses(positive_logits, labels, is_clean).sum(-1) / is_clean.sum(-1).clamp(min=1)
