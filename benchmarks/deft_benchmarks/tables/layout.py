"""Scores laid out in tables: rows are selectors, columns are settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deft_benchmarks.tables.lines import Line, best_line, order_selectors, over_ratios
from deft_benchmarks.tables.metrics import shown

BEST_OTHER = "best of the others"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A score of a table as text, and what belongs to it.

    Examples
    --------
    >>> Entry(score="96.2", half_width="0.3", published="95.1", is_best=True, has_failed=True).text()
    '**96.2** ± 0.3 (95.1) !'
    """

    score: str
    half_width: str | None = None
    published: str | None = None
    is_best: bool = False
    has_failed: bool = False

    def text(self, with_interval: bool = True) -> str:
        """Write it in Markdown."""
        text = f"**{self.score}**" if self.is_best else self.score
        text += f" ± {self.half_width}" if with_interval and self.half_width is not None else ""
        text += "" if self.published is None else f" ({self.published})"
        return text + (" !" if self.has_failed else "")


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Scores under a heading, such as a data set: a row for each selector, and a column for each setting.

    In tables over several data sets a column is a data set and a noise model.
    """

    heading: str
    settings: list[str]
    rows: list[tuple[str, list[Entry]]]
    oracles: set[str]

    def has(self, field: str) -> bool:
        """Tell whether any entry has, such as, a published figure."""
        return any(getattr(entry, field) for _, entries in self.rows for entry in entries)


def score_tables(lines: Sequence[Line], metric: str) -> list[ScoreTable]:
    """Lay one metric out with a table for each data set, without variants.

    Parameters
    ----------
    lines : sequence of Line
    metric : str
    """
    tables: list[ScoreTable] = []
    for data in dict.fromkeys(line.data for line in lines):
        of_data = [line for line in lines if line.data == data and line.variant_of is None]
        scores = {(line.selector, line.setting): line for line in of_data}
        tables.append(_lay_out(data, scores, order_selectors(of_data, metric), metric))
    return [table for table in tables if table.rows]


def overview(lines: Sequence[Line], metric: str) -> ScoreTable:
    """Lay one metric out for all data sets, without variants: a column is a noise model, averaged over its ratios.

    Parameters
    ----------
    lines : sequence of Line
    metric : str
    """
    means = [line for line in over_ratios(lines, metric) if line.variant_of is None]
    return _lay_out("mean over ratios", _by_data_and_noise(means), order_selectors(means, metric), metric)


def variant_tables(lines: Sequence[Line], metric: str) -> list[ScoreTable]:
    """Lay variants out beside the selector that they change, as `overview` does, and the best of the other selectors.

    Parameters
    ----------
    lines : sequence of Line
    metric : str

    Returns
    -------
    list of ScoreTable
        One for each selector that has variants.
    """
    means = over_ratios(lines, metric)
    tables: list[ScoreTable] = []
    for base in dict.fromkeys(line.variant_of for line in means if line.variant_of is not None):
        family = [line for line in means if base in (line.selector, line.variant_of)]
        others = [line for line in means if line.variant_of is None and line.selector != base]
        others = [line for line in others if not line.is_told_noise_ratio and metric in line.means]
        scores = _by_data_and_noise(family)
        for column in dict.fromkeys(column for _, column in scores):
            if best := best_line((line for line in others if _data_and_noise(line) == column), metric):
                scores[BEST_OTHER, column] = best
        names = order_selectors(family, metric)
        tables.append(_lay_out(f"variants of {base}", scores, [*names, BEST_OTHER] if others else names, metric))
    return tables


def _data_and_noise(line: Line) -> str:
    return f"{line.data} {line.noise}"


def _by_data_and_noise(lines: Sequence[Line]) -> dict[tuple[str, str], Line]:
    return {(line.selector, _data_and_noise(line)): line for line in lines}


def _lay_out(heading: str, scores: dict[tuple[str, str], Line], names: Sequence[str], metric: str) -> ScoreTable:
    """Make a table of lines by row and column; columns keep their order."""
    columns = list(dict.fromkeys(column for _, column in scores))
    best = {
        column: best_line((line for (_, where), line in scores.items() if where == column), metric)
        for column in columns
    }
    return ScoreTable(
        heading=heading,
        settings=columns,
        rows=[
            (name, [_entry(scores.get((name, column)), metric, best[column]) for column in columns]) for name in names
        ],
        oracles={line.selector for line in scores.values() if line.is_told_noise_ratio},
    )


def _entry(line: Line | None, metric: str, best: Line | None) -> Entry:
    if line is None:
        return Entry(score="")
    if metric not in line.means:
        return Entry(score="failed" if line.errors else "-")
    mean = line.means[metric]
    score, published = shown(metric, mean.value), line.published.get(metric)
    return Entry(
        score=score,
        half_width=None if mean.half_width is None else shown(metric, mean.half_width),
        published=None if published is None else shown(metric, published),
        is_best=best is not None and score == shown(metric, best.means[metric].value),  # with all that look the same
        has_failed=line.errors > 0,
    )
