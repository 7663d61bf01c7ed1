"""``deft bench run``: a matrix of selectors, data sets, noises and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deft_benchmarks.commands.options import choose_selectors, data_option, numbers_in, selectors_option, split_names
from deft_benchmarks.commands.tables import METRICS, print_cell, print_tables
from deft_plugin.options import run_options

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins
    from deft_plugin.settings import RunSettings

DEFAULT_NOISE = "sym:0.4"


@click.command("run")
@click.argument("recipes", nargs=-1, required=True)
@data_option
@selectors_option
@click.option("--noise", default=DEFAULT_NOISE, show_default=True, help="model:ratio or human, separated by commas.")
@click.option(
    "--seeds", default="0", show_default=True, type=numbers_in(range(2**32)), help="Numbers, separated by commas."
)
@run_options("model", "tuning", "device", "cache_dir")
@click.option(
    "--results", default="results", show_default=True, type=click.Path(path_type=Path), help="Where cells are kept."
)
@click.option("--force", is_flag=True, help="Run cells that are there already, too.")
@click.option("--per-class", is_flag=True, help="Keep the metrics of each class.")
@click.pass_obj
def run(
    plugins: Plugins,
    recipes: tuple[str, ...],
    selectors: str | None,
    noise: str,
    seeds: list[int],
    settings: RunSettings,
    **kept: Any,
) -> None:
    """Compare selectors on RECIPES, whose labels are taken as the truth.

    A recipe is a .json file (see benchmarks/recipes), a registered data set, or a path as for `deft detect`. Each cell
    (data set, noise, seed, selector) is one file below --results; those that are there, of the same data and settings,
    are not run again.
    """
    from deft_benchmarks.matrix.recipes import find_recipe
    from deft_benchmarks.matrix.runner import run_matrix
    from deft_benchmarks.matrix.settings import MatrixSettings, Noise

    matrix = MatrixSettings(
        selectors=choose_selectors(plugins, selectors, settings),
        noises=list(dict.fromkeys(map(Noise.parse, split_names(noise)))),
        seeds=seeds,
        run=settings,
        **kept,
    )
    found = [find_recipe(name, plugins) for name in recipes]
    cells = run_matrix(found, matrix, plugins, report=lambda cell, is_old: print_cell(cell, was_there=is_old))
    print_tables(cells, METRICS)
