"""What a detector found: a verdict, a quality and a suggested label for each image."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deft_plugin.errors import InputError
from deft_plugin.images import DIGEST_SIZE
from deft_plugin.labels import check_class_names

if TYPE_CHECKING:
    import pandas as pd

    from deft_plugin.clean_mask import CleanMask

NO_PREDICTION = -1
"""Predicted label of an image that could not be read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """Verdicts on all examples of a data set.

    Attributes
    ----------
    method : str
        Name of the selector.
    label_quality : np.ndarray of shape (N,), float in [0, 1]
        Low = bad.
    is_label_issue : np.ndarray of shape (N,), bool
        True = bad.
    predicted_labels : np.ndarray of shape (N,), int in [0, K)
        Suggested labels; -1 where the image could not be read.
    given_labels : np.ndarray of shape (N,), int in [0, K)
    class_names : tuple of str of length K
    image_digests : np.ndarray of shape (N, 16), uint8, optional
        From `deft_plugin.images.image_digest`; zeros where the image could not be read. None if the labels
        were judged without images, from predicted probabilities.
    is_image_issue : np.ndarray of shape (N,), bool
        True where the image could not be read. Such a row is a label issue of quality 0.
    image_column, label_column : str, optional
        Where images and labels are in the Hugging Face data set that was judged.
    settings : mapping
        JSON values: model, tuning, seed and what else the result depends on.
    details : mapping
        JSON values that the selector reports, such as the noise ratio and how it came by it.

    Raises
    ------
    InputError
        If shapes, ranges or kinds are not as above.
    """

    method: str
    label_quality: np.ndarray
    is_label_issue: np.ndarray
    predicted_labels: np.ndarray
    given_labels: np.ndarray
    class_names: tuple[str, ...]
    image_digests: np.ndarray | None
    is_image_issue: np.ndarray
    image_column: str | None = None
    label_column: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self._set("class_names", check_class_names(self.class_names))
        self._set("given_labels", self._whole("given_labels", 0))
        self._set("predicted_labels", self._whole("predicted_labels", NO_PREDICTION))
        self._set("label_quality", self._vector("label_quality", "fiu").astype(np.float64))
        self._set("is_label_issue", self._vector("is_label_issue", "b"))
        self._set("is_image_issue", self._vector("is_image_issue", "b"))
        self._set("settings", self._as_json("settings"))
        self._set("details", self._as_json("details"))
        self._check_digests()
        self._check_values()

    def __len__(self) -> int:
        return len(self.given_labels)

    def __repr__(self) -> str:
        issues = np.count_nonzero(self.is_label_issue)
        return f"Detection(method={self.method!r}, {issues} label issues in {len(self)} examples)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detection):
            return NotImplemented
        return all(_same(getattr(self, each.name), getattr(other, each.name)) for each in fields(self))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @functools.cached_property
    def clean_mask(self) -> CleanMask:
        """A filter function for the data set that was judged: ``dataset.filter(detection.clean_mask)``.

        Raises
        ------
        InputError
            If the labels were judged without images.
        """
        from deft_plugin.clean_mask import CleanMask

        if self.image_digests is None:
            raise InputError(
                "Expected a detection that has seen the images, but it was made from pred_probs alone, so "
                "rows cannot be recognised. Use ~detection.is_label_issue, in the order of the labels."
            )
        return CleanMask(
            image_digests=self.image_digests,
            labels=self.given_labels,
            is_clean=~self.is_label_issue,
            class_names=self.class_names,
            image_column=self.image_column,
            label_column=self.label_column,
        )

    def ranked_issue_indices(self) -> np.ndarray:
        """Rows of the label issues, worst first; of equal ones, the first row first.

        Returns
        -------
        np.ndarray of shape (n_issues,), int
        """
        issues = np.flatnonzero(self.is_label_issue)
        return issues[np.argsort(self.label_quality[issues], kind="stable")]

    def to_frame(self) -> pd.DataFrame:
        """Make a table with a row for each example; cleanlab's column names, labels as class names.

        Returns
        -------
        pandas.DataFrame
            Columns is_label_issue, label_quality, given_label, predicted_label (missing where the image could
            not be read) and is_image_issue.
        """
        import pandas as pd

        names = np.array([*self.class_names, None], dtype=object)  # NO_PREDICTION is the last
        return pd.DataFrame(
            {
                "is_label_issue": self.is_label_issue,
                "label_quality": self.label_quality,
                "given_label": names[self.given_labels],
                "predicted_label": names[self.predicted_labels],
                "is_image_issue": self.is_image_issue,
            }
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``verdicts.parquet`` and ``detection.json`` into a folder, both or none.

        An earlier detection there is replaced once the new one is complete.

        Raises
        ------
        InputError
            If the folder holds anything else.
        """
        from deft_plugin.detection_files import save_detection

        save_detection(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Detection:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If a file is missing or cannot be read.
        """
        from deft_plugin.detection_files import load_detection

        return load_detection(folder)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _vector(self, name: str, kinds: str) -> np.ndarray:
        values = np.asarray(getattr(self, name))
        expected = (len(self.given_labels),)
        if values.shape != expected or values.dtype.kind not in kinds:
            kind = {"b": "bool", "iu": "int", "fiu": "float"}[kinds]
            raise InputError(
                f"Expected {name} of shape {expected}, {kind}, but {self.method!r} gave {values.shape}, {values.dtype}."
            )
        return values

    def _whole(self, name: str, lowest: int) -> np.ndarray:
        values = self._vector(name, "iu").astype(np.int64)
        if ((values < lowest) | (values >= len(self.class_names))).any():
            raise InputError(
                f"Expected {name} in {lowest} … {len(self.class_names) - 1}, but {self.method!r} gave "
                f"{values.min()} … {values.max()}."
            )
        return values

    def _as_json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads(json.dumps(dict(getattr(self, name)), default=_numpy_to_json))
        except (TypeError, ValueError) as error:
            raise InputError(f"Expected {name} of {self.method!r} to be JSON values, but {error}.") from error

    def _check_digests(self) -> None:
        digests, expected = self.image_digests, (len(self), DIGEST_SIZE)
        if digests is not None and (digests.shape != expected or digests.dtype != np.uint8):
            raise InputError(
                f"Expected image_digests of shape {expected}, uint8, but got {digests.shape}, {digests.dtype}."
            )

    def _check_values(self) -> None:
        quality = self.label_quality
        if not ((quality >= 0) & (quality <= 1)).all():
            raise InputError(
                f"Expected label_quality in [0, 1], but {self.method!r} gave {quality.min()} … {quality.max()}."
            )
        unread = self.is_image_issue
        flagged = self.is_label_issue & (quality == 0) & (self.predicted_labels == NO_PREDICTION)
        if (unread & ~flagged).any() or (~unread & (self.predicted_labels == NO_PREDICTION)).any():
            raise InputError(
                "Expected a row to be a label issue of quality 0 without a predicted label (-1) where the "
                f"image could not be read, and to have one elsewhere, but {self.method!r} gave otherwise."
            )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(cast("np.ndarray", one), cast("np.ndarray", other))
    return type(one) is type(other) and one == other


def _numpy_to_json(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"got {type(value).__name__}")
