"""Tables as text, Markdown, for the terminal and as a data frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deft_benchmarks.tables.layout import ScoreTable
from deft_benchmarks.tables.lines import Line
from deft_benchmarks.tables.published import PUBLISHED_MODEL
from deft_benchmarks.tables.ranks import Ranking

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


def table_text(table: ScoreTable, *, with_intervals: bool = True) -> tuple[str, list[str], list[list[str]]]:
    """Write a table as text.

    Parameters
    ----------
    table : ScoreTable
    with_intervals : bool
        With the half-widths behind the means.

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


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown.

    Parameters
    ----------
    headers : sequence of str
    rows : sequence of sequence of str
    """
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Lay a table out for the terminal; ``**bold**`` becomes bold.

    Parameters
    ----------
    headers : sequence of str
    rows : sequence of sequence of str
    """
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
