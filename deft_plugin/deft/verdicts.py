"""From logits to verdicts: what a negative prompt is measured against, and which labels are clean.

Notation of the paper: ``l_ik = s * sim(I_i, T_k)`` are logits of image i and class k, for positive and negative
prompts. A *margin* is the positive minus the negative logit of a label. There is one rule: a label is clean where its
margin is above 0, strictly, which is where p_clean is above 1/2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def is_clean(margins: Tensor) -> Tensor:
    """Tell which labels are clean: closer to the positive prompt, strictly; a tie is an issue.

    Parameters
    ----------
    margins : Tensor of any shape

    Returns
    -------
    Tensor of the same shape, bool

    Examples
    --------
    >>> is_clean(torch.tensor([1.0, 0.0, -1.0]))
    tensor([ True, False, False])
    """
    return margins > 0


def clean_probability(margins: Tensor) -> Tensor:
    """Compute p_clean = exp(l+) / (exp(l+) + exp(l-)), the sigmoid of the margin: in [0, 1], high = clean.

    It is above 1/2 exactly where `is_clean` says so: a positive margin too small for the number format counts as the
    next number above 1/2.

    Parameters
    ----------
    margins : Tensor of any shape, float32 or float64

    Examples
    --------
    >>> clean_probability(torch.tensor([0.0, -1.0]))
    tensor([0.5000, 0.2689])
    """
    above_half = torch.nextafter(margins.new_tensor(0.5), margins.new_tensor(1.0))
    p_clean = torch.sigmoid(margins)
    return torch.where(is_clean(margins), p_clean.clamp(min=above_half), p_clean)


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
    # A pair of classes that never went wrong would be impossible for ever: a floor instead of log 0.
    log_t = transition.clamp(min=1e-12).log()
    weights = log_t.T[labels]  # (..., K): log T_jy over j
    # Against the label itself being right: log T_yy is taken off, so that both sides weigh the same prior.
    own = weights.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    others = (positive_logits + weights).scatter(-1, labels.unsqueeze(-1), float("-inf"))
    return others.logsumexp(dim=-1) - own


def margins(
    positive_logits: Tensor,
    negative: Tensor,
    labels: Tensor,
    transition: Tensor | None = None,
    *,
    cone_sine: float,
) -> Tensor:
    """Positive minus negative logit of `labels`.

    Parameters
    ----------
    positive_logits : Tensor of shape (..., B, K)
    negative : Tensor of shape (..., B)
        Negative logits of `labels`.
    labels : Tensor of shape (..., B), int64
    transition : Tensor of shape (K, K), optional
        Without it the negative prompt is measured from the origin, as in the paper. With it, for features without a
        cone, from the background (`background_logits`), and moves within a cone of `cone_sine`.
    cone_sine : float
        See `deft_plugin.settings.FrozenSettings`.

    Returns
    -------
    Tensor of shape (..., B)
    """
    own = positive_logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    if transition is None:  # the paper: CLIP's cone makes the negative prompt a threshold by itself
        return own - negative
    return own - background_logits(positive_logits, transition, labels) - cone_sine * negative


def judge(
    positive_logits: Tensor,
    negative_logits: Tensor,
    labels: Tensor,
    transition: Tensor | None = None,
    *,
    cone_sine: float,
    is_real_noise: bool = False,
) -> tuple[Tensor, Tensor]:
    """Judge labels by logits of all classes.

    Parameters
    ----------
    positive_logits, negative_logits : Tensor of shape (B, K)
    labels : Tensor of shape (B,), int64
    transition : Tensor of shape (K, K), optional
        See `margins`.
    cone_sine : float
        See `margins`.
    is_real_noise : bool
        The authors' variant: a clean label must also be the class with the highest p_clean.

    Returns
    -------
    margins : Tensor of shape (B,)
    is_clean : Tensor of shape (B,), bool
    """
    against = negative_logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)  # (B,)
    of_labels = margins(positive_logits, against, labels, transition, cone_sine=cone_sine)
    clean = is_clean(of_labels.detach())
    if is_real_noise:
        clean = clean & ((positive_logits - negative_logits).argmax(-1) == labels)
    return of_labels, clean
