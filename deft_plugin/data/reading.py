"""Reading what the user has: a folder, a Hugging Face data set, a torch data set, or images with labels."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deft_plugin.data.class_names import class_names_of
from deft_plugin.data.columns import find_image_column, find_label_column, read_column
from deft_plugin.data.folder import find_files
from deft_plugin.data.labels import check_labels
from deft_plugin.data.sources import (
    NO_LABEL,
    FileImages,
    ImageSource,
    IndexedImages,
    StoredImages,
    get_sample,
    split_sample,
)
from deft_plugin.data.stored import holds_dataset, read_dataset
from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Images with the labels to be judged.

    Attributes
    ----------
    images : ImageSource
    labels : np.ndarray of shape (N,), int64 in [0, K)
    class_names : tuple of str of length K
    image_column, label_column : str, optional
        Where they are in a Hugging Face data set; None for other data, or if the labels were given apart.
    id_column : str, optional
        Column of a Hugging Face data set whose values tell its rows apart.
    id_digests : np.ndarray of shape (N, 16), uint8, optional
        Of these values.
    """

    images: ImageSource
    labels: np.ndarray
    class_names: tuple[str, ...]
    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    id_digests: np.ndarray | None = None


def read_image_data(
    data: Any,
    labels: Any = None,
    class_names: Any = None,
    *,
    image_column: str | None = None,
    id_column: str | None = None,
    split: str | None = None,
) -> ImageData:
    """Read images and labels; images are decoded later, when they are asked for.

    Parameters
    ----------
    data : datasets.Dataset, path, map-style torch data set, or sequence of images
        A path is that of a folder of class folders (or of splits that hold them), of a table of paths and labels
        (CSV, TSV, JSON lines, ``metadata.csv`` beside images), of Parquet, Arrow or webdataset tar files (a file, a
        folder, or a glob), or of what ``Dataset.save_to_disk`` wrote. Images in a sequence are PIL images,
        numpy arrays or paths. A torch data set must give the same image at each access: no augmentation, no
        normalisation. Its rows are (image, label), with an index or more behind, or mappings with "image" and
        "label". Its ``targets`` and ``classes`` are taken if it has them, else each row is read once for its label.
        An ImageData is given back as it is.
    labels : sequence of int or str of length N, or str, optional
        Instead of the labels that `data` has. A string names the label column of a Hugging Face data set. Whole
        numbers without class names may be any ids: the classes are those that occur.
    class_names : sequence of str of length K, optional
        Instead of the class names that `data` has. For a folder of class folders, their order.
    image_column : str, optional
        Column of a Hugging Face data set that holds the images, if it has several.
    id_column : str, optional
        Column of a Hugging Face data set whose values tell its rows apart.
    split : str, optional
        Which of the splits that a path holds, such as "train"; "all" for all of them together.

    Returns
    -------
    ImageData

    Raises
    ------
    InputError
        If the data cannot be understood; says what was expected.
    UnreadableImageError
        If a torch data set without ``targets`` cannot read a row.

    Examples
    --------
    >>> import numpy as np
    >>> data = read_image_data([np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)], labels=["cat", "dog"])
    >>> data.labels, data.class_names
    (array([0, 1]), ('cat', 'dog'))
    """
    given: dict[str, Any] = {"image_column": image_column, "id_column": id_column, "split": split}
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise InputError(f"Expected {name} as a string, but got {value!r}, of type {type(value).__name__}.")
    if isinstance(data, str | os.PathLike):
        _check_path(data)
        if holds_dataset(data):
            data, split = read_dataset(data, split=split, image_column=image_column), None
    for name, column in (("image_column", image_column), ("id_column", id_column)):
        if column is not None and not _is_hf(data):
            raise InputError(
                f"Expected no {name} with {type(data).__name__}: only a Hugging Face data set has columns. Rows are "
                "recognised by their images."
            )
    if split is not None and not isinstance(data, str | os.PathLike):
        raise InputError(
            f"Expected no split with {type(data).__name__}: only a path can hold several. Pass that split as data."
        )
    if isinstance(data, str | os.PathLike):
        return _read_path(data, labels, class_names, split)
    if _is_hf(data):
        data = cast("Dataset", data)
        found = _read_hf(data, labels, class_names, image_column)
        return found if id_column is None else _add_ids(found, read_column(data, id_column), id_column)
    if isinstance(data, ImageData):
        return _pass_through(data, labels, class_names)
    if _has_rows(data):
        return _read_rows(data, labels, class_names)
    raise InputError(
        "Expected data as a datasets.Dataset, a path, a map-style torch data set, or a sequence of images "
        f"with labels, but got {type(data).__name__}. {_advice(data)}"
    )


