"""A trained detector on data that are read batch by batch, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch

from deft_plugin.compute.precision import autocast, pick_device, use_precision
from deft_plugin.data.images import read_image
from deft_plugin.data.labels import index_of, label_index
from deft_plugin.deft.verdicts import clean_probability
from deft_plugin.errors import InputError, UnreadableImageError
from deft_plugin.settings import OnBadImage, Precision, check_choice, check_precision

if TYPE_CHECKING:
    from deft_plugin.deft.detector import Detector
    from deft_plugin.settings import OnBadImage
    from deft_plugin.types import Backbone

AnyDataset = TypeVar("AnyDataset")
COLUMNS = ("label_quality", "is_label_issue", "predicted_label")


class BatchScorer:
    """Function of a batch of rows that gives label_quality, is_label_issue and predicted_label of each.

    For ``dataset.map(scorer, batched=True)`` of Hugging Face data sets, and ``map_batches`` of others. The model is
    loaded at the first call in each process; a pickle does not carry it.

    Parameters
    ----------
    detector : Detector
    image_column, label_column : str
        Images are anything that `deft_plugin.data.images.read_image` takes; labels are class names, or indices.
    feature_column : str, optional
        Image features (D,) as the model gives them, instead of images. Only for an encoder that stayed frozen; no
        model is needed.
    class_names : sequence of str, optional
        What label indices stand for; by default the classes of the detector.
    device : str
    precision : str
    on_bad_image : "raise" or "flag"
        A flagged row has quality 0, is an issue, and has no predicted label.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        image_column: str = "image",
        label_column: str = "label",
        feature_column: str | None = None,
        class_names: Sequence[str] | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        on_bad_image: OnBadImage = "raise",
    ) -> None:
        check_precision(precision)
        check_choice("on_bad_image", on_bad_image, OnBadImage)
        if feature_column is not None and detector.encoder:
            raise InputError(
                f"Expected a detector with a frozen encoder for features that were computed before, but this one was "
                f"trained by {detector.tuning!r}. Give it the images."
            )
        self.detector = detector
        self._image_column, self._label_column, self._feature_column = image_column, label_column, feature_column
        self._class_names = tuple(class_names or detector.class_names)
        self._find_index = label_index if class_names is None else index_of
        self._device, self._on_bad_image = device, on_bad_image
        self._precision: Precision = precision
        self._backbone: Backbone | None = None
        self._tuned: AbstractContextManager[None] | None = None

    # Sent to other processes without the model: each loads its own, once.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_backbone": None, "_tuned": None}

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Judge a batch.

        Parameters
        ----------
        batch : mapping
            Columns of B rows.

        Returns
        -------
        dict
            label_quality (float in [0, 1], low = bad), is_label_issue (bool) and predicted_label (class name, or None
            where the image could not be read), each a list of length B.

        Raises
        ------
        InputError
            If a column is missing, or a label is of no class that the detector knows.
        UnreadableImageError
            If an image cannot be read, unless such rows are flagged.
        """
        given = self._column(batch, self._label_column)
        indices = np.array([self._find_index(label, self._class_names) for label in given])
        # A data set may count its classes in another order than the detector: they are matched by name.
        labels = self.detector.known_labels(indices, self._class_names) if len(indices) else indices
        features, readable = self._features(batch)
        quality, is_issue = np.zeros(len(labels)), np.ones(len(labels), bool)
        predicted = np.full(len(labels), None, object)
        if readable.any():
            margins, is_clean, found = self.detector.judge(features, labels[readable])
            quality[readable] = clean_probability(margins.double()).cpu().numpy()
            is_issue[readable] = ~is_clean.cpu().numpy()
            predicted[readable] = np.array(self.detector.class_names, object)[found.cpu().numpy()]
        return dict(zip(COLUMNS, (quality.tolist(), is_issue.tolist(), predicted.tolist()), strict=True))

    def _features(self, batch: Mapping[str, Sequence[Any]]) -> tuple[torch.Tensor, np.ndarray]:
        """Features (R, D) of the readable rows, and which rows (B,) these are."""
        if self._feature_column is not None:
            values = np.asarray(self._column(batch, self._feature_column), np.float32)
            return torch.from_numpy(values), np.ones(len(values), bool)
        backbone, device = self._load()
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow decodes and resizes without holding the lock
            images = list(threads.map(partial(self._preprocess, backbone), self._column(batch, self._image_column)))
        pixels = [image for image in images if image is not None]
        readable = np.array([image is not None for image in images], bool)
        if not pixels:
            return torch.empty(0), readable
        with torch.no_grad(), use_precision(self._precision), autocast(device):
            return backbone.encode_images(torch.stack(pixels).to(device)).float(), readable

    def _preprocess(self, backbone: Backbone, image: Any) -> torch.Tensor | None:
        try:
            return backbone.preprocess(read_image(image))
        except UnreadableImageError:
            if self._on_bad_image == "raise":
                raise
            return None

    def _load(self) -> tuple[Backbone, str]:
        """Load the model of the detector, with what was trained of it."""
        device = pick_device(self._device)
        if self._backbone is not None:
            return self._backbone, device
        from deft_plugin.plugins import load_plugins

        backbone = load_plugins().backbones.load(self.detector.model, self.detector.model).to(device)
        self.detector.check_backbone(backbone)
        self._tuned = self.detector.in_encoder(backbone)  # for as long as this lives
        self._tuned.__enter__()
        self._backbone = backbone
        return backbone, device

    def _column(self, batch: Mapping[str, Sequence[Any]], name: str) -> Sequence[Any]:
        if name not in batch:
            raise InputError(
                f"Expected a column {name!r}, but got {', '.join(batch)}. Name the columns with image_column=... and "
                "label_column=..."
            )
        return batch[name]


def add_columns(
    dataset: AnyDataset,
    detector: Detector,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    feature_column: str | None = None,
    batch_size: int = 64,
    **settings: Any,
) -> AnyDataset:
    """Score a Hugging Face data set of any kind; see `deft_plugin.Detector.add_columns`.

    Images must be stored as bytes or as files on this machine.
    """
    import datasets

    if isinstance(dataset, datasets.DatasetDict | datasets.IterableDatasetDict):
        columns = {"image_column": image_column, "label_column": label_column, "feature_column": feature_column}
        splits: Any = dataset
        scored: Any = {
            name: add_columns(split, detector, batch_size=batch_size, **columns, **settings)
            for name, split in splits.items()
        }
        return type(dataset)(scored)
    if not isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
        raise InputError(
            f"Expected a Hugging Face data set, but got {type(dataset).__name__}. Use detector.score for other data."
        )
    found: Any = dataset
    image_column, label_column = _columns(found, image_column, label_column, needs_image=feature_column is None)
    scorer = BatchScorer(
        detector,
        image_column=image_column,
        label_column=label_column,
        feature_column=feature_column,
        class_names=getattr((found.features or {}).get(label_column), "names", None),
        **settings,
    )
    features = _with_verdicts(found.features)
    image = (found.features or {}).get(image_column)
    if isinstance(image, datasets.Image):  # else datasets would decode the image, and encode it again
        found = found.cast_column(image_column, datasets.Image(mode=image.mode, decode=False))
    if isinstance(found, datasets.Dataset):
        return cast("AnyDataset", found.map(scorer, batched=True, batch_size=batch_size, features=features))
    # A stream takes features as a promise that images are decoded already; a cast decodes them.
    scored = found.map(scorer, batched=True, batch_size=batch_size)
    return scored if features is None else scored.cast(features)


def _columns(dataset: Any, image: str | None, label: str | None, *, needs_image: bool) -> tuple[str, str]:
    from deft_plugin.data.columns import find_image_column, find_label_column

    if dataset.features is None and (label is None or (needs_image and image is None)):
        raise InputError(
            "Expected image_column and label_column for a stream that does not know its columns; got "
            f"{image!r} and {label!r}."
        )
    if image is None:
        image = find_image_column(dataset) if needs_image else "image"
    return image, label or find_label_column(dataset)


def _with_verdicts(features: Any) -> Any:
    """Features with those of the new columns; None if they are not known."""
    import datasets

    if features is None:
        return None
    types = ("float64", "bool", "string")
    return datasets.Features({**features, **{n: datasets.Value(t) for n, t in zip(COLUMNS, types, strict=True)}})
