"""``deft bench run``, ``list``, ``table`` and ``report``: a matrix of selectors, data sets, noises and seeds."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from deft_benchmarks.matrix.cells import Cell
    from deft_plugin.plugins import Plugins

DEFAULT_NOISE = "sym:0.4"
METRICS = ("clean_f1", "auroc")

published_option = click.option(
    "--published",
    type=click.Path(exists=True, path_type=Path),
    help="CSV of published P and R.  [default: the paper's]",
)


@click.command("run")
@click.argument("recipes", nargs=-1, required=True)
@click.option("--data", "data_root", type=click.Path(exists=True, path_type=Path), help="Folder of the recipes' files.")
@click.option("--selectors", help="Names, separated by commas.  [default: all that the model can run]")
@click.option("--noise", default=DEFAULT_NOISE, show_default=True, help="model:ratio or human, separated by commas.")
@click.option("--seeds", default="0", show_default=True, help="Numbers, separated by commas.")
@click.option("--model", default="bridge-lite0", show_default=True)
@click.option("--tuning", default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--results", default="results", show_default=True, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Run cells that are there already, too.")
@click.option("--per-class", is_flag=True, help="Keep the metrics of each class.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where image features are kept.")
@click.pass_obj
def run(
    plugins: Plugins, recipes: tuple[str, ...], selectors: str | None, noise: str, seeds: str, **settings: Any
) -> None:
    """Compare selectors on RECIPES, whose labels are taken as the truth.

    A recipe is a .json file (see benchmarks/recipes), a registered data set, or a path as for `deft detect`. Each cell
    (data set, noise, seed, selector) is one file below --results; cells that are there are not run again.
    """
    from deft_benchmarks.matrix.recipes import find_recipe
    from deft_benchmarks.matrix.runner import MatrixSettings, Noise, run_matrix

    matrix = MatrixSettings(
        selectors=choose_selectors(
            plugins, selectors, model=settings["model"], tuning=settings["tuning"], device=settings["device"]
        ),
        noises=[Noise.parse(text) for text in noise.split(",")],
        seeds=[int(seed) for seed in seeds.split(",")],
        **settings,
    )
    cells = run_matrix([find_recipe(name, plugins) for name in recipes], matrix, plugins, report=_show_cell)
    _print_tables(cells, METRICS, published=None)


@click.command("list")
@click.argument("results", nargs=-1, type=click.Path(exists=True, path_type=Path), required=True)
def list_cells(results: tuple[Path, ...]) -> None:
    """List the cells below RESULTS."""
    from deft_benchmarks.matrix.cells import read_cells

    for cell in read_cells(list(results)):
        _show_cell(cell, False)


@click.command("table")
@click.argument("results", nargs=-1, type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--metric", "metrics", multiple=True, help="Such as clean_f1 or auroc; may be given again.")
@published_option
@click.option("--overview", "is_overview", is_flag=True, help="One table over all data sets, without those of each.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="File for all metrics.")
def table(
    results: tuple[Path, ...],
    metrics: tuple[str, ...],
    published: Path | None,
    csv_file: Path | None,
    *,
    is_overview: bool,
    markdown: bool,
) -> None:
    """Make tables of the cells below RESULTS: means over seeds with 95 % intervals, and mean ranks."""
    from deft_benchmarks.matrix.cells import read_cells
    from deft_benchmarks.tables.lines import summarise
    from deft_benchmarks.tables.published import PUBLISHED, read_published
    from deft_benchmarks.tables.writing import to_frame

    cells = read_cells(list(results))
    found = read_published(published or PUBLISHED)
    _print_tables(cells, metrics or METRICS, published=found, as_markdown=markdown, is_overview=is_overview)
    if csv_file:
        to_frame(summarise(cells, found)).to_csv(csv_file, index=False)
        click.echo(f"wrote {csv_file}")


@click.command("report")
@click.argument("results", nargs=-1, type=click.Path(exists=True, path_type=Path), required=True)
@published_option
@click.option("--title", default="Selectors compared", show_default=True, help="Heading of the page.")
@click.option("--output", default="report.html", show_default=True, type=click.Path(path_type=Path), help="The file.")
def report(results: tuple[Path, ...], published: Path | None, title: str, output: Path) -> None:
    """Make a page of the cells below RESULTS: one HTML file with tables, mean ranks and plots.

    Needs matplotlib: pip install "deft-plugin[bench]".
    """
    from deft_benchmarks.matrix.cells import read_cells
    from deft_benchmarks.pages.page import write_report_page
    from deft_benchmarks.tables.published import PUBLISHED, read_published

    found = read_published(published or PUBLISHED)
    file = write_report_page(read_cells(list(results)), output, published=found, title=title)
    click.echo(f"wrote {file}")


def choose_selectors(plugins: Plugins, names: str | None, *, model: str, tuning: str, device: str) -> list[str]:
    """Read names separated by commas; without them take all that can run, and say which cannot."""
    from deft_benchmarks.matrix.runner import runnable_selectors

    if names:
        return names.split(",")
    chosen, lacks = runnable_selectors(plugins, model=model, tuning=tuning, device=device)
    for name, need in lacks.items():
        text = {"cone": f"it needs a CLIP, and {model} is none", "frozen": "it needs --tuning frozen"}
        click.echo(f"{name} is left out: {text[need]}")
    return chosen


def _show_cell(cell: Cell, is_old: bool) -> None:
    where = f"{cell.data:<16} {cell.setting:<10} seed {cell.seed}  {cell.selector:<24}"
    if cell.error:
        click.echo(f"{where} failed: {cell.error}")
        return
    scores = "  ".join(f"{name} {_score(cell.metrics.get(name))}" for name in METRICS)
    click.echo(f"{where} {scores}  {cell.seconds:7.1f} s{'  (was there)' if is_old else ''}")


def _score(value: float | None) -> str:
    return "    -" if value is None else f"{value:.3f}"


def _print_tables(
    cells: list[Cell],
    metrics: tuple[str, ...],
    *,
    published: Any,
    as_markdown: bool = False,
    is_overview: bool = False,
) -> None:
    from rich.console import Console

    from deft_benchmarks.tables.layout import overview, score_tables, variant_tables
    from deft_benchmarks.tables.lines import by_model, summarise
    from deft_benchmarks.tables.metrics import LOWER_IS_BETTER, is_in_percent
    from deft_benchmarks.tables.published import PUBLISHED_MODEL
    from deft_benchmarks.tables.ranks import rank_selectors
    from deft_benchmarks.tables.writing import markdown, ranking_rows, rich_table, table_text

    for (model, group), metric in itertools.product(by_model(cells).items(), metrics):
        lines = summarise(group, published)
        is_lower_better = metric in LOWER_IS_BETTER
        title = f"{metric}{' in %' if is_in_percent(metric) else ''} of {model} "
        title += f"({'lower' if is_lower_better else 'higher'} is better"
        title += "; * is told the true noise ratio)" if any(line.is_told_noise_ratio for line in lines) else ")"
        tables = [] if is_overview else score_tables(lines, metric)
        tables += [overview(lines, metric), *variant_tables(lines, metric)]
        shown: list[tuple[str, list[str], list[list[str]]]] = []
        for each in tables:
            brackets = f"; in brackets the paper's, with {PUBLISHED_MODEL}" if each.has("published") else ""
            _, headers, rows = table_text(each, with_intervals=as_markdown)
            shown.append((f"{each.heading}: {title}{brackets}", headers, rows))
        headers, rows, note = ranking_rows(rank_selectors(group, metric, lower_is_better=is_lower_better))
        shown.append((f"{metric}, mean ranks: {note}", headers, rows))
        for caption, headers, rows in shown:
            click.echo(f"\n{caption}")
            if as_markdown:
                click.echo(f"\n{markdown(headers, rows)}")
            else:
                Console().print(rich_table(headers, rows))
