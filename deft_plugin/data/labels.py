"""Checks of labels, class names and predicted probabilities, with errors that name the row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np

from deft_plugin.errors import InputError, did_you_mean

Names: TypeAlias = tuple[str, ...]


def check_labels(
    labels: Any, *, num_examples: int | None = None, class_names: Any = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn labels of any usual kind into class indices.

    Parameters
    ----------
    labels : sequence of int or str of length N
        A list, numpy array, pandas Series, Hugging Face ``Column`` or torch tensor. Floats are taken if they
        are whole numbers.
    num_examples : int, optional
        Expected N.
    class_names : sequence of str of length K, optional
        Without it the classes are the sorted distinct strings, or "0" … "K-1" for numbers. A class may have
        no example.

    Returns
    -------
    labels : np.ndarray of shape (N,), int64 in [0, K)
    class_names : tuple of str of length K

    Raises
    ------
    InputError
        If there are not `num_examples` labels, or none at all; if a label is
        missing, not a whole number, out of range, or not among `class_names`.

    Examples
    --------
    >>> check_labels(["dog", "cat", "dog"])
    (array([1, 0, 1]), ('cat', 'dog'))
    >>> check_labels([0.0, 2.0], class_names=["cat", "dog", "fish"])
    (array([0, 2]), ('cat', 'dog', 'fish'))
    """
    values = _to_vector(labels)
    names = None if class_names is None else check_class_names(class_names)
    if num_examples is not None and len(values) != num_examples:
        raise InputError(
            f"Expected one label per image, but got {len(values)} labels for {num_examples} images. "
            "Pass labels in the order of the images."
        )
    if len(values) == 0:
        raise InputError("Expected at least two labelled images, but the data set is empty.")
    as_indices = _strings_to_indices if isinstance(values[0], str) else _numbers_to_indices
    indices, names = as_indices(values, names)
    return indices, names


