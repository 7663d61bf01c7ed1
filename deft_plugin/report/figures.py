"""The figures of a report's page: issues of each class, given against predicted labels, and label quality.

Images that could not be read are in none of them: their labels were not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from deft_plugin.results.detection import Detection

MATRIX_CLASSES = 20  # more would be too small to read
PAIRS = 15
BINS = 20
HEAT_LEVELS = 9


@dataclass(frozen=True, kw_only=True)
class ClassIssues:
    """How many labels of a class look wrong.

    Attributes
    ----------
    label : int
    issues, examples : int
        Of the given label.
    share : float in [0, 1]
        Issues among the examples.
    width : float in [0, 100]
        Length of the bar; 100 for the class with the most issues.
    """

    label: int
    issues: int
    examples: int
    share: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """How many issues have a given and a predicted label; `level` is in 0 … 9, of the colour."""

    given: int
    predicted: int
    count: int
    level: int


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Issues by given (rows) and predicted label (columns), of the classes with the most of them.

    Attributes
    ----------
    labels : list of int
        In their order.
    rows : list of list of Pair
    issues : int
        That are in the matrix.
    is_whole : bool
        False if it leaves out classes that have issues.
    """

    labels: list[int]
    rows: list[list[Pair]]
    issues: int
    is_whole: bool


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Examples whose label quality is in [low, high); heights are in [0, 100]."""

    low: float
    high: float
    kept: int
    flagged: int
    kept_height: float
    flagged_height: float


def issues_of_classes(detection: Detection) -> list[ClassIssues]:
    """Count the issues of each class that has examples, the most issues first."""
    num_classes, readable = len(detection.class_names), ~detection.is_image_issue
    examples = np.bincount(detection.given_labels[readable], minlength=num_classes)
    issues = np.bincount(detection.given_labels[_judged_issues(detection)], minlength=num_classes)
    most = max(int(issues.max()), 1)
    return [
        ClassIssues(
            label=label,
            issues=int(issues[label]),
            examples=int(examples[label]),
            share=float(issues[label] / examples[label]),
            width=round(100 * float(issues[label]) / most, 2),
        )
        for label in np.argsort(-issues, kind="stable").tolist()
        if examples[label]
    ]


def pairs_of_labels(detection: Detection) -> list[Pair]:
    """Count the issues of each pair of given and predicted label, the most frequent first."""
    issues = _judged_issues(detection)
    labels = np.stack([detection.given_labels[issues], detection.predicted_labels[issues]])  # (2, n_issues)
    pairs, counts = np.unique(labels, axis=1, return_counts=True)
    if not len(counts):
        return []
    # The eye tells few from none better than many from more: the root spreads the low end.
    levels = np.ceil(HEAT_LEVELS * np.sqrt(counts / counts.max())).astype(int)
    return [
        Pair(given=int(pairs[0, k]), predicted=int(pairs[1, k]), count=int(counts[k]), level=int(levels[k]))
        for k in np.argsort(-counts, kind="stable")
    ]


def matrix_of_labels(pairs: list[Pair], *, limit: int = MATRIX_CLASSES) -> Matrix:
    """Lay pairs out as a table of at most `limit` classes, those with the most issues."""
    frequency: dict[int, int] = {}
    for pair in pairs:
        for label in {pair.given, pair.predicted}:
            frequency[label] = frequency.get(label, 0) + pair.count
    labels = sorted(sorted(frequency, key=lambda label: (-frequency[label], label))[:limit])
    known = {(pair.given, pair.predicted): pair for pair in pairs}
    rows = [
        [
            known.get((given, predicted)) or Pair(given=given, predicted=predicted, count=0, level=0)
            for predicted in labels
        ]
        for given in labels
    ]
    issues = sum(pair.count for row in rows for pair in row)
    return Matrix(labels=labels, rows=rows, issues=issues, is_whole=len(labels) == len(frequency))


def quality_histogram(detection: Detection) -> list[Bin]:
    """Count kept and flagged examples by label quality; each kind is drawn to its own scale."""
    readable, flagged = ~detection.is_image_issue, detection.is_label_issue
    counts = [
        np.histogram(detection.label_quality[readable & those], bins=BINS, range=(0, 1))[0]
        for those in (~flagged, flagged)
    ]
    heights = [np.round(100 * each / max(int(each.max()), 1), 2) for each in counts]
    return [
        Bin(
            low=k / BINS,
            high=(k + 1) / BINS,
            kept=int(counts[0][k]),
            flagged=int(counts[1][k]),
            kept_height=float(heights[0][k]),
            flagged_height=float(heights[1][k]),
        )
        for k in range(BINS)
    ]


def _judged_issues(detection: Detection) -> np.ndarray:
    return detection.is_label_issue & ~detection.is_image_issue  # (N,)
