"""Options that several commands have, and what is read from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins
    from deft_plugin.settings import RunSettings

json_option = click.option("--json", "json_file", type=click.Path(path_type=Path), help="File for the figures.")
data_option = click.option(
    "--data", "data_root", type=click.Path(exists=True, path_type=Path), help="Folder of the recipes' files."
)
selectors_option = click.option(
    "--selectors", help="Names, separated by commas.  [default: all that the model can run]"
)


def choose_selectors(plugins: Plugins, names: str | None, settings: RunSettings) -> list[str]:
    """Read names separated by commas; without them take all that can run, and say which cannot.

    Parameters
    ----------
    plugins : Plugins
    names : str, optional
    settings : RunSettings
        Model, tuning and device are looked at.
    """
    from deft_benchmarks.matrix.runner import runnable_selectors

    if names:
        return names.split(",")
    model = settings.model
    chosen, lacks = runnable_selectors(plugins, model=model, tuning=settings.tuning, device=settings.device)
    for name, need in lacks.items():
        text = {"cone": f"it needs a CLIP, and {model} is none", "frozen": "it needs --tuning frozen"}
        click.echo(f"{name} is left out: {text[need]}")
    return chosen
