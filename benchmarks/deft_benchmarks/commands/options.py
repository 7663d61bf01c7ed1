"""Options that several commands have, and what is read from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins
    from deft_plugin.settings import RunSettings


def numbers_in(allowed: range) -> Callable[[str], list[int]]:
    """Make the type of an option: whole numbers, separated by commas, each once.

    Parameters
    ----------
    allowed : range
    """

    def numbers(text: str) -> list[int]:
        words = [word.strip() for word in text.split(",")]
        if not all(word.isascii() and word.isdigit() and len(word) < 20 and int(word) in allowed for word in words):
            raise click.BadParameter(
                f"expected whole numbers from {allowed[0]} to {allowed[-1]}, separated by commas, but got {text!r:.80}."
            )
        return list(dict.fromkeys(map(int, words)))

    return numbers


class OutputFile(click.Path):
    """A file to be written: whether it can be is found out before the work."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, writable=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read the path."""
        from deft_plugin.compute import check_file_can_be_written

        path = cast(Path, super().convert(value, param, ctx))
        try:
            check_file_can_be_written(path)
        except (OSError, ValueError):  # also a name that is too long, or has a null character
            self.fail(f"expected a file that can be written, but got {str(path)!r:.80}", param, ctx)
        return path


json_option = click.option("--json", "json_file", type=OutputFile(), help="File for the figures.")
data_option = click.option(
    "--data",
    "data_root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the recipes' files.",
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

    if names is not None:
        return split_names(names)
    model = settings.model
    chosen, lacks = runnable_selectors(plugins, model=model, tuning=settings.tuning, device=settings.device)
    for name, need in lacks.items():
        text = {"cone": f"it needs a CLIP, and {model} is none", "frozen": "it needs --tuning frozen"}
        click.echo(f"{name} is left out: {text[need]}")
    return chosen


def split_names(text: str) -> list[str]:
    """Read names separated by commas, each once.

    Raises
    ------
    InputError
        If one is empty.

    Examples
    --------
    >>> split_names("deft, gmm,deft")
    ['deft', 'gmm']
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"Expected names separated by commas, but got {text!r}.")
    return list(dict.fromkeys(names))
