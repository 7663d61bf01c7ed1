"""How well wrong labels were found where the truth is known, in both polarities.

*Clean* precision, recall and F1 are of the labels that were kept (the DeFT paper's); *noise* precision,
recall and F1 are of the labels that were flagged (most other papers'). Higher is better in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deft_plugin.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DetectionMetrics:
    """Scores of one selector on one data set; all in [0, 1], higher = better.

    A score that is 0 / 0 is None, since JSON has no NaN: without any wrong label in the data there is no
    noise recall; where nothing was kept there is no clean precision. AUROC and AUPRC are None unless the data
    has both right and wrong labels.

    Attributes
    ----------
    clean_precision, clean_recall, clean_f1 : float or None
        Of keeping labels that are right.
    noise_precision, noise_recall, noise_f1 : float or None
        Of flagging labels that are wrong.
    auroc : float or None
        Chance that a right label has a higher label quality than a wrong one (ties count half).
    auprc : float or None
        Average precision of finding *wrong* labels, ranked by 1 - label_quality. Chance level is the share of
        wrong labels.
    """

    clean_precision: float | None
    clean_recall: float | None
    clean_f1: float | None
    noise_precision: float | None
    noise_recall: float | None
    noise_f1: float | None
    auroc: float | None
    auprc: float | None


def detection_metrics(
    is_clean: npt.ArrayLike, label_quality: npt.ArrayLike, is_truly_clean: npt.ArrayLike
) -> DetectionMetrics:
    """Score a selector's verdicts against the truth.

    Parameters
    ----------
    is_clean : array-like of shape (N,), bool
        True where the selector kept the label.
    label_quality : array-like of shape (N,), float in [0, 1]
        Low = bad.
    is_truly_clean : array-like of shape (N,), bool
        True where the given label is the true one.

    Returns
    -------
    DetectionMetrics
        Over the whole data set, not a mean over mini-batches.

    Raises
    ------
    InputError
        If the lengths differ or are 0, a mask is not bool, or a quality is not in [0, 1].

    Examples
    --------
    >>> metrics = detection_metrics([True, True, False], [0.9, 0.6, 0.2], [True, False, False])
    >>> metrics.clean_precision, metrics.noise_recall, metrics.auroc
    (0.5, 0.5, 1.0)
    """
    kept = _checked_mask("is_clean", is_clean)
    truly_clean = _checked_mask("is_truly_clean", is_truly_clean)
    quality = _checked_quality(label_quality)
    if not len(kept) == len(truly_clean) == len(quality) > 0:
        raise InputError(
            "Expected is_clean, label_quality and is_truly_clean of one length above 0, but got "
            f"{len(kept)}, {len(quality)} and {len(truly_clean)}. Give one value for each example."
        )
    clean_precision, clean_recall, clean_f1 = _precision_recall_f1(kept, truly_clean)
    noise_precision, noise_recall, noise_f1 = _precision_recall_f1(~kept, ~truly_clean)
    auroc, auprc = _ranking_scores(quality, truly_clean)
    return DetectionMetrics(
        clean_precision=clean_precision,
        clean_recall=clean_recall,
        clean_f1=clean_f1,
        noise_precision=noise_precision,
        noise_recall=noise_recall,
        noise_f1=noise_f1,
        auroc=auroc,
        auprc=auprc,
    )


def batch_mean_metrics(
    is_clean: npt.NDArray[np.bool_], is_truly_clean: npt.NDArray[np.bool_], batches: Iterable[npt.NDArray[np.int64]]
) -> tuple[float | None, float | None]:
    """Clean precision and recall as means over mini-batches, as the authors of DeFT report them.

    A batch in which a score is 0 / 0 does not count for it; None if there is no other.

    Parameters
    ----------
    is_clean, is_truly_clean : np.ndarray of shape (N,), bool
    batches : iterable of np.ndarray of shape (B,), int
        Rows of each batch.

    Returns
    -------
    tuple of float or None

    Examples
    --------
    >>> truth = np.array([True, False, True, True])
    >>> batch_mean_metrics(np.ones(4, bool), truth, [np.array([0, 1]), np.array([2, 3])])
    (0.75, 1.0)
    """
    scores = [_precision_recall_f1(is_clean[rows], is_truly_clean[rows])[:2] for rows in batches]
    known = [[score for score in one if score is not None] for one in zip(*scores, strict=True)]
    precision, recall = (float(np.mean(one)) if one else None for one in known)
    return precision, recall


def _precision_recall_f1(
    predicted: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]
) -> tuple[float | None, float | None, float | None]:
    from sklearn.metrics import precision_recall_fscore_support

    undefined: Any = np.nan  # inferred to be str from its default
    scores: tuple[Any, ...] = precision_recall_fscore_support(
        true, predicted, average="binary", pos_label=True, zero_division=undefined
    )
    precision, recall, f1 = (None if math.isnan(score) else float(score) for score in scores[:3])
    return precision, recall, f1


def _ranking_scores(
    quality: npt.NDArray[np.float64], truly_clean: npt.NDArray[np.bool_]
) -> tuple[float | None, float | None]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    if truly_clean.all() or not truly_clean.any():
        return None, None
    # The order of 1 - quality, but tiny qualities stay apart: 1 - 1e-17 rounds to 1.
    return float(roc_auc_score(truly_clean, quality)), float(average_precision_score(~truly_clean, -quality))


def _checked_mask(name: str, mask: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    array = np.asarray(mask)
    if array.ndim != 1 or (array.size and array.dtype != np.bool_):
        raise InputError(
            f"Expected {name} to be bool of shape (N,), but got {array.dtype} of shape {array.shape}. "
            "Give one True or False for each example."
        )
    return array.astype(np.bool_)


def _checked_quality(label_quality: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(label_quality, dtype=np.float64)
    if array.ndim != 1 or not bool(np.all((array >= 0) & (array <= 1))):
        raise InputError(
            f"Expected label_quality in [0, 1] of shape (N,), but got shape {array.shape} with values from "
            f"{np.min(array, initial=np.inf)} to {np.max(array, initial=-np.inf)}. "
            "Scale the scores, and replace NaN by a quality."
        )
    return array
