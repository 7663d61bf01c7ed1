"""What was found, for training with PyTorch: the clean subset of a data set, or a weight for each example."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from deft_plugin import Detection, InputError
from deft_plugin.data import check_same_count, check_same_labels, label_indices

Sample = TypeVar("Sample", covariant=True)
_ADVICE = "Pass the whole data set, in the order in which it was judged."


def clean_subset(detection: Detection, dataset: Dataset[Sample]) -> Subset[Sample]:
    """Keep the rows whose label was judged clean, in their order.

    Parameters
    ----------
    detection : Detection
    dataset : torch.utils.data.Dataset
        Map-style, with the rows that were judged in the same order; it may augment its images.

    Raises
    ------
    InputError
        If it has another number of rows, or knows labels (``targets``) that are not the judged ones.
    """
    rows: Any = dataset
    check_same_count(len(rows), len(detection), advice=_ADVICE)
    if (targets := getattr(dataset, "targets", None)) is not None:
        check_same_labels(_class_indices(targets, detection), detection.given_labels, advice=_ADVICE)
    return Subset(dataset, np.flatnonzero(~detection.is_label_issue).tolist())


def _class_indices(targets: Any, detection: Detection) -> np.ndarray:
    """Find the indices (N,) of the classes of targets, which may be ids that are names of classes."""
    found = np.asarray(targets)
    if np.array_equal(found, detection.given_labels):
        return found
    try:
        return label_indices(targets, detection.class_names)
    except InputError:  # they are indices, and the first that differs is told
        return found


def sample_weights(detection: Detection, *, soft: bool = False) -> Tensor:
    """Weigh each example (N,), float32: for a weighted loss, a ``WeightedRandomSampler``, or as sample_weight.

    Parameters
    ----------
    detection : Detection
    soft : bool
        If True the label quality, which for DeFT is the probability that the label is right; else 1 for a clean
        label and 0 for an issue.

    Examples
    --------
    >>> import numpy as np
    >>> from deft_plugin import Detection
    >>> detection = Detection(
    ...     method="x",
    ...     label_quality=np.array([0.9, 0.2]),
    ...     is_label_issue=np.array([False, True]),
    ...     predicted_labels=np.array([0, 0]),
    ...     given_labels=np.array([0, 1]),
    ...     class_names=("cat", "dog"),
    ...     image_digests=None,
    ...     is_image_issue=np.array([False, False]),
    ... )
    >>> sample_weights(detection), sample_weights(detection, soft=True)
    (tensor([1., 0.]), tensor([0.9000, 0.2000]))
    """
    weights = detection.label_quality if soft else ~detection.is_label_issue
    return torch.as_tensor(weights.astype(np.float32))
