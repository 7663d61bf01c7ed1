"""Checks of labels and predicted probabilities, with errors that name the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np

from deft_plugin.data.class_names import check_class_names, names_are_numbers, visible, warn_of_twins
from deft_plugin.errors import InputError, did_you_mean

Names: TypeAlias = tuple[str, ...]

ENOUGH_ROWS = 20
"""So many labels that are all different are no labels; fewer may be a small example."""


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
        With it, numbers are indices into it, and a class may have no example. Without it the classes are the values
        that occur, in order: the sorted distinct strings, or numbers, whose class names are their digits.

    Returns
    -------
    labels : np.ndarray of shape (N,), int64 in [0, K)
    class_names : tuple of str of length K

    Raises
    ------
    InputError
        If there are not `num_examples` labels, or none at all; if a label is missing, empty, not a whole number, out
        of range, or not among `class_names`; if no two of many are the same.

    Warns
    -----
    UserWarning
        Of class names that differ only by blanks or Unicode form.

    Examples
    --------
    >>> check_labels(["dog", "cat", "dog"])
    (array([1, 0, 1]), ('cat', 'dog'))
    >>> check_labels([0.0, 2.0], class_names=["cat", "dog", "fish"])
    (array([0, 2]), ('cat', 'dog', 'fish'))
    >>> check_labels([47219, 3000000, 47219])
    (array([0, 1, 0]), ('47219', '3000000'))
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
    indices, found = as_indices(values, names)
    if names is None and len(found) == len(values) >= ENOUGH_ROWS:
        raise InputError(
            f"Expected classes with several images each, but all {len(values)} labels are different, such as "
            f"{', '.join(map(repr, found[:3]))}: they look like ids, file names or captions. Pass the labels, or name "
            "their column with labels='...'."
        )
    warn_of_twins(found)
    return indices, found


def are_numbers(labels: Any) -> bool:
    """Tell whether labels are numbers, rather than strings.

    Parameters
    ----------
    labels : sequence of int or str of length N

    Raises
    ------
    InputError
        If they are no labels.

    Examples
    --------
    >>> are_numbers([1.0, 2.0]), are_numbers(["1", "2"])
    (True, False)
    """
    return _to_vector(labels).dtype.kind in "iuf"


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
    probs = _probs_array(pred_probs)
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


def num_columns(pred_probs: Any) -> int:
    """K of predicted probabilities (N, K); 0 if they have not two dimensions.

    Raises
    ------
    InputError
        If they are no array.
    """
    probs = _probs_array(pred_probs)
    return probs.shape[1] if probs.ndim == 2 else 0


def _probs_array(pred_probs: Any) -> np.ndarray:
    array = _as_array(pred_probs)
    try:
        return np.asarray(pred_probs if array is None else array)
    except (ValueError, TypeError) as error:
        raise InputError(f"Expected pred_probs as an array, but got {type(pred_probs).__name__}: {error}.") from error


def label_index(label: Any, class_names: Sequence[str]) -> int:
    """Index of one label, given as class name or as number.

    Parameters
    ----------
    label : int or str
        Name of a class, or its index; a whole-number float will do. If all class names are numbers in ascending order,
        as `check_labels` makes them of numbers, a number is a name, too: 47219 stands for "47219".
    class_names : sequence of str of length K

    Raises
    ------
    InputError
        If there is no such class.

    Examples
    --------
    >>> label_index("dog", ["cat", "dog"]), label_index(1, ["cat", "dog"]), label_index(1.0, ["cat", "dog"])
    (1, 1, 1)
    >>> label_index(47219, ["512", "47219"])
    1
    """
    value = _plain(label)
    if names_are_numbers(class_names) and _is_whole(value):
        name = str(int(value))
        if name in class_names:
            return class_names.index(name)
        raise InputError(f"Unknown label {value!r}. {did_you_mean(name, class_names)}")
    return index_of(value, class_names)


def index_of(label: Any, class_names: Sequence[str]) -> int:
    """Index of one label where numbers are known to be indices, as in a column that has class names.

    Parameters
    ----------
    label : int or str
    class_names : sequence of str of length K

    Raises
    ------
    InputError
        If there is no such class.

    Examples
    --------
    >>> index_of(1, ["1", "2", "3"]), index_of("1", ["1", "2", "3"])
    (1, 0)
    """
    value = _plain(label)
    if isinstance(value, str):
        if value in class_names:
            return class_names.index(value)
        raise InputError(f"Unknown label {value!r}. {did_you_mean(value, class_names)}")
    if _is_whole(value) and 0 <= value < len(class_names):
        return int(value)
    raise InputError(f"Expected a label as class name or as integer in 0 … {len(class_names) - 1}, but got {value!r}.")


def label_indices(labels: Any, class_names: Sequence[str]) -> np.ndarray:
    """Find the indices of many labels, each as `label_index` finds it.

    Parameters
    ----------
    labels : sequence of int or str of length N
    class_names : sequence of str of length K

    Returns
    -------
    np.ndarray of shape (N,), int64 in [0, K)

    Raises
    ------
    InputError
        If there is no such class.

    Examples
    --------
    >>> label_indices([47219, 512, 47219], ["512", "47219"])
    array([1, 0, 1])
    """
    values = _to_vector(labels).tolist()
    known = {value: label_index(value, class_names) for value in set(values)}
    return np.array([known[value] for value in values], dtype=np.int64)


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
    if array.ndim == 2 and array.size == len(array):
        raise InputError(
            f"Expected one label per image, an array of shape (N,), but got shape {array.shape}. Pass labels[:, 0], "
            "or the column of a frame."
        )
    if array.ndim != 1:
        raise InputError(
            f"Expected one label per image, an array of shape (N,), but got shape {array.shape}. "
            "One-hot labels: pass labels.argmax(axis=1). Several labels per image are not supported."
        )
    if array.dtype.kind in "mMcV":
        raise InputError(f"Expected labels that are integers or strings, but got an array of {array.dtype}.")
    return _unify_objects(array) if array.dtype.kind not in "biuf" else array


def _as_array(values: Any) -> np.ndarray | None:
    """Get the array of a torch tensor, a pandas object or a numpy array, else None."""
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # numpy has no bfloat16
    elif hasattr(values, "to_numpy"):
        values = values.to_numpy()
    return cast("np.ndarray", values) if isinstance(values, np.ndarray) else None


def _plain(item: Any) -> Any:
    return item.item() if getattr(item, "ndim", None) == 0 else item


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _unify_objects(values: np.ndarray) -> np.ndarray:
    """Turn Python objects (N,) into numbers, or into objects that are all `str`."""
    items = [_plain(item) for item in values.tolist()]
    kinds = set(map(type, items))
    if kinds == {str}:
        return np.array(items, dtype=object)
    _refuse_several(items)
    import pandas as pd

    missing = [item is None or item is pd.NA or item != item for item in items]
    if any(missing):
        _refuse_missing(missing.index(True), sum(missing))
    if kinds == {int}:
        return _integers(items)
    if kinds <= {int, float}:
        _integers([item if isinstance(item, int) else 0 for item in items])  # one may be too large for any number
        return np.array(items, dtype=np.float64)
    if kinds == {bool}:
        return np.array(items, dtype=bool)
    if kinds == {bytes}:
        raise InputError(
            "Expected labels that are integers or strings, but got labels of type bytes. Decode them: "
            "[label.decode() for label in labels]."
        )
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise InputError(f"Expected labels that are all integers or all strings, but got labels of type {names}.")


def _refuse_several(items: list[Any]) -> None:
    """Refuse labels that are lists themselves."""
    for row, item in enumerate(items):
        if isinstance(item, list | tuple | set | frozenset | dict) or getattr(item, "ndim", 0):
            raise InputError(
                f"Expected one label per image, but the label of row {row} is {item!r}, of type "
                f"{type(item).__name__}. Several labels per image (multi-label data) are not supported."
            )


def _integers(items: list[int]) -> np.ndarray:
    limits = np.iinfo(np.int64)
    for row, item in enumerate(items):
        if not limits.min <= item <= limits.max:
            raise InputError(
                f"Expected labels that are integers of 64 bits, but the label of row {row} is {item}. Pass ids as "
                "strings: list(map(str, labels))."
            )
    return np.array(items, dtype=np.int64)


def _refuse_missing(row: int, count: int) -> None:
    raise InputError(
        f"Expected a label for every image, but the label of row {row} is missing (NaN or None; {count} in "
        "all). Remove these rows, or label them."
    )


def _strings_to_indices(values: np.ndarray, names: Names | None) -> tuple[np.ndarray, Names]:
    known = tuple(sorted(set(values.tolist()))) if names is None else names
    if names is None and (empty := [name for name in known if not visible(name)]):
        rows = np.flatnonzero(np.isin(values, empty))
        raise InputError(
            f"Expected a label for every image, but the label of row {rows[0]} is empty ({len(rows)} in all). Remove "
            "these rows, or label them."
        )
    position = {name: index for index, name in enumerate(known)}
    for row, value in enumerate(values):
        if value not in position:
            raise InputError(
                f"Expected labels that are among class_names, but the label of row {row} is {value!r}. "
                f"{did_you_mean(value, known)}"
            )
    return np.array([position[value] for value in values], dtype=np.int64), known


def _numbers_to_indices(values: np.ndarray, names: Names | None) -> tuple[np.ndarray, Names]:
    numbers = _whole_numbers(values)
    num_classes = None if names is None else len(names)
    outside = np.flatnonzero((numbers < 0) | (False if num_classes is None else numbers >= num_classes))
    if len(outside):
        row = int(outside[0])
        upper = "of at least 0"
        if num_classes is not None:
            upper = f"in 0 … {num_classes - 1} for the {num_classes} classes in class_names"
        raise InputError(
            f"Expected labels {upper}, but the label of row {row} is {numbers[row]} ({len(outside)} such rows). Labels "
            "count from 0; -1 often stands for no label, as in a hidden test set: remove rows without a label."
        )
    if names is not None:
        return numbers, names
    occurring, indices = np.unique(numbers, return_inverse=True)
    return indices.astype(np.int64), tuple(map(str, occurring.tolist()))


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    """Turn numbers (N,) into int64."""
    if values.dtype.kind == "b":
        raise InputError(
            "Expected labels that are integers or strings, but got booleans, which look like a mask. "
            "If they are classes, pass labels.astype(int)."
        )
    if values.dtype.kind == "u" and values.dtype.itemsize == 8:
        return _integers(values.tolist())
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    values = values.astype(np.float64)
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
