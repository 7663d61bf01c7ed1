"""What the fields of a detection must be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_plugin.data.digests import DIGEST_SIZE
from deft_plugin.data.labels import check_class_names
from deft_plugin.errors import InputError
from deft_plugin.results.review import check_decisions

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
    names = check_class_names(detection.class_names)
    fields: dict[str, Any] = {
        "class_names": names,
        "given_labels": _whole(detection, "given_labels", 0, len(names)),
        "predicted_labels": _whole(detection, "predicted_labels", NO_PREDICTION, len(names)),
        "label_quality": _vector(detection, "label_quality", "fiu").astype(np.float64),
        "is_label_issue": _vector(detection, "is_label_issue", "b"),
        "is_image_issue": _vector(detection, "is_image_issue", "b"),
        "settings": _as_json(detection, "settings"),
        "details": _as_json(detection, "details"),
    }
    _check_digests(detection)
    _check_values(detection.method, fields)
    if detection.decisions is not None:
        decisions = check_decisions(detection.decisions, fields["is_label_issue"], fields["is_image_issue"])
        fields["decisions"] = decisions
    return fields


def _vector(detection: Detection, name: str, kinds: str) -> np.ndarray:
    values, expected = np.asarray(getattr(detection, name)), (len(detection.given_labels),)
    if values.shape != expected or values.dtype.kind not in kinds:
        kind = {"b": "bool", "iu": "int", "fiu": "float"}[kinds]
        raise InputError(
            f"Expected {name} of shape {expected}, {kind}, but {detection.method!r} gave {values.shape}, "
            f"{values.dtype}."
        )
    return values


def _whole(detection: Detection, name: str, lowest: int, num_classes: int) -> np.ndarray:
    values = _vector(detection, name, "iu").astype(np.int64)
    if ((values < lowest) | (values >= num_classes)).any():
        raise InputError(
            f"Expected {name} in {lowest} … {num_classes - 1}, but {detection.method!r} gave "
            f"{values.min()} … {values.max()}."
        )
    return values


def _as_json(detection: Detection, name: str) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(getattr(detection, name)), default=_numpy_to_json))
    except (TypeError, ValueError) as error:
        raise InputError(f"Expected {name} of {detection.method!r} to be JSON values, but {error}.") from error


def _check_digests(detection: Detection) -> None:
    expected = (len(detection), DIGEST_SIZE)
    for name in ("image_digests", "id_digests"):
        digests = getattr(detection, name)
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
