"""The cells of one block as JSON values: what ``deft demo --json`` writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from deft_benchmarks.matrix.cells import Cell
from deft_benchmarks.matrix.metrics import DetectionMetrics

ORACLE_NOTE = "told the true noise ratio"
METRICS = tuple(field.name for field in dataclasses.fields(DetectionMetrics))
BATCH_MEANS = ("batch_mean_clean_precision", "batch_mean_clean_recall")


def note_of(cell: Cell) -> str:
    """Say what a reader must know to compare a cell fairly with others; may be empty."""
    notes = [ORACLE_NOTE] if cell.is_told_noise_ratio else []
    precision, recall = (cell.metrics.get(name) for name in BATCH_MEANS)
    if precision is not None and recall is not None:
        notes.append(f"clean P {100 * precision:.1f}, R {100 * recall:.1f} as means over mini-batches")
    return "; ".join(notes)


def block_summary(cells: Sequence[Cell], *, seconds: float, feature_seconds: float) -> dict[str, Any]:
    """Give the block and the scores of its selectors; scores that are undefined are None.

    Parameters
    ----------
    cells : sequence of Cell
        At least one, all of one block.
    seconds : float
        Whole time.
    feature_seconds : float
        Part of it that image features took, which all selectors share.
    """
    first = cells[0]
    return {
        "data": first.data,
        "num_examples": first.num_examples,
        "num_classes": first.num_classes,
        "noise_mode": first.noise,
        "noise_ratio": first.noise_ratio,
        "actual_noise_ratio": first.actual_noise_ratio,
        "model": first.model,
        "seed": first.seed,
        "seconds": seconds,
        "feature_seconds": feature_seconds,
        "selectors": [_selector_summary(cell) for cell in cells],
    }


def _selector_summary(cell: Cell) -> dict[str, Any]:
    return {
        "name": cell.selector,
        **{name: cell.metrics.get(name) for name in METRICS},
        "seconds": cell.seconds,
        "note": note_of(cell),
        "noise_ratio_used": cell.details.get("noise_ratio_used"),
        "noise_ratio_source": cell.details.get("noise_ratio_source"),
        **{name: cell.metrics.get(name) for name in BATCH_MEANS},
    }
