"""Columns of a Hugging Face `datasets.Dataset`: which one holds the images, which one the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

LABEL_NAMES = ("label", "labels")
"""Names that a column of labels has by convention."""

_USUAL_LABEL_NAMES = ("class", "class_name", "cls", "category", "target", "label_name")
_ENOUGH_ROWS = 10
_NAME_IT = (
    "Name the column with labels='...' (--label-column), or keep one with dataset.select_columns([image, label])."
)
_LABEL_TYPES = ("int", "uint", "string", "large_string")


def find_image_column(dataset: Dataset, column: str | None = None) -> str:
    """Find the one column of images.

    Parameters
    ----------
    dataset : datasets.Dataset
    column : str, optional
        The one that is meant, if there may be several.

    Raises
    ------
    InputError
        If there is none, or more than one; if `column` holds no images.

    Examples
    --------
    >>> import datasets
    >>> features = datasets.Features({"photo": datasets.Image(), "label": datasets.Value("int64")})
    >>> find_image_column(datasets.Dataset.from_dict({"photo": [], "label": []}, features=features))
    'photo'
    """
    found = [name for name, feature in dataset.features.items() if holds_images(feature)]
    if column is not None:
        if column in found:
            return column
        raise InputError(
            f"Expected {column!r} to be a column of images, but got {_listed(found)} in {_columns(dataset)}."
        )
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"Expected one column of images, but got {_listed(found)} in {_columns(dataset)}. "
        "Name the column with image_column='...' (--image-column); turn paths or bytes into images with "
        "dataset.cast_column(image, datasets.Image())."
    )


def find_label_column(dataset: Dataset) -> str:
    """Find the one column of labels: "label" or "labels", else the only ClassLabel, usual name, int or str.

    Raises
    ------
    InputError
        If there is none, or more than one; if the only int or str column has values that (nearly) all differ, as ids,
        file names and captions do.

    Examples
    --------
    >>> import datasets
    >>> find_label_column(datasets.Dataset.from_dict({"breed": ["pug", "corgi", "pug"]}))
    'breed'
    """
    from datasets import ClassLabel, Value

    plain = [name for name, feature in dataset.features.items() if isinstance(feature, ClassLabel | Value)]
    by_name = [name for name in dataset.features if name in LABEL_NAMES]  # of lists, too: they are told apart later
    by_class = [name for name in plain if isinstance(dataset.features[name], ClassLabel)]
    by_type = [name for name in plain if dataset.features[name].dtype.startswith(_LABEL_TYPES)]
    by_custom = list(filter(is_label_name, plain))
    found = by_name or by_class or by_custom or by_type
    if not (by_name or by_class or by_custom):
        _refuse_no_labels(dataset, found)
    if len(found) == 1:
        return found[0]
    raise InputError(f"Expected one column of labels, but got {_listed(found)} in {_columns(dataset)}. {_NAME_IT}")


def _refuse_no_labels(dataset: Any, columns: list[str]) -> None:
    """Refuse columns none of which repeats its values as labels do; a stream cannot be looked through."""
    if not hasattr(dataset, "__len__") or not len(dataset) or not columns:
        return
    counts = {name: len(set(read_column(dataset, name))) for name in columns}
    most = len(dataset) / 2 if len(dataset) >= _ENOUGH_ROWS else len(dataset) - 1
    if all(count > most for count in counts.values()):
        shown = ", ".join(f"{name!r} has {count} values" for name, count in counts.items())
        raise InputError(
            f"Expected a column of labels, whose values repeat, but {shown} in {len(dataset)} rows of "
            f"{_columns(dataset)}: they look like ids, file names or captions. {_NAME_IT}"
        )


def is_label_name(name: str) -> bool:
    """Tell whether a column is named as labels usually are."""
    return name.lower() in (*LABEL_NAMES, *_USUAL_LABEL_NAMES)


def read_column(dataset: Dataset, column: str) -> list[Any]:
    """Read a column as it is stored, in the order of the rows, without format, transform or decoding.

    Parameters
    ----------
    dataset : datasets.Dataset
    column : str

    Examples
    --------
    >>> import datasets
    >>> read_column(datasets.Dataset.from_dict({"label": [3, 1, 2]}).select([2, 0]), "label")
    [2, 3]
    """
    if column not in dataset.features:
        raise InputError(f"Expected a column {column!r}, but got {_columns(dataset)}.")
    table: Any = dataset.select_columns([column]).with_format("arrow")[:]
    return table.column(column).to_pylist()


def holds_images(feature: Any) -> bool:
    """Tell whether a column of this feature holds images."""
    from datasets import Image

    # Parquet files that other tools wrote say nothing of images: there they are plain bytes and path.
    return isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _listed(found: list[str]) -> str:
    return ", ".join(map(repr, found)) or "none"


def _columns(dataset: Dataset) -> str:
    return f"a data set with columns {_listed(list(dataset.features))}"
