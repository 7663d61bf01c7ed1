"""Tables of cells: for the terminal, Markdown and CSV, with the published figures beside."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_benchmarks.matrix.cells import Cell
from deft_benchmarks.tables.ranks import Mean, Ranking, mean_of
from deft_plugin.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

PUBLISHED_MODEL = "CLIP ViT-B/16"
PUBLISHED = Path(__file__).parents[1] / "data" / "published_detection.csv"
"""Figures of Wei et al., NeurIPS 2024, as printed on its authors' slides."""

BEST_OTHER = "best of the others"
LOWER_IS_BETTER = ("noise_miss_rate_at_budget", "calibration_error")


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


def summarise(
    cells: Sequence[Cell], published: dict[tuple[str, str, str], dict[str, float]] | None = None
) -> list[Line]:
    """Average cells over seeds; lines are in the order of data, setting, and clean F1, the best first."""
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


def read_published(file: Path = PUBLISHED) -> dict[tuple[str, str, str], dict[str, float]]:
    """Read the paper's table of clean precision and recall in %, by data, setting and selector.

    Parameters
    ----------
    file : Path
        CSV with columns dataset, noise, selector, clean_precision, clean_recall.

    Raises
    ------
    InputError
        If it is not such a file.
    """
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        found: dict[tuple[str, str, str], dict[str, float]] = {}
        for row in rows:
            precision, recall = float(row["clean_precision"]) / 100, float(row["clean_recall"]) / 100
            found[row["dataset"], row["noise"], row["selector"]] = {
                "clean_precision": precision,
                "clean_recall": recall,
                "clean_f1": 2 * precision * recall / (precision + recall),
            }
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"Expected {file} to be a table of published figures, but: {error!r}.") from error
    return found


def to_frame(lines: Sequence[Line]) -> pd.DataFrame:
    """Make a table with a row for each line, and columns for mean and half-width of each metric."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for line in lines:
        row: dict[str, Any] = {
            "data": line.data,
            "noise": line.setting,
            "model": line.model,
            "selector": line.selector,
            "is_told_noise_ratio": line.is_told_noise_ratio,
            "seeds": max((mean.count for mean in line.means.values()), default=0),
            "errors": line.errors,
            "seconds": line.seconds,
        }
        for name, mean in line.means.items():
            row |= {name: mean.value, f"{name}_half_width": mean.half_width}
        row |= {f"published_{name}": value for name, value in line.published.items()}
        row["published_model"] = PUBLISHED_MODEL if line.published else None
        rows.append(row)
    return pd.DataFrame(rows)


def score_tables(lines: Sequence[Line], metric: str) -> list[ScoreTable]:
    """Lay one metric out with a table for each data set, without variants."""
    tables: list[ScoreTable] = []
    for data in dict.fromkeys(line.data for line in lines):
        of_data = [line for line in lines if line.data == data and line.variant_of is None]
        scores = {(line.selector, line.setting): line for line in of_data}
        tables.append(_lay_out(data, scores, order_selectors(of_data, metric), metric))
    return [table for table in tables if table.rows]


def overview(lines: Sequence[Line], metric: str) -> ScoreTable:
    """Lay one metric out for all data sets, without variants: a column is a noise model, averaged over its ratios."""
    means = [line for line in _over_ratios(lines, metric) if line.variant_of is None]
    return _lay_out("mean over ratios", _by_data_and_noise(means), order_selectors(means, metric), metric)


def variant_tables(lines: Sequence[Line], metric: str) -> list[ScoreTable]:
    """Lay variants out beside the selector that they change, as `overview` does, and the best of the other selectors.

    Returns
    -------
    list of ScoreTable
        One for each selector that has variants.
    """
    means = _over_ratios(lines, metric)
    tables: list[ScoreTable] = []
    for base in dict.fromkeys(line.variant_of for line in means if line.variant_of is not None):
        family = [line for line in means if base in (line.selector, line.variant_of)]
        others = [line for line in means if line.variant_of is None and line.selector != base]
        others = [line for line in others if not line.is_told_noise_ratio and metric in line.means]
        scores = _by_data_and_noise(family)
        for column in dict.fromkeys(column for _, column in scores):
            if best := _best((line for line in others if _data_and_noise(line) == column), metric):
                scores[BEST_OTHER, column] = best
        names = order_selectors(family, metric)
        tables.append(_lay_out(f"variants of {base}", scores, [*names, BEST_OTHER] if others else names, metric))
    return tables


def table_text(table: ScoreTable, *, with_intervals: bool = True) -> tuple[str, list[str], list[list[str]]]:
    """Write a table as text.

    Returns
    -------
    heading, headers, rows
        Markdown: "**96.2** ± 0.3"; a published figure stands behind in brackets. "*" marks oracles, "!" failed cells.
    """
    rows = [
        [name + (" *" if name in table.oracles else ""), *(entry.text(with_intervals) for entry in entries)]
        for name, entries in table.rows
    ]
    return table.heading, ["selector", *table.settings], rows


def is_in_percent(metric: str) -> bool:
    """Tell whether a metric is shown in %: precision, recall and F1 are."""
    return metric not in ("auroc", "auprc", *LOWER_IS_BETTER)


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay a table out for the terminal; ``**bold**`` becomes bold."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for header in headers:
        is_name = header == "selector"
        table.add_column(header, justify="left" if is_name else "right", overflow="fold", no_wrap=is_name)
    for row in rows:
        table.add_row(*(Text(entry.replace("**", ""), style="bold" if "**" in entry else "") for entry in row))
    return table


def _line(
    key: tuple[str, str, str, str], cells: list[Cell], published: dict[tuple[str, str, str], dict[str, float]]
) -> Line:
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


def order_selectors(lines: Sequence[Line], metric: str) -> list[str]:
    """Order the selectors by the mean of a metric over all lines, the best first."""
    scores: dict[str, list[float]] = {}
    for line in lines:
        scores.setdefault(line.selector, []).extend([line.means[metric].value] if metric in line.means else [])
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(scores, key=lambda name: sign * (sum(scores[name]) / len(scores[name])) if scores[name] else 1e9)


def _over_ratios(lines: Sequence[Line], metric: str) -> list[Line]:
    """Average each selector over the ratios of a noise model, if it has a score at all of them.

    Without intervals, since ratios are no repetitions.
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


