"""The ``deft`` command line. Heavy libraries are imported when a command runs."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deft_plugin.errors import DeftError, printable
from deft_plugin.options import data_options, run_options

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins, Registry
    from deft_plugin.settings import RunSettings


_CLOSED_PIPE = 128 + 13
"""What a shell says of a program that was ended by SIGPIPE."""


class _Commands(click.Group):
    """Commands that leave Ctrl-C to who has started them; click would say "Aborted!"."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="deft-plugin", prog_name="deft")
def app() -> None:
    """Find wrong labels in image data sets with a vision-language model."""


@app.command()
@click.pass_obj
def plugins(plugins: Plugins) -> None:
    """List plugins, and the selectors, backbones, data sets and noise models that they register."""
    for name, plugin in sorted(plugins.manager.list_name_plugin()):
        module = getattr(plugin, "__name__", type(plugin).__module__)
        click.echo(printable(f"plugin {name}  ({module})"))
    registries: list[Registry[..., Any, Any]] = [
        plugins.selectors,
        plugins.backbones,
        plugins.datasets,
        plugins.noise_models,
    ]
    for registry in registries:
        click.echo(f"\n{registry.kind}s")
        for entry in registry:
            words = entry.traits.in_words() if entry.traits else ""
            summary = f"{entry.summary}; {words}" if words else entry.summary
            click.echo(printable(f"  {entry.name:<20} {summary}  [{entry.plugin}]"))


@app.command()
@click.argument("path")
@data_options
@click.option("--method", default="deft", show_default=True, help="A selector; see `deft plugins`.")
@run_options()
@click.option("--output", type=click.Path(path_type=Path), help="Folder for issues.csv, report.html, a picture …")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for a summary.")
@click.option("--show", default=15, show_default=True, help="Rows of the table on the screen.")
@click.pass_obj
def detect(
    plugins: Plugins,
    path: str,
    reading: dict[str, Any],
    method: str,
    settings: RunSettings,
    output: Path | None,
    json_file: Path | None,
    show: int,
) -> None:
    """Find wrong labels in PATH: a folder of class folders, Parquet files, or a saved HF data set."""
    from deft_plugin.api import detect as find
    from deft_plugin.compute.files import check_file_can_be_written, write_json
    from deft_plugin.compute.workers import this_process
    from deft_plugin.data.reading import read_image_data
    from deft_plugin.report.terminal import (
        DETECTION_FOLDER,
        check_report_can_be_written,
        print_issues,
        summary,
        write_report,
    )
    from deft_plugin.results.rescue import rescued

    if output:
        check_report_can_be_written(output)
    if json_file:
        check_file_can_be_written(json_file)
    is_main = this_process(settings.device).is_main
    data = read_image_data(path, **reading)
    detection = find(data, method=method, settings=settings, verbose=is_main, plugins=plugins)
    if not is_main:
        return
    with rescued(detection, output and output / DETECTION_FOLDER):
        files = write_report(detection, data.images, output) if output else []
        if json_file:
            write_json(json_file, summary(detection, data=Path(path).name))
        if trained := detection.details.get("num_trainable_parameters"):
            click.echo(f"{detection.details['tuning']}: {trained:,} parameters trained")
        print_issues(detection, data.images, limit=show)
        for file in files:
            click.echo(f"wrote {printable(str(file))}")


@app.command()
@click.argument("detection", type=click.Path(path_type=Path))
@click.argument("data")
@data_options
@click.option("--output", default="report.html", show_default=True, type=click.Path(path_type=Path))
@click.option("--title", help="Heading of the page.")
@click.option(
    "--max-images",
    default=5000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Show at most so many issues, the worst ones.",
)
def report(
    detection: Path, data: str, reading: dict[str, Any], output: Path, title: str | None, max_images: int
) -> None:
    """Write a page to look at the issues, and to decide which labels to keep, change or drop.

    DETECTION is the folder `detection` that `deft detect --output` wrote, DATA is what was judged; options of the data
    are those that it was judged with; columns of labels and images are known.
    """
    from deft_plugin.compute.files import check_file_can_be_written
    from deft_plugin.data.reading import read_image_data
    from deft_plugin.results.detection import Detection

    check_file_can_be_written(output)
    found = Detection.load(detection)
    known = {"labels": found.label_column, "image_column": found.image_column}
    images = read_image_data(data, **{**reading, **{name: reading[name] or known[name] for name in known}})
    file = found.report(output, images, title=title, max_images=max_images)
    click.echo(f"wrote {printable(str(file))}")


def main() -> None:
    """Run the command line; what went wrong is said in one line."""
    from deft_plugin.plugins import load_plugins

    warnings.formatwarning = lambda message, *_, **__: f"warning: {printable(str(message))}\n"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that the terminal does not have are named instead
            stream.reconfigure(errors="backslashreplace")
    try:
        loaded = load_plugins()
        loaded.call_each("register_commands", app=lambda _plugin: app)
        status = app.main(obj=loaded, standalone_mode=False)
        if sys.stdout:
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except click.Abort:
        click.echo("Aborted!", err=True)
        status = 1
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # nobody reads what is still to be flushed
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = _CLOSED_PIPE
    except (DeftError, OSError) as error:
        if not isinstance(error, DeftError) and error.errno != errno.ENOSPC:
            raise
        click.echo(f"deft: {printable(str(error))}", err=True)
        status = 1
    sys.exit(status if isinstance(status, int) else 0)
