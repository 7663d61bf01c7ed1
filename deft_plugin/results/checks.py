"""What the fields of a detection must be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_plugin.data.class_names import check_class_names
from deft_plugin.data.digests import DIGEST_SIZE
from deft_plugin.errors import InputError
from deft_plugin.results.review import check_decisions
from deft_plugin.settings import check_type

if TYPE_CHECKING:
    from deft_plugin.results.detection import Detection

NO_PREDICTION = -1
"""Predicted label of an image that could not be read."""


def checked_fields(detection: Detection) -> dict[str, Any]:
    """Check shapes, ranges and kinds; gives the fields by name in the kind that they are kept in.

    Raises
    ------
    InputError
        If one is not as `deft_plugin.Detection` says.
    """
    method = check_type("method", detection.method, str)
    for name in ("image_column", "label_column", "id_column"):
        check_type(name, getattr(detection, name), str | None)
    names, size = (
        check_class_names(detection.class_names),
        to_array(detection.given_labels, "given_labels", method).size,
    )

    def vector(name: str, kinds: str) -> np.ndarray:
        return check_vector(getattr(detection, name), name, size, kinds, method=method)

    def classes(name: str, lowest: int) -> np.ndarray:
        return check_classes(getattr(detection, name), name, size, range(lowest, len(names)), method=method)

    fields: dict[str, Any] = {
        "class_names": names,
        "given_labels": classes("given_labels", 0),
        "predicted_labels": classes("predicted_labels", NO_PREDICTION),
        "label_quality": vector("label_quality", "fiu").astype(np.float64),
        "is_label_issue": vector("is_label_issue", "b"),
        "is_image_issue": vector("is_image_issue", "b"),
        "settings": _as_json(detection, "settings"),
        "details": _as_json(detection, "details"),
    }
    _check_digests(detection)
    _check_values(detection.method, fields)
    if detection.decisions is not None:
        decisions = check_decisions(detection.decisions, fields["is_label_issue"], fields["is_image_issue"])
        fields["decisions"] = decisions
    return fields


def to_array(values: object, name: str, method: str) -> np.ndarray:
    """Make an array of what is one.

    Parameters
    ----------
    values : object
    name : str
        What they are.
    method : str
        Who gave them.

    Raises
    ------
    InputError
    """
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"Expected {name} as an array, but {method!r} gave {type(values).__name__}: {error}."
        ) from error


def check_vector(values: object, name: str, num_rows: int, kinds: str, *, method: str) -> np.ndarray:
    """Refuse anything but one value of the right kind for each row; of a selection as of a detection.

    Parameters
    ----------
    values : object
    name : str
        What they are.
    num_rows : int
        N.
    kinds : "b", "iu" or "fiu"
        Kinds of numpy's data types that will do.
    method : str
        Who gave them.

    Returns
    -------
    np.ndarray of shape (N,)

    Raises
    ------
    InputError
    """
    found = to_array(values, name, method)
    if found.shape != (num_rows,) or found.dtype.kind not in kinds:
        kind = {"b": "bool", "iu": "int", "fiu": "float"}[kinds]
        raise InputError(
            f"Expected {name} of shape ({num_rows},), {kind}, but {method!r} gave {found.shape}, {found.dtype}."
        )
    return found


def check_classes(values: object, name: str, num_rows: int, classes: range, *, method: str) -> np.ndarray:
    """Refuse anything but one class index for each row.

    Parameters
    ----------
    values : object
    name : str
    num_rows : int
        N.
    classes : range
        Indices that there are.
    method : str

    Returns
    -------
    np.ndarray of shape (N,), int64

    Raises
    ------
    InputError
    """
    found = check_vector(values, name, num_rows, "iu", method=method).astype(np.int64)
    if ((found < classes.start) | (found >= classes.stop)).any():
        raise InputError(
            f"Expected {name} in {classes.start} … {classes.stop - 1}, but {method!r} gave "
            f"{found.min()} … {found.max()}."
        )
    return found


def _as_json(detection: Detection, name: str) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(getattr(detection, name)), default=_numpy_to_json))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"Expected {name} of {detection.method!r} to be JSON values, but {error}.") from error


def _check_digests(detection: Detection) -> None:
    expected = (len(detection), DIGEST_SIZE)
    for name in ("image_digests", "id_digests"):
        digests = getattr(detection, name)
        if digests is not None and not isinstance(digests, np.ndarray):
            raise InputError(f"Expected {name} as an array, but got {type(digests).__name__}.")
        if digests is not None and (digests.shape != expected or digests.dtype != np.uint8):
            raise InputError(f"Expected {name} of shape {expected}, uint8, but got {digests.shape}, {digests.dtype}.")


def _check_values(method: str, fields: dict[str, Any]) -> None:
    quality, unread = fields["label_quality"], fields["is_image_issue"]
    if not ((quality >= 0) & (quality <= 1)).all():
        raise InputError(f"Expected label_quality in [0, 1], but {method!r} gave {quality.min()} … {quality.max()}.")
    unpredicted = fields["predicted_labels"] == NO_PREDICTION
    flagged = fields["is_label_issue"] & (quality == 0) & unpredicted
    if (unread & ~flagged).any() or (~unread & unpredicted).any():
        raise InputError(
            "Expected a row to be a label issue of quality 0 without a predicted label (-1) where the "
            f"image could not be read, and to have one elsewhere, but {method!r} gave otherwise."
        )


def _numpy_to_json(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"got {type(value).__name__}")