def own_class_names(data: Any, labels: Any = None, *, split: str | None = None) -> Sequence[str] | None:
    """Names of the classes, if the data have them: a Hugging Face data set, an ImageData, a folder, a torch data set.

    Parameters
    ----------
    data, labels, split : object
        As for `read_image_data`.

    Returns
    -------
    sequence of str, or None
        In the order of whole-number labels. None for labels that are names themselves, or numbers without names.
    """
    if isinstance(data, ImageData):
        return data.class_names
    if isinstance(data, str | os.PathLike):
        if not holds_dataset(data):
            return None  # a folder's labels are names
        data = read_dataset(data, split=split)
    if _is_hf(data):
        return _names_of(data, _label_column(data, labels))
    return class_names_of(data)


def _add_ids(data: ImageData, ids: Any, column: str) -> ImageData:
    """Let rows be told apart by the values of an id column, instead of their images.

    Parameters
    ----------
    data : ImageData
    ids : sequence of int or str of length N
        No value twice.
    column : str
        Where the values are in the data set.

    Raises
    ------
    InputError
        If a value is there twice, or is no int or str.
    """
    from deft_plugin.data.digests import id_digest, join_digests

    counts = Counter(ids)
    if len(counts) < len(data.labels):
        value, count = counts.most_common(1)[0]
        raise InputError(
            f"Expected ids that are there once, but {value!r} is in {count} rows of {column!r}. Name another "
            "id_column, or none: rows are then recognised by their images."
        )
    return replace(data, id_column=column, id_digests=join_digests(map(id_digest, ids)))


def _pass_through(data: ImageData, labels: Any, class_names: Any) -> ImageData:
    if labels is not None or class_names is not None:
        raise InputError(
            "Expected no labels or class_names with an ImageData, which has them. Use dataclasses.replace."
        )
    return data


def _read_hf(dataset: Dataset, labels: Any, class_names: Any, image_column: str | None) -> ImageData:
    image_column = find_image_column(dataset, image_column)
    label_column = _label_column(dataset, labels)
    if class_names is None:
        class_names = _names_of(dataset, label_column)
    if label_column is not None:
        labels = read_column(dataset, label_column)
    checked, names = check_labels(labels, num_examples=len(dataset), class_names=class_names)
    return ImageData(
        images=StoredImages(dataset, image_column),
        labels=checked,
        class_names=names,
        image_column=image_column,
        label_column=label_column,
    )


def _label_column(dataset: Dataset, labels: Any) -> str | None:
    if labels is None:
        return find_label_column(dataset)
    if getattr(labels, "source", None) is dataset:  # dataset["label"]
        return labels.column_name
    return labels if isinstance(labels, str) else None


def _names_of(dataset: Dataset, label_column: str | None) -> list[str] | None:
    """Class names of the label column; for labels that were given apart, of the only ClassLabel column."""
    named = {name: feature.names for name, feature in dataset.features.items() if hasattr(feature, "names")}
    if label_column is None and len(named) == 1:
        return next(iter(named.values()))
    return named.get(label_column)


