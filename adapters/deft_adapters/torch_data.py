"""What was found, for training with PyTorch: the clean subset of a data set, or a weight for each example."""

from __future__ import annotations

import copy
import functools
import os
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.datasets import VisionDataset

from deft_plugin import Detection, ImageData, InputError
from deft_plugin.data import (
    check_same_count,
    check_same_images,
    check_same_labels,
    label_indices,
    names_are_numbers,
    own_class_names,
    read_digests,
    read_image_data,
)

Sample = TypeVar("Sample", covariant=True)
_ADVICE = (
    "Pass the whole data set, in the order in which it was judged; if it augments or normalises its images, also "
    "judged=..., the data that were judged."
)


def clean_subset(detection: Detection, dataset: Dataset[Sample], *, judged: Any = None) -> Subset[Sample]:
    """Keep the rows whose label was judged clean, in their order.

    All labels must be the judged ones, and so must the image of each row that is kept: it is decoded once, in threads.
    A detection that was made of pred_probs alone knows no images; labels alone are compared then.

    Parameters
    ----------
    detection : Detection
    dataset : torch.utils.data.Dataset
        Map-style, with the rows that were judged in the same order. One of torchvision may augment its images: they
        are compared without its transforms.
    judged : anything that `deft_plugin.detect` takes, optional
        The data that were judged, to be compared instead of `dataset`, if that augments or normalises its images, or
        its rows are no pairs (image, label). That both have one order is the caller's word then.

    Raises
    ------
    InputError
        If it has another number of rows, or a label or an image is not the judged one; names the row.
    """
    _check(detection, dataset, judged, ~detection.is_label_issue)
    return Subset(dataset, np.flatnonzero(~detection.is_label_issue).tolist())


def sample_weights(detection: Detection, dataset: Any = None, *, soft: bool = False, judged: Any = None) -> Tensor:
    """Weigh each example (N,), float32: for a weighted loss, a ``WeightedRandomSampler``, or as sample_weight.

    Parameters
    ----------
    detection : Detection
    dataset : torch.utils.data.Dataset, optional
        That the weights are for: it is compared row by row as by `clean_subset`. Without it nothing is: weights are in
        the order of the rows that were judged.
    soft : bool
        If True the label quality, which for DeFT is the probability that the label is right; else 1 for a clean
        label and 0 for an issue.
    judged : object, optional
        As for `clean_subset`.

    Raises
    ------
    InputError
        As by `clean_subset`.

    Examples
    --------
    >>> import numpy as np
    >>> from deft_plugin import Detection, ImageData, InputError
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
    if dataset is not None:
        _check(detection, dataset, judged, np.ones(len(detection), bool) if soft else ~detection.is_label_issue)
    weights = detection.label_quality if soft else ~detection.is_label_issue
    return torch.as_tensor(weights.astype(np.float32))


def _check(detection: Detection, dataset: Any, judged: Any, is_used: np.ndarray) -> None:
    """Refuse data whose rows are not those that were judged: all labels, and the images of those that are used (N,)."""
    check_same_count(len(dataset), len(detection), advice=_ADVICE)
    if judged is not None and (targets := getattr(dataset, "targets", None)) is not None:
        check_same_labels(_class_indices(targets, detection), detection.given_labels, advice=_ADVICE)
    try:
        views = [_read(detection, view) for view in ([*_plain(dataset), dataset] if judged is None else [judged])]
    except InputError as error:
        raise InputError(f"{error} {_ADVICE}") from error
    check_same_count(len(views[-1].labels), len(detection), advice=_ADVICE)
    check_same_labels(views[-1].labels, detection.given_labels, advice=_ADVICE)
    rows = np.flatnonzero(is_used)
    if detection.image_digests is None or not len(rows):
        return
    digests = detection.image_digests
    # Judged with a fixed transform, or without any: the first row tells.
    first = next(
        (view.images for view in views if (read_digests(view.images, rows[:1]) == digests[rows[0]]).all()), None
    )
    check_same_images(first or views[-1].images, digests, rows, advice=_ADVICE)


def _read(detection: Detection, view: Any) -> ImageData:
    """Read data whose labels, without names of their own, count the classes of the detection or are their ids."""
    if own_class_names(view) is not None or isinstance(view, str | os.PathLike):
        return read_image_data(view)
    counted = functools.partial(read_image_data, view, class_names=detection.class_names)
    if not names_are_numbers(detection.class_names):
        return counted()
    found, position = read_image_data(view), {name: k for k, name in enumerate(detection.class_names)}
    by_id = replace(found, labels=np.array([position.get(found.class_names[label], -1) for label in found.labels]))
    if np.array_equal(by_id.labels, detection.given_labels):
        return by_id
    try:
        return counted()
    except InputError:  # they are ids, and the first that differs is told
        return by_id


def _class_indices(targets: Any, detection: Detection) -> np.ndarray:
    """Find the classes (N,) of targets, which may be ids that are names of classes."""
    found = np.asarray(targets)
    if np.array_equal(found, detection.given_labels):
        return found
    try:
        return label_indices(targets, detection.class_names)
    except InputError:  # they are indices, and the first that differs is told
        return found


def _plain(dataset: Any) -> list[Any]:
    """Give the same data set without the transforms of torchvision, if it has some."""
    if isinstance(dataset, Subset):
        return [Subset(plain, dataset.indices) for plain in _plain(dataset.dataset)]
    if not isinstance(dataset, VisionDataset):
        return []
    plain = copy.copy(dataset)
    plain.transform = plain.target_transform = plain.transforms = None
    return [plain]
