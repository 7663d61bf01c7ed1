"""``deft bench list``, ``table`` and ``report``: what there is to see of cells that were run before."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deft_benchmarks.commands.options import OutputFile
from deft_benchmarks.tables.published import PUBLISHED
from deft_plugin.errors import UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from deft_benchmarks.matrix.cells import Cell
    from deft_benchmarks.tables.published import Published

METRICS = ("clean_f1", "auroc")

results_argument = click.argument("results", nargs=-1, type=click.Path(exists=True, path_type=Path), required=True)
published_option = click.option(
    "--published",
    default=PUBLISHED,
    type=click.Path(exists=True, path_type=Path),
    help="CSV of published P and R.  [default: the paper's]",
)


@click.command("list")
@results_argument
def list_cells(results: tuple[Path, ...]) -> None:
    """List the cells below RESULTS."""
    from deft_benchmarks.matrix.cells import read_cells

    for cell in read_cells(list(results)):
        print_cell(cell)


@click.command("table")
@results_argument
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    default=METRICS,
    show_default=True,
    help="Such as noise_f1 or auprc; may be given again.",
)
@published_option
@click.option("--overview", "is_overview", is_flag=True, help="One table over all data sets, without those of each.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--csv", "csv_file", type=OutputFile(), help="File for all metrics.")
def table(
    results: tuple[Path, ...],
    metrics: tuple[str, ...],
    published: Path,
    csv_file: Path | None,
    *,
    is_overview: bool,
    markdown: bool,
) -> None:
    """Make tables of the cells below RESULTS: means over seeds with 95 % intervals, and mean ranks."""
    from deft_benchmarks.matrix.cells import read_cells
    from deft_benchmarks.tables.lines import summarise
    from deft_benchmarks.tables.published import read_published
    from deft_benchmarks.tables.writing import to_frame

    cells = read_cells(list(results))
    known = {name for cell in cells for name in cell.metrics}
    for name in metrics:
        if name not in known | set(METRICS):
            raise UnknownNameError(f"Unknown metric {name!r}. {did_you_mean(name, known)}")
    found = read_published(published)
    print_tables(cells, metrics, published=found, as_markdown=markdown, is_overview=is_overview)
    if csv_file:
        to_frame(summarise(cells, found)).to_csv(csv_file, index=False)
        click.echo(f"wrote {csv_file}")


@click.command("report")
@results_argument
@published_option
@click.option("--title", default="Selectors compared", show_default=True, help="Heading of the page.")
@click.option("--output", default="report.html", show_default=True, type=OutputFile(), help="The file.")
def report(results: tuple[Path, ...], published: Path, title: str, output: Path) -> None:
    """Make a page of the cells below RESULTS: one HTML file with tables, mean ranks and plots.

    Needs matplotlib: pip install "deft-plugin[bench]".
    """
    from deft_benchmarks.matrix.cells import read_cells
    from deft_benchmarks.pages.page import write_report_page
    from deft_benchmarks.tables.published import read_published

    file = write_report_page(read_cells(list(results)), output, published=read_published(published), title=title)
    click.echo(f"wrote {file}")


def print_cell(cell: Cell, *, was_there: bool = False) -> None:
    """Print one cell as a line.

    Parameters
    ----------
    cell : Cell
    was_there : bool
        True if it is of an earlier run, and was not run again.
    """
    where = f"{cell.data:<16} {cell.setting:<10} seed {cell.seed}  {cell.selector:<24}"
    if cell.error:
        click.echo(f"{where} failed: {cell.error}")
        return
    scores = "  ".join(f"{name} {_score(cell.metrics.get(name))}" for name in METRICS)
    click.echo(f"{where} {scores}  {cell.seconds:7.1f} s{'  (was there)' if was_there else ''}")


def _score(value: float | None) -> str:
    return "    -" if value is None else f"{value:.3f}"


def print_tables(
    cells: list[Cell],
    metrics: tuple[str, ...],
    *,
    published: Published | None = None,
    as_markdown: bool = False,
    is_overview: bool = False,
) -> None:
    """Print tables and mean ranks of cells, for each model and metric.

    Parameters
    ----------
    cells : list of Cell
    metrics : tuple of str
    published : dict, optional
        See `deft_benchmarks.tables.published.read_published`.
    as_markdown : bool
        Markdown with intervals, instead of tables that fit a terminal.
    is_overview : bool
        Without the tables of each data set.
    """
    from rich.console import Console

    from deft_benchmarks.tables.lines import by_model
    from deft_benchmarks.tables.writing import markdown, rich_table

    for (model, group), metric in itertools.product(by_model(cells).items(), metrics):
        for caption, headers, rows in _captioned(model, group, metric, published, as_markdown, is_overview):
            click.echo(f"\n{caption}")
            if as_markdown:
                click.echo(f"\n{markdown(headers, rows)}")
            else:
                Console().print(rich_table(headers, rows))


def _captioned(
    model: str, cells: list[Cell], metric: str, published: Published | None, with_intervals: bool, is_overview: bool
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Captions, headers and rows of all tables of one model and metric."""
    from deft_benchmarks.tables.layout import overview, score_tables, variant_tables
    from deft_benchmarks.tables.lines import summarise
    from deft_benchmarks.tables.metrics import LOWER_IS_BETTER, is_in_percent
    from deft_benchmarks.tables.published import PUBLISHED_MODEL
    from deft_benchmarks.tables.ranks import rank_selectors
    from deft_benchmarks.tables.writing import ranking_rows, table_text

    lines = summarise(cells, published)
    is_lower_better = metric in LOWER_IS_BETTER
    title = f"{metric}{' in %' if is_in_percent(metric) else ''} of {model} "
    title += f"({'lower' if is_lower_better else 'higher'} is better"
    title += "; * is told the true noise ratio)" if any(line.is_told_noise_ratio for line in lines) else ")"
    tables = [] if is_overview else score_tables(lines, metric)
    tables += [overview(lines, metric), *variant_tables(lines, metric)]
    found: list[tuple[str, list[str], list[list[str]]]] = []
    for each in tables:
        brackets = f"; in brackets the paper's, with {PUBLISHED_MODEL}" if each.has("published") else ""
        _, headers, rows = table_text(each, with_intervals=with_intervals)
        found.append((f"{each.heading}: {title}{brackets}", headers, rows))
    headers, rows, note = ranking_rows(rank_selectors(cells, metric, lower_is_better=is_lower_better))
    return [*found, (f"{metric}, mean ranks: {note}", headers, rows)]
