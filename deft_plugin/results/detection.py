"""What a detector found: a verdict, a quality and a suggested label for each image."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deft_plugin.errors import InputError
from deft_plugin.results.checks import checked_fields

if TYPE_CHECKING:
    import pandas as pd

    from deft_plugin.data.row_keys import RowKeys
    from deft_plugin.data.sources import ImageSource
    from deft_plugin.results.clean_mask import CleanMask
    from deft_plugin.results.columns import VerdictColumns

MAX_IMAGES = 5000
"""Issues that a page shows unless it is told otherwise."""

NOT_JUDGED = 0.5
"""Label quality of examples that are not judged."""

TOO_SMALL = "classes_too_small_to_judge"
"""Where `Detection.details` names the classes of which nothing can be learned."""


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
        From `deft_plugin.data.digests.image_digest`; zeros where the image could not be read. None if the labels
        were judged without images, from predicted probabilities.
    is_image_issue : np.ndarray of shape (N,), bool
        True where the image could not be read. Such a row is a label issue of quality 0.
    image_column, label_column : str, optional
        Where images and labels are in the Hugging Face data set that was judged.
    id_column : str, optional
        A column whose values tell rows apart, if one was named.
    id_digests : np.ndarray of shape (N, 16), uint8, optional
        From `deft_plugin.data.digests.id_digest`, of its values.
    settings : mapping
        JSON values: model, tuning, seed and what else the result depends on.
    details : mapping
        JSON values that the selector reports, such as the noise ratio and how it came by it; and, if there are any,
        "classes_too_small_to_judge": names of classes with one or two different images, by which none of the others
        can be judged. Their labels are kept, with quality 0.5.
    decisions : np.ndarray of shape (N,), str, optional
        What a person decided in a review: "keep", "relabel", "drop", or "none" yet. None without a review.
    images : ImageSource, optional
        What was judged, for `report`. Neither saved nor compared; None after `load`.

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
    id_column: str | None = None
    id_digests: np.ndarray | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    decisions: np.ndarray | None = None
    images: ImageSource | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, value in checked_fields(self).items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.given_labels)

    def __repr__(self) -> str:
        issues = np.count_nonzero(self.is_label_issue)
        return f"Detection(method={self.method!r}, {issues} label issues in {len(self)} examples)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detection):
            return NotImplemented
        names = [each.name for each in fields(self) if each.compare]
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "images": None}  # a pickle of verdicts does not carry the data set along

    @functools.cached_property
    def clean_mask(self) -> CleanMask:
        """A filter function for the data set that was judged: ``dataset.filter(detection.clean_mask)``.

        Raises
        ------
        InputError
            If the labels were judged without images.
        """
        from deft_plugin.results.clean_mask import CleanMask

        return CleanMask(self._row_keys, ~self.is_label_issue)

    @functools.cached_property
    def columns(self) -> VerdictColumns:
        """Columns label_quality, is_label_issue and predicted_label for the data set that was judged.

        ``dataset.map(detection.columns)``, or in the judged order ``detection.columns.add_to(dataset)``.

        Raises
        ------
        InputError
            If the labels were judged without images.
        """
        from deft_plugin.results.columns import VerdictColumns

        return VerdictColumns(self._row_keys, self)

    @property
    def classes_too_small(self) -> tuple[str, ...]:
        """Names of the classes that were too small to be judged: one or two different images."""
        return tuple(self.details.get(TOO_SMALL, ()))

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
            not be read) and is_image_issue; after a review also decision.
        """
        import pandas as pd

        names = np.array([*self.class_names, None], dtype=object)  # NO_PREDICTION is the last
        reviewed = {} if self.decisions is None else {"decision": self.decisions}
        return pd.DataFrame(
            {
                "is_label_issue": self.is_label_issue,
                "label_quality": self.label_quality,
                "given_label": names[self.given_labels],
                "predicted_label": names[self.predicted_labels],
                "is_image_issue": self.is_image_issue,
                **reviewed,
            }
        )

    def report(
        self, path: str | os.PathLike[str], data: Any = None, *, title: str | None = None, max_images: int = MAX_IMAGES
    ) -> Path:
        """Write one HTML file in which a person looks at the issues and decides; it needs no network.

        Parameters
        ----------
        path : path
            Of the file, such as "report.html".
        data : object, optional
            The data that were judged, as anything that `deft_plugin.detect` takes. Only a detection that was
            loaded, or made from pred_probs, needs them. Each image that is shown must be the judged one; of pred_probs
            alone no image is known, and only their number and labels are compared.
        title : str, optional
        max_images : int, at least 1
            At most so many issues are shown, the worst ones.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        InputError
            If there are no images, or `data` are not those that were judged.
        """
        from deft_plugin.report.page import images_of, write_page

        return write_page(self, Path(path), images_of(self, data), title=title, max_images=max_images)

    def apply_review(self, file: str | os.PathLike[str]) -> Detection:
        """Take over the decisions that a person exported from the page of `report`, as CSV or JSON.

        "keep" makes a row no label issue; "relabel" makes it one whose predicted label is the new one; "drop"
        makes it one. Decisions of an earlier review stay, except for rows that are decided anew.

        Returns
        -------
        Detection
            A new one, with `decisions`.

        Raises
        ------
        InputError
            If the file is not a review of this detection, or contradicts itself; names the line.
        """
        from deft_plugin.results.review import apply_review

        return apply_review(self, file)

    def reviewed_labels(self) -> np.ndarray:
        """Labels after the review: the given ones, the new one where it was relabelled, -1 where it was dropped.

        Returns
        -------
        np.ndarray of shape (N,), int64 in [-1, K)
        """
        from deft_plugin.results.review import reviewed_labels

        return reviewed_labels(self)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``verdicts.parquet`` and ``detection.json`` into a folder, both or none.

        An earlier detection there is replaced once the new one is complete. A link is followed.

        Parameters
        ----------
        folder : path
            Made if it is not there.

        Raises
        ------
        InputError
            If the folder holds anything else, cannot be written, or is the current folder, which cannot be replaced.
        """
        from deft_plugin.results.storage import save_detection

        save_detection(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Detection:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If a file is missing or cannot be read.
        """
        from deft_plugin.results.storage import load_detection

        return load_detection(folder, cls)

    @functools.cached_property
    def _row_keys(self) -> RowKeys:
        from deft_plugin.data.row_keys import RowKeys

        digests = self.image_digests if self.id_digests is None else self.id_digests
        if digests is None:
            raise InputError(
                "Expected a detection that has seen the images, but it was made from pred_probs alone, so "
                "rows cannot be recognised. Use ~detection.is_label_issue, in the order of the labels."
            )
        return RowKeys(
            digests,
            self.given_labels,
            self.class_names,
            image_column=self.image_column,
            label_column=self.label_column,
            id_column=self.id_column,
        )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(cast("np.ndarray", one), cast("np.ndarray", other))
    return type(one) is type(other) and one == other
