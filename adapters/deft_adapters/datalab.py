"""DeFT as an issue type of cleanlab's Datalab; importing this module registers it.

>>> import deft_adapters.datalab
>>> from cleanlab.datalab.internal.issue_manager_factory import list_possible_issue_types
>>> from cleanlab.datalab.internal.task import Task
>>> "deft" in list_possible_issue_types(Task.CLASSIFICATION)
True
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from cleanlab.datalab.internal.issue_manager import IssueManager
from cleanlab.datalab.internal.issue_manager_factory import register

from deft_plugin import Detection, InputError, detect
from deft_plugin.data import check_same_images, find_image_column, read_image_data


@register
class DeftIssueManager(IssueManager):
    """Finds wrong labels of images: ``lab.find_issues(issue_types={"deft": {...}})``.

    The settings are parameters of `deft_plugin.detect`, such as ``model``, ``tuning`` or ``seed``; ``method`` may be
    any selector. Or ``{"deft": {"detection": detection}}`` takes what was found before.

    Datalab catches whatever is raised here, prints it, and goes on: look for the column ``is_deft_issue``.

    Parameters
    ----------
    datalab : cleanlab.Datalab
        Of labelled images. Classes are in the order of its ``ClassLabel``, if it has one.
    """

    description: ClassVar[str] = (
        "Examples whose image is closer to the negative than to the positive text prompt of their given label: the\n"
        "    label is probably wrong. The score is the probability that the given label is right."
    )
    issue_name: ClassVar[str] = "deft"
    verbosity_levels: ClassVar[dict[int, list[str]]] = {
        0: [],
        1: [],
        2: ["num_issues_of_class"],
        3: ["thresholds", "num_examples_of_class"],
    }

    def find_issues(self, *, detection: Detection | None = None, image_key: str | None = None, **settings: Any) -> None:
        """Judge all labels, and keep scores, summary and info.

        Parameters
        ----------
        detection : Detection, optional
            Of the same rows, in the same order: labels are compared, and all images, each of which is decoded. A lab
            without images can be compared by its labels alone.
        image_key : str, optional
            Column of the images, if there are several.
        **settings
            As for `deft_plugin.detect`.

        Raises
        ------
        InputError
            If the lab has no labels, or `detection` is of other labels.
        """
        label_name = self.datalab.label_name
        if label_name is None:
            raise InputError("Expected a Datalab with labels: pass label_name=... to Datalab.")
        if detection is None:
            detection = self._detect(image_key, label_name, settings)
        elif settings:
            raise InputError(f"Expected a detection or settings, but got both: {', '.join(settings)}.")
        self._check(detection, image_key)
        self.issues = pd.DataFrame(
            {"is_deft_issue": detection.is_label_issue, self.issue_score_key: detection.label_quality}
        )
        self.summary = self.make_summary(score=float(detection.label_quality.mean()))
        self.info = self.collect_info(detection)

    def _detect(self, image_key: str | None, label_name: str, settings: dict[str, Any]) -> Detection:
        data: Any = self.datalab.data
        columns = [image_key or find_image_column(data), label_name]
        return detect(data.select_columns(columns), label_name, **settings)

    def collect_info(self, detection: Detection) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give what ``lab.get_info("deft")`` shows.

        Returns
        -------
        dict
            given_label and predicted_label (class names by row), class_names; by class name num_examples_of_class,
            num_issues_of_class and thresholds (the highest score of an issue of that class: a label is an issue at
            or below it; None without issues); method, settings and details of the detection.
        """
        names, issue = detection.class_names, detection.is_label_issue
        of_class = [detection.given_labels == k for k in range(len(names))]
        flagged = [detection.label_quality[rows & issue] for rows in of_class]
        frame = detection.to_frame()
        return {
            "given_label": frame["given_label"].tolist(),
            "predicted_label": frame["predicted_label"].tolist(),
            "class_names": list(names),
            "num_examples_of_class": {name: int(rows.sum()) for name, rows in zip(names, of_class, strict=True)},
            "num_issues_of_class": {name: len(scores) for name, scores in zip(names, flagged, strict=True)},
            "thresholds": {
                name: float(scores.max()) if len(scores) else None for name, scores in zip(names, flagged, strict=True)
            },
            "method": detection.method,
            "settings": dict(detection.settings),
            "details": dict(detection.details),
        }

    @classmethod
    def report(
        cls, issues: pd.DataFrame, summary: pd.DataFrame, info: dict[str, Any], *args: Any, **kwargs: Any
    ) -> str:
        """Compose a report in Datalab's style, with given and predicted labels beside the scores."""
        shown = issues.assign(given_label=info["given_label"], predicted_label=info["predicted_label"])
        return super().report(shown, summary, info, *args, **kwargs)

    def _check(self, detection: Detection, image_key: str | None) -> None:
        """Refuse a detection of other labels, which are compared by name, or of other images."""
        names = np.array([str(name) for name in self.datalab.class_names])  # numbers are named by themselves
        given = names[np.asarray(self.datalab.labels)]
        found = np.array(detection.class_names)[detection.given_labels]
        if len(found) != len(given):
            raise InputError(
                f"Expected a detection of the {len(given)} rows of this Datalab, but it has {len(found)}. Pass that of "
                "this data set."
            )
        different = np.flatnonzero(found != given)
        if len(different):
            row = int(different[0])
            raise InputError(
                f"Expected a detection of the labels of this Datalab, but row {row} has {str(given[row])!r} here and "
                f"{str(found[row])!r} there. Pass that of this data set, in the same order."
            )
        data: Any = self.datalab.data
        if detection.image_digests is not None and any(map(_is_image, data.features.values())):
            column = image_key or detection.image_column
            images = read_image_data(data, detection.given_labels, detection.class_names, image_column=column).images
            check_same_images(images, detection.image_digests, np.arange(len(given)))


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"