def check_several_classes(labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Refuse labels (N,) from which nothing can be learned.

    Raises
    ------
    InputError
        If there is none, or all are of one class.
    """
    if len(labels) == 0:
        raise InputError("Expected at least two images that can be read, but there is none: the data set is empty.")
    if (labels == labels[0]).all():
        raise InputError(
            f"Expected labels of at least two classes, but all {len(labels)} labels are "
            f"{class_names[labels[0]]!r}. Wrong labels are found by comparing classes."
        )


def check_class_names(class_names: Any) -> tuple[str, ...]:
    """Check class names.

    Parameters
    ----------
    class_names : sequence of str of length K

    Returns
    -------
    tuple of str of length K, at least 2

    Raises
    ------
    InputError
        If there are fewer than two, or one is no string, empty, or there twice.

    Examples
    --------
    >>> check_class_names(["cat", "dog"])
    ('cat', 'dog')
    """
    if isinstance(class_names, str | bytes | Mapping | set) or not np.iterable(class_names):
        raise InputError(
            "Expected class_names as a list of strings in the order of the labels, "
            f"but got {type(class_names).__name__}."
        )
    names = [str(name) if isinstance(name, np.str_) else name for name in class_names]
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise InputError(
                f"Expected every class name to be a non-empty string, but class_names[{index}] is {name!r}. "
                "Pass class_names=[...] with a readable name for each class."
            )
    if duplicates := [repr(name) for name, count in Counter(names).items() if count > 1]:
        raise InputError(
            f"Expected every class name once, but {', '.join(duplicates)} is there more than once. "
            "Merge the classes, or give them different names with class_names=[...]."
        )
    if len(names) < 2:
        raise InputError(f"Expected at least two classes, but got {', '.join(names) or 'none'}.")
    return tuple(names)


def check_pred_probs(pred_probs: Any, num_examples: int, num_classes: int) -> np.ndarray:
    """Check predicted probabilities.

    Parameters
    ----------
    pred_probs : array of shape (N, K)
        In [0, 1], each row summing to 1.
    num_examples, num_classes : int
        Expected N and K.

    Returns
    -------
    np.ndarray of shape (N, K), float64

    Raises
    ------
    InputError
        If the shape, a value or the sum of a row is off.

    Examples
    --------
    >>> check_pred_probs([[0.25, 0.75]], num_examples=1, num_classes=2)
    array([[0.25, 0.75]])
    """
    array = _as_array(pred_probs)
    try:
        probs = np.asarray(pred_probs if array is None else array)
    except (ValueError, TypeError) as error:
        raise InputError(f"Expected pred_probs as an array, but got {type(pred_probs).__name__}: {error}.") from error
    if probs.shape != (num_examples, num_classes):
        raise InputError(
            f"Expected pred_probs of shape ({num_examples}, {num_classes}), one row per image and one column "
            f"per class, but got {probs.shape}."
        )
    if probs.dtype.kind not in "fiu":
        raise InputError(f"Expected pred_probs to be numbers, but got an array of {probs.dtype}.")
    probs = probs.astype(np.float64)
    in_range = (probs >= -1e-6) & (probs <= 1 + 1e-6)  # False for NaN
    sums_to_one = np.abs(probs.sum(axis=1) - 1) <= 1e-3  # float16 rows are off by up to 5e-4
    bad_rows = np.flatnonzero(~(in_range.all(axis=1) & sums_to_one))
    if len(bad_rows):
        row = int(bad_rows[0])
        low, high, total = probs[row].min(), probs[row].max(), probs[row].sum()
        raise InputError(
            "Expected pred_probs in [0, 1] with rows that sum to 1, but row "
            f"{row} goes from {low:.4g} to {high:.4g} and sums to {total:.4g} ({len(bad_rows)} such rows). "
            "If they are logits, apply a softmax over the classes first."
        )
    return np.clip(probs, 0, 1)


def label_index(label: Any, class_names: Sequence[str]) -> int:
    """Index of one label, given as class name or as index.

    Parameters
    ----------
    label : int or str
        Index or name of a class.
    class_names : sequence of str of length K

    Examples
    --------
    >>> label_index("dog", ["cat", "dog"]), label_index(1, ["cat", "dog"])
    (1, 1)
    """
    value = label.item() if getattr(label, "ndim", None) == 0 else label
    if isinstance(value, str):
        if value in class_names:
            return class_names.index(value)
        raise InputError(f"Unknown label {value!r}. {did_you_mean(value, class_names)}")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(class_names):
        return value
    raise InputError(f"Expected a label as class name or as integer in 0 … {len(class_names) - 1}, but got {value!r}.")


def _to_vector(labels: Any) -> np.ndarray:
    """Make a 1-D array (N,) of integers, floats, or objects that are all strings."""
    if isinstance(labels, str | bytes | Mapping) or not (hasattr(labels, "__getitem__") and hasattr(labels, "__len__")):
        raise InputError(
            f"Expected labels as a list or array with one label per image, but got {type(labels).__name__}."
        )
    array = _as_array(labels)
    if array is None and not isinstance(labels, list | tuple):
        labels = labels[:]  # a Hugging Face Column gives what its format says
        array = _as_array(labels)
    if array is None:
        array = np.empty(len(labels), dtype=object)
        array[:] = [_plain(item) for item in labels]
    if array.ndim != 1:
        raise InputError(
            f"Expected one label per image, an array of shape (N,), but got shape {array.shape}. "
            "One-hot labels: pass labels.argmax(axis=1). Several labels per image are not supported."
        )
    return _unify_objects(array) if array.dtype.kind not in "biuf" else array


def _as_array(values: Any) -> np.ndarray | None:
    """Get the array of a torch tensor, a pandas object or a numpy array, else None."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    elif hasattr(values, "to_numpy"):
        values = values.to_numpy()
    return cast("np.ndarray", values) if isinstance(values, np.ndarray) else None


def _plain(item: Any) -> Any:
    return item.item() if getattr(item, "ndim", None) == 0 else item


def _unify_objects(values: np.ndarray) -> np.ndarray:
    """Turn Python objects (N,) into numbers, or into objects that are all `str`."""
    items = values.tolist()
    kinds = set(map(type, items))
    if kinds == {str}:
        return np.array(items, dtype=object)
    import pandas as pd

    missing = [item is None or item is pd.NA or item != item for item in items]
    if any(missing):
        _refuse_missing(missing.index(True), sum(missing))
    if kinds <= {int, float}:
        return np.array(items, dtype=np.float64)
    if kinds == {bool}:
        return np.array(items, dtype=bool)
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise InputError(f"Expected labels that are all integers or all strings, but got labels of type {names}.")


def _refuse_missing(row: int, count: int) -> None:
    raise InputError(
        f"Expected a label for every image, but the label of row {row} is missing (NaN or None; {count} in "
        "all). Remove these rows, or label them."
    )


def _strings_to_indices(values: np.ndarray, names: Names | None) -> tuple[np.ndarray, Names]:
    known = tuple(sorted(set(values.tolist()))) if names is None else names
    position = {name: index for index, name in enumerate(known)}
    for row, value in enumerate(values):
        if value not in position:
            raise InputError(
                f"Expected labels that are among class_names, but the label of row {row} is {value!r}. "
                f"{did_you_mean(value, known)}"
            )
    return np.array([position[value] for value in values], dtype=np.int64), known


def _numbers_to_indices(values: np.ndarray, names: Names | None) -> tuple[np.ndarray, Names]:
    indices = _whole_numbers(values)
    num_classes = int(indices.max()) + 1 if names is None else len(names)
    outside = np.flatnonzero((indices < 0) | (indices >= num_classes))
    if len(outside):
        row = int(outside[0])
        upper = "" if names is None else f" for the {num_classes} classes in class_names"
        raise InputError(
            f"Expected labels in 0 … {max(num_classes - 1, 0)}{upper}, but the label of row {row} is "
            f"{indices[row]} ({len(outside)} such rows). Labels count from 0; remove rows without a label."
        )
    return indices, tuple(map(str, range(num_classes))) if names is None else names


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    """Turn numbers (N,) into int64."""
    if values.dtype.kind == "b":
        raise InputError(
            "Expected labels that are integers or strings, but got booleans, which look like a mask. "
            "If they are classes, pass labels.astype(int)."
        )
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    if np.isnan(values).any():
        missing = np.flatnonzero(np.isnan(values))
        _refuse_missing(int(missing[0]), len(missing))
    fractional = np.flatnonzero((values != np.rint(values)) | ~(np.abs(values) < 2**53))
    if len(fractional):
        row = int(fractional[0])
        raise InputError(
            f"Expected labels that are whole numbers, but the label of row {row} is {values[row]} "
            f"({len(fractional)} such rows)."
        )
    return values.astype(np.int64)
