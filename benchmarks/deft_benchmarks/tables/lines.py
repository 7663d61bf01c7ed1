"""Cells averaged over seeds: a line for each selector and setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deft_benchmarks.matrix.cells import Cell
from deft_benchmarks.tables.metrics import LOWER_IS_BETTER
from deft_benchmarks.tables.published import Published


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Mean over seeds, with the half-width of its 95 % interval (Student's t); None for one seed alone."""

    value: float
    half_width: float | None
    count: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """One selector in one setting, over its seeds.

    Attributes
    ----------
    data, noise, setting, model, selector : str
        The setting is the noise with its ratio; the model has its tuning with it.
    is_told_noise_ratio : bool
    variant_of : str, optional
    means : dict of str to Mean
        By metric.
    seconds : float
        Mean.
    errors : int
        Cells that failed.
    published : dict of str to float
        clean_precision, clean_recall and clean_f1 of the paper in the same setting, in [0, 1]; empty if there are none.
    """

    data: str
    noise: str
    setting: str
    model: str
    selector: str
    is_told_noise_ratio: bool
    variant_of: str | None
    means: dict[str, Mean]
    seconds: float
    errors: int
    published: dict[str, float]


def mean_of(values: Sequence[float]) -> Mean:
    """Average over seeds.

    Examples
    --------
    >>> mean_of([1.0, 2.0, 3.0])
    Mean(value=2.0, half_width=2.484..., count=3)
    """
    from scipy.stats import t

    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return Mean(value=float(array.mean()), half_width=None, count=len(array))
    error = array.std(ddof=1) / np.sqrt(len(array))
    return Mean(value=float(array.mean()), half_width=float(t.ppf(0.975, len(array) - 1) * error), count=len(array))


def summarise(cells: Sequence[Cell], published: Published | None = None) -> list[Line]:
    """Average cells over seeds; lines are in the order of data, setting, and clean F1, the best first.

    Parameters
    ----------
    cells : sequence of Cell
    published : dict, optional
        See `deft_benchmarks.tables.published.read_published`.
    """
    groups: dict[tuple[str, str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.data, cell.setting, cell.model_and_tuning, cell.selector), []).append(cell)
    lines = [_line(key, group, published or {}) for key, group in groups.items()]

    def key(line: Line) -> tuple[Any, ...]:
        f1 = line.means.get("clean_f1")
        return line.data, line.setting == "human", line.setting, line.model, -(f1.value if f1 else -1)

    return sorted(lines, key=key)


def by_model(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Part cells that are not to be averaged or ranked together, by model and tuning."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.model_and_tuning, []).append(cell)
    return dict(sorted(found.items()))


def over_ratios(lines: Sequence[Line], metric: str) -> list[Line]:
    """Average each selector over the ratios of a noise model, if it has a score at all of them.

    Without intervals, since ratios are no repetitions.

    Parameters
    ----------
    lines : sequence of Line
    metric : str
    """
    groups: dict[tuple[str, str, str], list[Line]] = {}
    settings: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        groups.setdefault((line.data, line.noise, line.selector), []).append(line)
        settings.setdefault((line.data, line.noise), set()).add(line.setting)
    return [
        replace(
            found[0],
            setting=found[0].noise,
            means={metric: replace(mean_of([line.means[metric].value for line in found]), half_width=None)}
            if {line.setting for line in found if metric in line.means} == settings[found[0].data, found[0].noise]
            else {},
            errors=sum(line.errors for line in found),
            published={},
        )
        for found in groups.values()
    ]


def order_selectors(lines: Sequence[Line], metric: str) -> list[str]:
    """Order the selectors by the mean of a metric over all lines, the best first.

    Parameters
    ----------
    lines : sequence of Line
    metric : str
    """
    scores: dict[str, list[float]] = {}
    for line in lines:
        scores.setdefault(line.selector, []).extend([line.means[metric].value] if metric in line.means else [])
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(scores, key=lambda name: sign * (sum(scores[name]) / len(scores[name])) if scores[name] else 1e9)


def best_line(lines: Iterable[Line], metric: str) -> Line | None:
    """Find the line with the best mean; None if none has a score.

    Parameters
    ----------
    lines : iterable of Line
    metric : str
    """
    better = min if metric in LOWER_IS_BETTER else max
    scored = [line for line in lines if metric in line.means]
    return better(scored, key=lambda line: line.means[metric].value, default=None)


def _line(key: tuple[str, str, str, str], cells: list[Cell], published: Published) -> Line:
    data, setting, model, selector = key
    names = dict.fromkeys(name for cell in cells for name in cell.metrics)
    values = {name: [v for cell in cells if (v := cell.metrics.get(name)) is not None] for name in names}
    return Line(
        data=data,
        noise=cells[0].noise,
        setting=setting,
        model=model,
        selector=selector,
        is_told_noise_ratio=any(cell.is_told_noise_ratio for cell in cells),
        variant_of=cells[0].variant_of,
        means={name: mean_of(found) for name, found in values.items() if found},
        seconds=mean_of([cell.seconds for cell in cells]).value,
        errors=sum(cell.error is not None for cell in cells),
        published=published.get((data, setting, selector), {}),
    )
