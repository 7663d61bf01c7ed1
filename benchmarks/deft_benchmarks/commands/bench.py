"""The commands ``deft demo`` and ``deft bench``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deft_benchmarks.commands.matrix import choose_selectors, list_cells, report, run, table
from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from deft_benchmarks.compare import Comparison
    from deft_plugin.plugins import Plugins

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def _shared_options(command: CommandT) -> CommandT:
    """Options of every comparison."""
    for option in reversed(
        (
            click.option("--noise-mode", default="sym", show_default=True, help="See `deft plugins`."),
            click.option("--noise-ratio", default=0.4, show_default=True, type=float, help="In [0, 1)."),
            click.option("--selectors", help="Names, separated by commas.  [default: all built-in ones]"),
            click.option("--model", default="bridge-lite0", show_default=True),
            click.option("--tuning", default="auto", show_default=True),
            click.option(
                "--recipe",
                type=click.Path(exists=True, path_type=Path),
                help="JSON file: protocol, epochs … of training.",
            ),
            click.option("--device", default="auto", show_default=True),
            click.option("--seed", default=0, show_default=True),
            click.option("--cache-dir", type=click.Path(path_type=Path), help="Where image features are kept."),
            click.option("--output", type=click.Path(path_type=Path), help="Folder for DeFT's issues and a picture."),
            click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for all figures."),
        )
    ):
        command = option(command)
    return command


@click.command()
@_shared_options
@click.pass_obj
def demo(plugins: Plugins, output: Path | None, json_file: Path | None, **settings: Any) -> None:
    """Put wrong labels into 1,400 real photos and let DeFT and its competitors find them.

    With --noise-ratio 0 the labels stay as they are, and DeFT says which of them it doubts.
    """
    from deft_plugin.report import print_issues

    data = plugins.datasets.load("clothing_demo")
    comparison = _compare(data, "clothing_demo", plugins, **settings)
    if settings["noise_ratio"] == 0:
        click.echo("No noise was put in: every label that is flagged counts as wrong here, though some are right.")
        for detection in comparison.detections.values():
            print_issues(detection, comparison.data.images)
            break
    _finish(comparison, output, json_file)


@click.group()
def bench() -> None:
    """Measure: selectors on your data, or the speed of the feature pass and of a training step."""


for command in (run, list_cells, table, report):
    bench.add_command(command)


@bench.command("features")
@click.argument("data")
@click.option("--model", default="bridge-lite0", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=1))
@click.option("--limit", type=click.IntRange(min=1), help="Use the first rows only.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for the figures.")
@click.pass_obj
def features(
    plugins: Plugins,
    data: str,
    model: str,
    device: str,
    batch_size: int,
    limit: int | None,
    json_file: Path | None,
) -> None:
    """Time the feature pass over DATA against the bare encoder, in one process, in turns."""
    from deft_benchmarks.speed.features import measure_feature_pass
    from deft_plugin.compute import write_json

    speed = measure_feature_pass(
        _load(plugins, data), plugins=plugins, model=model, device=device, batch_size=batch_size, limit=limit
    )
    for key, value in speed.items():
        click.echo(f"{key:<28} {value}")
    if json_file:
        write_json(json_file, speed)


@bench.command("scoring")
@click.option("--rows", default="100000,1000000", show_default=True, help="Look at memory after so many, with commas.")
@click.option("--data", help="Hugging Face data to score as a stream, too: a registered data set or a path.")
@click.option("--model", default="bridge-lite0", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for the figures.")
@click.pass_obj
def scoring(plugins: Plugins, rows: str, data: str | None, json_file: Path | None, **settings: Any) -> None:
    """Score a stream by a trained detector: memory over many rows, and images a second."""
    from deft_benchmarks.speed.scoring import measure_images, measure_memory
    from deft_plugin.compute import write_json

    def show(count: int, megabytes: float, speed: float) -> None:
        click.echo(f"{count:>10,} rows  {megabytes:8.1f} MB resident  {speed:8,.0f} rows/s")

    memory = measure_memory([int(count) for count in rows.split(",")], report=show)
    images = None if data is None else measure_images(_load(plugins, data), plugins=plugins, **settings)
    for key, value in (images or {}).items():
        click.echo(f"{key:<28} {value}")
    if json_file:
        write_json(json_file, {"memory": memory, "images": images})


@bench.command("sharing")
@click.argument("recipe")
@click.option("--data", "data_root", type=click.Path(exists=True, path_type=Path), help="Folder of the recipe's files.")
@click.option("--selectors", help="Names, separated by commas.  [default: all that the model can run]")
@click.option("--noise-ratio", default=0.4, show_default=True, type=float)
@click.option("--model", default="bridge-lite0", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where image features are kept.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for the figures.")
@click.pass_obj
def sharing(
    plugins: Plugins,
    recipe: str,
    data_root: Path | None,
    selectors: str | None,
    json_file: Path | None,
    **settings: Any,
) -> None:
    """Time all selectors in one run against each in a run of its own; features are cached before."""
    from deft_benchmarks.matrix.recipes import find_recipe, load_data
    from deft_benchmarks.speed.sharing import measure_sharing
    from deft_plugin.compute import write_json

    names = choose_selectors(plugins, selectors, model=settings["model"], tuning="auto", device=settings["device"])
    truth = load_data(find_recipe(recipe, plugins), plugins, data_root)

    def show(name: str, seconds: float) -> None:
        click.echo(f"{name:<24} {seconds:8.1f} s")

    found = measure_sharing(truth, plugins=plugins, selectors=names, report=show, **settings)
    click.echo(f"{'sum of each alone':<24} {found['sum_of_alone']:8.1f} s; together {100 * found['ratio']:.0f} % of it")
    if json_file:
        write_json(json_file, found)


@bench.command("speed")
@click.option("--classes", default="10,100,200,1000", show_default=True, help="Numbers of classes, with commas.")
@click.option("--architecture", default="ViT-B-16", show_default=True, help="Of open_clip; with random weights.")
@click.option("--tuning", default="vpt_deep", show_default=True)
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default="cpu", show_default=True)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for the figures.")
def speed(classes: str, json_file: Path | None, **settings: Any) -> None:
    """Time a training step beside a plain one with the same weights, in one process."""
    from dataclasses import asdict

    from deft_benchmarks.speed.steps import StepSpeed, measure_steps
    from deft_plugin.compute import write_json

    def show(cost: StepSpeed) -> None:
        text = "" if cost.text_seconds is None else f"  text {cost.text_seconds:5.2f} s"
        click.echo(
            f"{cost.step:<10} {cost.dtype:<9} K {cost.num_classes:>5}  {cost.seconds:7.2f} s  "
            f"{cost.peak_bytes / 2**30:6.2f} GB  {cost.flops / 1e12:6.2f} TFLOP{text}"
        )

    found = measure_steps([int(count) for count in classes.split(",")], report=show, **settings)
    if json_file:
        write_json(json_file, {**settings, "steps": [asdict(cost) for cost in found]})


def _load(plugins: Plugins, data: str) -> Any:
    """Load a registered data set, or what is at a path; Hugging Face data are opened for their other columns."""
    from deft_plugin.data import holds_dataset, read_dataset

    if any(entry.name == data for entry in plugins.datasets):
        return plugins.datasets.load(data)
    if holds_dataset(data):
        return read_dataset(data)
    if Path(data).exists():
        return data
    known = ", ".join(entry.name for entry in plugins.datasets)
    raise InputError(f"Expected a path or one of the registered data sets ({known}), but got {data!r}.")


def _compare(
    data: Any, name: str, plugins: Plugins, *, selectors: str | None, recipe: Path | None, **settings: Any
) -> Comparison:
    from rich.console import Console

    from deft_benchmarks.compare import DEFAULT_SELECTORS, compare
    from deft_benchmarks.results import results_table
    from deft_plugin.progress import ConsoleProgress
    from deft_plugin.settings import read_recipe

    chosen = tuple(selectors.split(",")) if selectors else DEFAULT_SELECTORS
    with ConsoleProgress(enabled=True) as progress:
        comparison = compare(
            data,
            data_name=name,
            plugins=plugins,
            selectors=chosen,
            training=None if recipe is None else read_recipe(recipe),
            feature_progress=progress.features,
            epoch_end=progress.epoch_end,
            **settings,
        )
    Console().print(results_table(comparison.result))
    return comparison


def _finish(comparison: Comparison, output: Path | None, json_file: Path | None) -> None:
    from deft_plugin.compute import write_json
    from deft_plugin.report import write_report

    if output:
        detection = next(iter(comparison.detections.values()))
        for file in write_report(detection, comparison.data.images, output):
            click.echo(f"wrote {file}")
    if json_file:
        write_json(json_file, comparison.result.to_json_dict())