def _data_and_noise(line: Line) -> str:
    return f"{line.data} {line.noise}"


def _by_data_and_noise(lines: Sequence[Line]) -> dict[tuple[str, str], Line]:
    return {(line.selector, _data_and_noise(line)): line for line in lines}


def _best(lines: Iterable[Line], metric: str) -> Line | None:
    better = min if metric in LOWER_IS_BETTER else max
    scored = [line for line in lines if metric in line.means]
    return better(scored, key=lambda line: line.means[metric].value, default=None)


def _lay_out(heading: str, scores: dict[tuple[str, str], Line], names: Sequence[str], metric: str) -> ScoreTable:
    """Make a table of lines by row and column; columns keep their order."""
    columns = list(dict.fromkeys(column for _, column in scores))
    best = {
        column: _best((line for (_, where), line in scores.items() if where == column), metric) for column in columns
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
    scale, digits = (100, 1) if is_in_percent(metric) else (1, 3)

    def shown(value: float | None) -> str | None:
        return None if value is None else f"{scale * value:.{digits}f}"

    score = f"{scale * mean.value:.{digits}f}"
    return Entry(
        score=score,
        half_width=shown(mean.half_width),
        published=shown(line.published.get(metric)),
        is_best=best is not None and score == shown(best.means[metric].value),  # with all that look the same
        has_failed=line.errors > 0,
    )


def ranking_rows(ranking: Ranking) -> tuple[list[str], list[list[str]], str]:
    """Write mean ranks of the selectors as a table, and what the tests say.

    Returns
    -------
    headers, rows, note
    """
    rows = [
        [name, f"{rank:.2f}", f"{wins} of {ranking.num_blocks}", f"{of_seeds} of {ranking.num_blocks_of_seeds}"]
        for name, rank, wins, of_seeds in zip(
            ranking.selectors, ranking.mean_ranks, ranking.wins, ranking.wins_of_seeds, strict=True
        )
    ]
    note = f"{ranking.num_blocks} settings, means over seeds."
    if ranking.p_value is not None and ranking.critical_difference is not None:
        note += (
            f" Friedman test: p = {ranking.p_value:.2g}. Nemenyi (alpha 0.05): mean ranks that differ by less than "
            f"{ranking.critical_difference:.2f} are not told apart."
        )
    if ranking.left_out:
        names = ", ".join(ranking.left_out)
        note += f" Not ranked, as they are told the noise ratio, are variants or have failed: {names}."
    return ["selector", "mean rank", "best in", "seeds apart"], rows, note
