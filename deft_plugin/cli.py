"""The ``deft`` command line. Heavy libraries are imported when a command runs."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deft_plugin.errors import DeftError

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins, Registry


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="deft-plugin")
def app() -> None:
    """Find wrong labels in image data sets with a vision-language model."""


@app.command()
@click.pass_obj
def plugins(plugins: Plugins) -> None:
    """List plugins, and the selectors, backbones, data sets and noise models that they register."""
    for name, plugin in sorted(plugins.manager.list_name_plugin()):
        module = getattr(plugin, "__name__", type(plugin).__module__)
        click.echo(f"plugin {name}  ({module})")
    registries: list[Registry[Any]] = [
        plugins.selectors,
        plugins.backbones,
        plugins.datasets,
        plugins.noise_models,
    ]
    for registry in registries:
        click.echo(f"\n{registry.kind}s")
        for entry in registry:
            click.echo(f"  {entry.name:<20} {entry.summary}  [{entry.plugin}]")


@app.command()
@click.argument("path")
@click.option("--method", default="deft", show_default=True, help="A selector; see `deft plugins`.")
@click.option("--model", default="bridge-lite0", show_default=True, help="A backbone; see `deft plugins`.")
@click.option("--tuning", default="auto", show_default=True, help="frozen, vpt_deep, lora …")
@click.option(
    "--recipe", type=click.Path(exists=True, path_type=Path), help="JSON file: protocol, epochs … of training."
)
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", default="auto", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--noise-ratio", type=float, help="Expected share of wrong labels, if the method needs it.")
@click.option("--on-bad-image", type=click.Choice(["raise", "flag"]), default="raise", show_default=True)
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where image features are kept.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for issues.csv, report.html, a picture …")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for a summary.")
@click.option("--show", default=15, show_default=True, help="Rows of the table on the screen.")
@click.pass_obj
def detect(
    plugins: Plugins,
    path: str,
    method: str,
    model: str,
    tuning: str,
    recipe: Path | None,
    device: str,
    precision: Any,
    batch_size: int,
    seed: int,
    noise_ratio: float | None,
    on_bad_image: Any,
    cache_dir: Path | None,
    output: Path | None,
    json_file: Path | None,
    show: int,
) -> None:
    """Find wrong labels in PATH: a folder of class folders, Parquet files, or a saved HF data set."""
    from deft_plugin.api import detect as find
    from deft_plugin.compute.files import write_json
    from deft_plugin.compute.workers import this_process
    from deft_plugin.data.reading import read_image_data
    from deft_plugin.report.terminal import print_issues, summary, write_report
    from deft_plugin.settings import read_recipe

    is_main = this_process(device).is_main
    data = read_image_data(path)
    detection = find(
        data,
        method=method,
        model=model,
        tuning=tuning,
        training=None if recipe is None else read_recipe(recipe),
        device=device,
        precision=precision,
        batch_size=batch_size,
        seed=seed,
        noise_ratio=noise_ratio,
        on_bad_image=on_bad_image,
        cache_dir=cache_dir,
        verbose=is_main,
        plugins=plugins,
    )
    if not is_main:
        return
    if trained := detection.details.get("num_trainable_parameters"):
        click.echo(f"{detection.details['tuning']}: {trained:,} parameters trained")
    print_issues(detection, data.images, limit=show)
    if output:
        for file in write_report(detection, data.images, output):
            click.echo(f"wrote {file}")
    if json_file:
        write_json(json_file, summary(detection, data=Path(path).name))


@app.command()
@click.argument("detection", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--output", default="report.html", show_default=True, type=click.Path(path_type=Path))
@click.option("--title", help="Heading of the page.")
@click.option(
    "--max-images",
    default=5000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Show at most so many issues, the worst ones.",
)
def report(detection: Path, data: str, output: Path, title: str | None, max_images: int) -> None:
    """Write a page to look at the issues, and to decide which labels to keep, change or drop.

    DETECTION is the folder `detection` that `deft detect --output` wrote, DATA is what was judged.
    """
    from deft_plugin.results.detection import Detection

    found = Detection.load(detection)
    click.echo(f"wrote {found.report(output, data, title=title, max_images=max_images)}")


def main() -> None:
    """Run the command line; what went wrong is said in one line."""
    from deft_plugin.plugins import load_plugins

    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        loaded = load_plugins()
        loaded.call_each("register_commands", app=lambda _plugin: app)
        app(obj=loaded)
    except DeftError as error:
        click.echo(f"deft: {error}", err=True)
        sys.exit(1)
