"""``deft bench features``, ``scoring``, ``sharing`` and ``speed``: what things cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deft_benchmarks.commands.options import choose_selectors, data_option, json_option, numbers_in, selectors_option
from deft_plugin.options import run_options

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins
    from deft_plugin.settings import RunSettings


@click.command("features")
@click.argument("data")
@run_options("model", "device", "batch_size")
@click.option("--limit", type=click.IntRange(min=1), help="Use the first rows only.")
@json_option
@click.pass_obj
def features(plugins: Plugins, data: str, settings: RunSettings, limit: int | None, json_file: Path | None) -> None:
    """Time the feature pass over DATA against the bare encoder, in one process, in turns."""
    from deft_benchmarks.speed.features import measure_feature_pass
    from deft_plugin.compute import write_json

    found = measure_feature_pass(_load(plugins, data), plugins=plugins, settings=settings, limit=limit)
    _print_figures(found)
    if json_file:
        write_json(json_file, found)


@click.command("scoring")
@click.option(
    "--rows",
    default="100000,1000000",
    show_default=True,
    type=numbers_in(range(1, 2**31)),
    help="Look at memory after so many, with commas.",
)
@click.option("--data", help="Hugging Face data to score as a stream, too: a registered data set or a path.")
@run_options("model", "device", "batch_size")
@json_option
@click.pass_obj
def scoring(plugins: Plugins, rows: list[int], data: str | None, settings: RunSettings, json_file: Path | None) -> None:
    """Score a stream by a trained detector: memory over many rows, and images a second."""
    from deft_benchmarks.speed.scoring import measure_images, measure_memory
    from deft_plugin.compute import write_json

    def show(count: int, megabytes: float, speed: float) -> None:
        click.echo(f"{count:>10,} rows  {megabytes:8.1f} MB resident  {speed:8,.0f} rows/s")

    memory = measure_memory(rows, report=show)
    images = None if data is None else measure_images(_load(plugins, data), plugins=plugins, settings=settings)
    _print_figures(images or {})
    if json_file:
        write_json(json_file, {"memory": memory, "images": images})


@click.command("sharing")
@click.argument("recipe")
@data_option
@selectors_option
@click.option("--noise-ratio", default=0.4, show_default=True, type=float, help="Of symmetric noise, in [0, 1).")
@run_options("model", "device", "cache_dir")
@json_option
@click.pass_obj
def sharing(
    plugins: Plugins,
    recipe: str,
    data_root: Path | None,
    selectors: str | None,
    noise_ratio: float,
    settings: RunSettings,
    json_file: Path | None,
) -> None:
    """Time all selectors in one run against each in a run of its own; features are cached before."""
    from deft_benchmarks.matrix.recipes import find_recipe, load_data
    from deft_benchmarks.speed.sharing import measure_sharing
    from deft_plugin.compute import write_json

    names = choose_selectors(plugins, selectors, settings)
    truth = load_data(find_recipe(recipe, plugins), plugins, data_root)

    def show(name: str, seconds: float) -> None:
        click.echo(f"{name:<24} {seconds:8.1f} s")

    found = measure_sharing(
        truth, plugins=plugins, selectors=names, settings=settings, noise_ratio=noise_ratio, report=show
    )
    click.echo(f"{'sum of each alone':<24} {found['sum_of_alone']:8.1f} s; together {100 * found['ratio']:.0f} % of it")
    if json_file:
        write_json(json_file, found)


@click.command("speed")
@click.option(
    "--classes",
    default="10,100,200,1000",
    show_default=True,
    type=numbers_in(range(2, 2**31)),
    help="Numbers of classes, with commas.",
)
@click.option("--architecture", default="ViT-B-16", show_default=True, help="Of open_clip; with random weights.")
@click.option("--tuning", default="vpt_deep", show_default=True)
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default="cpu", show_default=True)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@json_option
def speed(classes: list[int], json_file: Path | None, **settings: Any) -> None:
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

    found = measure_steps(classes, report=show, **settings)
    if json_file:
        write_json(json_file, {**settings, "steps": [asdict(cost) for cost in found]})


def _load(plugins: Plugins, data: str) -> Any:
    """Load a registered data set, or what is at a path; Hugging Face data are opened for their other columns."""
    from deft_benchmarks.matrix.recipes import find_recipe, load_raw

    return load_raw(find_recipe(data, plugins), plugins, None)


def _print_figures(figures: dict[str, Any]) -> None:
    for key, value in figures.items():
        click.echo(f"{key:<28} {value}")
