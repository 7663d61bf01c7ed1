"""The cells of one block as a table for the terminal: what ``deft demo`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deft_benchmarks.matrix.cells import Cell
from deft_benchmarks.tables.block_summary import note_of
from deft_benchmarks.tables.metrics import shown

if TYPE_CHECKING:
    from rich.table import Table

_MISSING = "-"
_HEADERS = {
    "clean_precision": "clean\nP %",
    "clean_recall": "clean\nR %",
    "clean_f1": "clean\nF1 %",
    "noise_precision": "noise\nP %",
    "noise_recall": "noise\nR %",
    "noise_f1": "noise\nF1 %",
    "auroc": "\nAUROC",
    "auprc": "noise\nAUPRC",
}


def block_table(cells: Sequence[Cell], *, seconds: float, feature_seconds: float) -> Table:
    """Lay the cells of a block out as a table that fits 80 columns, one line a selector.

    The best score of each column is bold, with all that look the same. *clean* scores are of keeping right
    labels, *noise* scores of flagging wrong ones; higher is better but for the seconds. Notes of selectors
    stand below the table.

    Parameters
    ----------
    cells : sequence of Cell
        At least one, all of one block.
    seconds : float
        Whole time.
    feature_seconds : float
        Part of it that image features took, which all selectors share.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(_title(cells[0]), style="bold"),
        caption=Text(_caption(cells, seconds, feature_seconds), style="dim"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("\nselector", overflow="fold")
    for header in _HEADERS.values():
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("\nsecs", justify="right", no_wrap=True)
    rows = [[_score(cell, metric) for metric in _HEADERS] for cell in cells]
    best = [_best(column) for column in zip(*rows, strict=True)]
    for cell, row in zip(cells, rows, strict=True):
        mark = " *" if note_of(cell) else ""
        scores = [
            Text(score, style="bold green" if score == winner else "") for score, winner in zip(row, best, strict=True)
        ]
        table.add_row(Text(cell.selector + mark), *scores, Text(f"{cell.seconds:.1f}"))
    return table


def _score(cell: Cell, metric: str) -> str:
    score = cell.metrics.get(metric)
    return _MISSING if score is None else shown(metric, score)


def _best(scores: Sequence[str]) -> str | None:
    known = [score for score in scores if score != _MISSING]
    return max(known, key=float) if len(scores) > 1 and known else None


def _title(cell: Cell) -> str:
    return (
        f"{cell.data}: {cell.num_examples:,} examples, {cell.num_classes} classes\n"
        f"{cell.noise} noise {cell.noise_ratio:g}: {100 * cell.actual_noise_ratio:.1f} % wrong labels\n"
        f"model {cell.model}, seed {cell.seed}"
    )


def _caption(cells: Sequence[Cell], seconds: float, feature_seconds: float) -> str:
    lines = [
        "clean: of keeping right labels; noise: of flagging wrong labels.",
        f"Features {feature_seconds:.1f} s, shared by all; in all {seconds:.1f} s.",
    ]
    lines += [f"* {cell.selector}: {note}" for cell in cells if (note := note_of(cell))]
    return "\n".join(lines)
