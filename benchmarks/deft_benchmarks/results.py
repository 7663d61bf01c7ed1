"""What a comparison of selectors gives: one typed schema, its JSON, and a table to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from deft_benchmarks.matrix.metrics import DetectionMetrics

_MISSING = "-"


@dataclass(frozen=True, kw_only=True)
class SelectorResult:
    """How one selector did.

    Attributes
    ----------
    name : str
    metrics : DetectionMetrics
    seconds : float
        Time of this selector alone, without the features that all share.
    note : str
        What a reader must know to compare fairly, for example "told the true noise ratio".
    noise_ratio_used : float in [0, 1], optional
        The noise ratio that the selector worked with, if it needs one.
    noise_ratio_source : str, optional
        Where that ratio is from, for example "oracle" or "estimated".
    batch_mean_clean_precision, batch_mean_clean_recall : float, optional
        Means over the mini-batches of the last training epoch, where the verdicts are from there.
    """

    name: str
    metrics: DetectionMetrics
    seconds: float
    note: str = ""
    noise_ratio_used: float | None = None
    noise_ratio_source: str | None = None
    batch_mean_clean_precision: float | None = None
    batch_mean_clean_recall: float | None = None

    def to_json_dict(self) -> dict[str, Any]:
        """Give the entry of this selector, its metrics beside its name."""
        return {
            "name": self.name,
            **dataclasses.asdict(self.metrics),
            "seconds": self.seconds,
            "note": self.note,
            "noise_ratio_used": self.noise_ratio_used,
            "noise_ratio_source": self.noise_ratio_source,
            "batch_mean_clean_precision": self.batch_mean_clean_precision,
            "batch_mean_clean_recall": self.batch_mean_clean_recall,
        }


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """Selectors compared on the same data, noise, model and seed.

    Attributes
    ----------
    data : str
        Name of the data set.
    num_examples, num_classes : int
        N and K.
    noise_mode : str
        Name of the noise model.
    noise_ratio : float in [0, 1)
        Nominal noise ratio.
    actual_noise_ratio : float in [0, 1]
        Share of labels that differ from the true ones.
    model : str
        Name of the backbone.
    seed : int
    seconds : float
        Whole time.
    feature_seconds : float
        Part of it that image features took, which all selectors share.
    selectors : tuple of SelectorResult
        In the order in which they are shown.
    """

    data: str
    num_examples: int
    num_classes: int
    noise_mode: str
    noise_ratio: float
    actual_noise_ratio: float
    model: str
    seed: int
    seconds: float
    feature_seconds: float
    selectors: tuple[SelectorResult, ...]

    def to_json_dict(self) -> dict[str, Any]:
        """Give what ``--json`` writes; scores that are undefined are null."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "selectors": [selector.to_json_dict() for selector in self.selectors]}


@dataclass(frozen=True)
class _Column:
    header: str
    metric: str
    show: Callable[[float], str]


def _percent(score: float) -> str:
    return f"{100 * score:.1f}"


def _three_decimals(score: float) -> str:
    return f"{score:.3f}"


_COLUMNS = (
    _Column("clean\nP %", "clean_precision", _percent),
    _Column("clean\nR %", "clean_recall", _percent),
    _Column("clean\nF1 %", "clean_f1", _percent),
    _Column("noise\nP %", "noise_precision", _percent),
    _Column("noise\nR %", "noise_recall", _percent),
    _Column("noise\nF1 %", "noise_f1", _percent),
    _Column("\nAUROC", "auroc", _three_decimals),
    _Column("noise\nAUPRC", "auprc", _three_decimals),
)


def results_table(result: ComparisonResult) -> Table:
    """Lay out a comparison as a table that fits 80 columns, one line a selector.

    The best score of each column is bold, with all that look the same. *clean* scores are of keeping right
    labels, *noise* scores of flagging wrong ones; higher is better but for the seconds. Notes of selectors
    stand below the table.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(_title(result), style="bold"),
        caption=Text(_caption(result), style="dim"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("\nselector", overflow="fold")
    for column in _COLUMNS:
        table.add_column(column.header, justify="right", no_wrap=True)
    table.add_column("\nsecs", justify="right", no_wrap=True)
    shown = [[_shown(selector, column) for column in _COLUMNS] for selector in result.selectors]
    best = [_best(list(scores)) for scores in zip(*shown, strict=True)]
    for selector, scores in zip(result.selectors, shown, strict=True):
        mark = " *" if selector.note else ""
        cells = [
            Text(score, style="bold green" if score == winner else "")
            for score, winner in zip(scores, best, strict=True)
        ]
        table.add_row(Text(selector.name + mark), *cells, Text(f"{selector.seconds:.1f}"))
    return table


def _shown(selector: SelectorResult, column: _Column) -> str:
    score: float | None = getattr(selector.metrics, column.metric)
    return _MISSING if score is None else column.show(score)


def _best(scores: list[str]) -> str | None:
    known = [score for score in scores if score != _MISSING]
    return max(known, key=float) if len(scores) > 1 and known else None


def _title(result: ComparisonResult) -> str:
    return (
        f"{result.data}: {result.num_examples:,} examples, {result.num_classes} classes\n"
        f"{result.noise_mode} noise {result.noise_ratio:g}: "
        f"{_percent(result.actual_noise_ratio)} % wrong labels\n"
        f"model {result.model}, seed {result.seed}"
    )


def _caption(result: ComparisonResult) -> str:
    lines = [
        "clean: of keeping right labels; noise: of flagging wrong labels.",
        f"Features {result.feature_seconds:.1f} s, shared by all; in all {result.seconds:.1f} s.",
    ]
    lines += [f"* {selector.name}: {selector.note}" for selector in result.selectors if selector.note]
    return "\n".join(lines)
