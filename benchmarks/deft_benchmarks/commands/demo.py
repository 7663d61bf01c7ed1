"""``deft demo``: selectors on the photos that come with this package, a matrix of one block that is not kept."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deft_benchmarks.commands.options import json_option, split_names
from deft_plugin.errors import printable
from deft_plugin.options import run_options

if TYPE_CHECKING:
    from deft_benchmarks.matrix.blocks import DataBench, Judged
    from deft_benchmarks.matrix.settings import Noise
    from deft_plugin.plugins import Plugins
    from deft_plugin.settings import RunSettings

DATA = "clothing_demo"
DEFAULT_SELECTORS = ("deft", "label_match", "small_loss", "gmm", "confident_learning")


@click.command()
@click.option("--noise-mode", default="sym", show_default=True, help="See `deft plugins`.")
@click.option("--noise-ratio", default=0.4, show_default=True, type=float, help="In [0, 1).")
@click.option("--selectors", default=",".join(DEFAULT_SELECTORS), show_default=True, help="Names, separated by commas.")
@run_options("model", "tuning", "training", "device", "seed", "cache_dir")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for the first selector's issues and a picture.")
@json_option
@click.pass_obj
def demo(
    plugins: Plugins,
    noise_mode: str,
    noise_ratio: float,
    selectors: str,
    settings: RunSettings,
    output: Path | None,
    json_file: Path | None,
) -> None:
    """Put wrong labels into 1,400 real photos and let DeFT and its competitors find them.

    With --noise-ratio 0 the labels stay as they are, and DeFT says which of them it doubts.
    """
    from rich.console import Console

    from deft_benchmarks.matrix.settings import Noise
    from deft_benchmarks.tables.block_summary import block_summary
    from deft_benchmarks.tables.block_table import block_table
    from deft_plugin.compute import write_json
    from deft_plugin.report import check_report_can_be_written, print_issues, write_report

    if output:
        check_report_can_be_written(output)
    started = time.perf_counter()
    bench, judged = _judge(plugins, split_names(selectors), Noise(mode=noise_mode, ratio=noise_ratio), settings)
    times = {"seconds": time.perf_counter() - started, "feature_seconds": bench.feature_seconds}
    cells = [each.cell for each in judged]
    first, images = judged[0].require_detection(), bench.truth.data.images
    files = write_report(first, images, output) if output else []
    if json_file:
        write_json(json_file, block_summary(cells, **times))
    Console().print(block_table(cells, **times))
    if noise_ratio == 0:
        click.echo("No noise was put in: every label that is flagged counts as wrong here, though some are right.")
        print_issues(first, images)
    for file in files:
        click.echo(f"wrote {printable(str(file))}")


def _judge(
    plugins: Plugins, selectors: list[str], noise: Noise, settings: RunSettings
) -> tuple[DataBench, list[Judged]]:
    """Judge the one block, with progress bars, in the order in which the selectors were named.

    Raises
    ------
    DeftError
        That of the first selector that fails: there is nothing to compare then.
    """
    from deft_benchmarks.matrix.blocks import DataBench
    from deft_benchmarks.matrix.recipes import find_recipe
    from deft_benchmarks.matrix.settings import MatrixSettings
    from deft_plugin.progress import ConsoleProgress

    recipe = replace(find_recipe(DATA, plugins), training=settings.training)
    matrix = MatrixSettings(selectors=selectors, noises=[noise], seeds=[settings.seed], run=settings)
    with ConsoleProgress(enabled=True) as progress:
        bench = DataBench(recipe, matrix, plugins, feature_progress=progress.features, epoch_end=progress.epoch_end)
        found: dict[str, Judged] = {}
        for judged in bench.judge(bench.block(noise, settings.seed), selectors):
            judged.require_detection()
            found[judged.cell.selector] = judged
    return bench, [found[name] for name in selectors]
