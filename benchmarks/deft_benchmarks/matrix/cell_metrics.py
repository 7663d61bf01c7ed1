"""All metrics of a cell: verdicts, and the label quality as a ranking and as a chance."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_benchmarks.matrix.metrics import batch_mean_metrics, detection_metrics

if TYPE_CHECKING:
    from deft_plugin import Detection

BINS = 15
HISTOGRAM_BINS = 20


def score_verdicts(detection: Detection, is_right: np.ndarray, *, per_class: bool) -> dict[str, Any]:
    """Score a detection against the truth.

    Parameters
    ----------
    detection : Detection
    is_right : np.ndarray of shape (N,), bool
        True where the given label is the true one.
    per_class : bool
        Score the examples of each class, too.

    Returns
    -------
    dict
        ``metrics``, ``per_class`` and ``quality_histogram`` of a `deft_benchmarks.matrix.cells.Cell`.
    """
    is_clean, quality = ~detection.is_label_issue, detection.label_quality
    metrics = cell_metrics(is_clean, quality, is_right)
    precision, recall = batch_means(detection, is_right)
    if precision is not None:
        metrics |= {"batch_mean_clean_precision": precision, "batch_mean_clean_recall": recall}
    of_classes = metrics_of_classes(is_clean, quality, is_right, detection) if per_class else None
    return {"metrics": metrics, "per_class": of_classes, "quality_histogram": quality_histogram(quality, is_right)}


def cell_metrics(is_clean: np.ndarray, label_quality: np.ndarray, is_right: np.ndarray) -> dict[str, float | None]:
    """Score verdicts (N,) against the truth.

    Returns
    -------
    dict
        The fields of `deft_benchmarks.matrix.metrics.DetectionMetrics`, ``noise_miss_rate_at_budget`` and
        ``calibration_error``; lower is better in both of these.
    """
    scores: dict[str, float | None] = dataclasses.asdict(detection_metrics(is_clean, label_quality, is_right))
    scores["noise_miss_rate_at_budget"] = noise_miss_rate_at_budget(label_quality, is_right)
    scores["calibration_error"] = calibration_error(label_quality, is_right)
    return scores


def batch_means(detection: Detection, is_right: np.ndarray) -> tuple[float | None, float | None]:
    """Clean precision and recall over the batches of the last epoch, if the verdicts were made in them."""
    details = detection.details
    if details.get("protocol") != "faithful":
        return None, None
    from deft_plugin.training import epoch_batches

    batches = epoch_batches(
        len(is_right), details["batch_size"], seed=detection.settings["seed"], epoch=details["epochs"]
    )
    return batch_mean_metrics(~detection.is_label_issue, is_right, (rows.numpy() for rows in batches))


def noise_miss_rate_at_budget(label_quality: np.ndarray, is_right: np.ndarray) -> float | None:
    """Share of the wrong labels that are missed if as many labels are looked at as are wrong, the worst first.

    Labels of equal quality at the end of the budget count by the share of them that is in it. None if all are right.

    Examples
    --------
    >>> noise_miss_rate_at_budget(np.array([0.1, 0.2, 0.9, 0.8]), np.array([False, True, True, False]))
    0.5
    """
    budget = int((~is_right).sum())
    if budget == 0:
        return None
    last = np.partition(label_quality, budget - 1)[budget - 1]
    below, at = label_quality < last, label_quality == last
    share = (budget - below.sum()) / at.sum()
    return float(1 - ((~is_right & below).sum() + share * (~is_right & at).sum()) / budget)


def calibration_error(label_quality: np.ndarray, is_right: np.ndarray) -> float:
    """Compute the expected calibration error of label quality as the chance of a right label; 15 bins of equal width.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3.

    Examples
    --------
    >>> calibration_error(np.array([1.0, 1.0]), np.array([True, False]))
    0.5
    """
    bins = np.minimum((label_quality * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    gaps = np.abs(
        np.bincount(bins, weights=label_quality, minlength=BINS) - np.bincount(bins, weights=is_right, minlength=BINS)
    )
    return float(gaps.sum() / counts.sum())


def quality_histogram(label_quality: np.ndarray, is_right: np.ndarray) -> dict[str, list[int]]:
    """Count right and wrong labels in 20 bins of label quality of equal width from 0 to 1; 1 is in the last one.

    Examples
    --------
    >>> counts = quality_histogram(np.array([0.01, 0.07, 1.0]), np.array([False, False, True]))
    >>> counts["wrong"][:3], counts["right"][-1]
    ([1, 1, 0], 1)
    """
    chosen = {"right": label_quality[is_right], "wrong": label_quality[~is_right]}
    return {
        name: np.histogram(values, bins=HISTOGRAM_BINS, range=(0, 1))[0].tolist() for name, values in chosen.items()
    }


def metrics_of_classes(
    is_clean: np.ndarray, label_quality: np.ndarray, is_right: np.ndarray, detection: Detection
) -> dict[str, dict[str, float | None]]:
    """Metrics of the examples of each given class, by class name; without those that have none."""
    found: dict[str, dict[str, float | None]] = {}
    for index, name in enumerate(detection.class_names):
        rows = detection.given_labels == index
        if rows.any():
            found[name] = cell_metrics(is_clean[rows], label_quality[rows], is_right[rows])
    return found