def _check_path(path: str | os.PathLike[str]) -> None:
    """Refuse what cannot be a path here, such as one that is too long; whether it is there is asked later."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise InputError(f"Expected a path that can be read, but got {os.fspath(path)!r}: {error}.") from error


def _read_path(path: str | os.PathLike[str], labels: Any, class_names: Any, split: str | None) -> ImageData:
    if labels is not None:
        raise InputError(
            "Expected no labels with a folder, whose class folders give the labels. Pass a list of paths as "
            "data to give labels apart."
        )
    root = Path(path)
    files_of_class = find_files(root, split=split)
    files = [file for of_class in files_of_class.values() for file in of_class]
    given = [name for name, of_class in files_of_class.items() for _ in of_class]
    if class_names is None:
        class_names = list(files_of_class)
    checked, names = check_labels(given, class_names=class_names)
    return ImageData(images=FileImages(files), labels=checked, class_names=names)


def _read_rows(data: Any, labels: Any, class_names: Any) -> ImageData:
    rows = data.to_list() if hasattr(data, "to_list") else data  # a pandas Series is not indexed by position
    if getattr(rows, "ndim", 1) == 0:
        raise InputError(
            f"Expected a sequence of images, but got one {type(rows).__name__} without a dimension of rows."
        )
    if labels is None:
        labels = _targets(rows)
    if labels is None:
        labels = [_label_of(rows, row) for row in range(len(rows))]
    if class_names is None:
        class_names = class_names_of(rows)
    checked, names = check_labels(labels, num_examples=len(rows), class_names=class_names)
    return ImageData(images=IndexedImages(rows), labels=checked, class_names=names)


def _targets(data: Any) -> Any:
    """Labels that a torch data set knows without reading its images, also of a ``Subset`` or ``ConcatDataset``."""
    if hasattr(data, "indices") and hasattr(data, "dataset"):
        targets = _targets(data.dataset)
        return None if targets is None else np.asarray(targets)[np.asarray(data.indices)]
    if isinstance(getattr(data, "datasets", None), list) and hasattr(data, "cumulative_sizes"):
        parts = [_targets(part) for part in data.datasets]
        return None if any(part is None for part in parts) else np.concatenate([np.asarray(part) for part in parts])
    targets = getattr(data, "targets", None)
    if targets is None or getattr(data, "target_transform", None) is not None:
        return None
    return targets if len(targets) == len(data) else None


def _label_of(data: Any, row: int) -> Any:
    sample = get_sample(data, row)
    label = split_sample(sample)[1]
    if label is NO_LABEL:
        raise InputError(
            f"Expected labels=..., or rows that are pairs (image, label) or mappings with 'image' and 'label', but row "
            f"{row} is {_described(sample)}."
        )
    return label


def _described(sample: object) -> str:
    kind = type(sample).__name__
    return f"{kind} with {', '.join(map(str, cast('Any', sample)))}" if isinstance(sample, Mapping) else kind


def _advice(data: Any) -> str:
    kinds = [kind.__name__ for kind in type(data).__mro__]
    return next((_ADVICE[kind] for kind in kinds if kind in _ADVICE), "")


_ADVICE = {
    "DatasetDict": "Pass one split: data['train'].",
    "IterableDatasetDict": "Pass one split, and load it without streaming=True.",
    "IterableDataset": "Rows are read more than once: load it without streaming=True, or as a map-style set.",
    "DataLoader": "Pass its data set: data.dataset.",
    "DataFrame": "Pass the column of paths or images, and labels=frame['label'].",
    "generator": "Pass list(data).",
    "dict": "Pass one split, or a sequence of images with labels=...",
}


def _is_hf(data: Any) -> bool:
    datasets = sys.modules.get("datasets")  # whoever holds such a data set has imported it
    return datasets is not None and isinstance(data, datasets.Dataset)


def _has_rows(data: Any) -> bool:
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not _advice(data)
