"""Command line options of data and of a run's settings: each is written once, and any command can take them."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from deft_plugin.errors import InputError
from deft_plugin.settings import TUNINGS, OnBadImage, RunSettings, read_recipe

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_DEFAULTS = RunSettings()

_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "model": click.option(
        "--model", default=_DEFAULTS.model, show_default=True, help="A backbone; see `deft plugins`."
    ),
    "tuning": click.option(
        "--tuning", default=_DEFAULTS.tuning, show_default=True, help=f"{', '.join(TUNINGS[1:])} or auto."
    ),
    "training": click.option(
        "--recipe",
        "training",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="JSON file: protocol, epochs … of training.",
    ),
    "device": click.option("--device", default=_DEFAULTS.device, show_default=True, help="cpu, cuda, mps … or auto."),
    "precision": click.option(
        "--precision", default=_DEFAULTS.precision, show_default=True, help="float32, bfloat16, float16 or auto."
    ),
    "batch_size": click.option(
        "--batch-size",
        default=_DEFAULTS.batch_size,
        show_default=True,
        type=click.IntRange(min=1),
        help="Images that go through the encoder at a time.",
    ),
    "seed": click.option(
        "--seed",
        default=_DEFAULTS.seed,
        show_default=True,
        type=click.IntRange(0, 2**32 - 1),
        help="Of all that is random.",
    ),
    "n_folds": click.option(
        "--n-folds",
        default=_DEFAULTS.n_folds,
        show_default=True,
        type=click.IntRange(min=2),
        help="Folds that examples are dealt into, none judged by what was trained on it.",
    ),
    "noise_ratio": click.option(
        "--noise-ratio", type=float, help="Expected share of wrong labels, if the method needs it."
    ),
    "on_bad_image": click.option(
        "--on-bad-image",
        type=click.Choice(get_args(OnBadImage)),
        default=_DEFAULTS.on_bad_image,
        show_default=True,
        help="An unreadable image is an error, or an issue of its own kind.",
    ),
    "cache_dir": click.option("--cache-dir", type=click.Path(path_type=Path), help="Where image features are kept."),
}


def run_options(*names: str) -> Callable[[CommandT], CommandT]:
    """Give a command the options of some settings of a run; it is handed them as ``settings``, a RunSettings.

    Parameters
    ----------
    *names : str
        Fields of `RunSettings`, in the order of ``--help``; by default all that have an option.

    Examples
    --------
    >>> @click.command()
    ... @run_options("model", "seed")
    ... def command(settings): ...
    >>> [option.name for option in command.params]
    ['model', 'seed']
    """
    chosen = names or tuple(_OPTIONS)

    def decorate(command: CommandT) -> CommandT:
        @functools.wraps(command)
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in chosen}
            if given.get("training") is not None:
                given["training"] = read_recipe(given["training"])
            return command(*args, settings=RunSettings(**given), **kwargs)

        decorated: Any = with_settings
        for name in reversed(chosen):
            decorated = _OPTIONS[name](decorated)
        return decorated

    return decorate


def data_options(command: CommandT) -> CommandT:
    """Give a command the options that say what in the data is meant; it is handed them as ``reading``.

    That is a dict of keywords of `deft_plugin.data.read_image_data`.

    Examples
    --------
    >>> @click.command()
    ... @data_options
    ... def command(reading): ...
    >>> [option.name for option in command.params]
    ['label_column', 'image_column', 'class_names', 'split', 'id_column']
    """

    @functools.wraps(command)
    def with_reading(*args: Any, **kwargs: Any) -> Any:
        reading = {keyword: kwargs.pop(option) for option, keyword in _DATA_KEYWORDS.items()}
        if reading["class_names"] is not None:
            reading["class_names"] = _read_class_names(reading["class_names"])
        return command(*args, reading=reading, **kwargs)

    decorated: Any = with_reading
    for option in reversed(_DATA_OPTIONS):
        decorated = option(decorated)
    return decorated


_DATA_KEYWORDS = {
    "label_column": "labels",
    "image_column": "image_column",
    "class_names": "class_names",
    "split": "split",
    "id_column": "id_column",
}

_DATA_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--label-column", help="Column of the labels, if the data have several."),
    click.option("--image-column", help="Column of the images, if the data have several."),
    click.option(
        "--class-names", help="Names in the order of the labels: cat,dog,… or a file, one name a line or a JSON list."
    ),
    click.option("--split", help="Which split of the data, such as train; all for all of them together."),
    click.option("--id-column", help="Column whose values tell rows apart, instead of their images."),
)


def _read_class_names(given: str) -> list[str]:
    file = Path(given)
    if not os.path.isfile(given):
        if "," not in given:
            raise InputError(
                f"Expected class names as cat,dog,… or a file of names, but {given!r} is no file and has no comma "
                f"(looked up from {Path.cwd()})."
            )
        return [name.strip() for name in given.split(",")]
    try:
        text = file.read_text(encoding="utf-8-sig")
        if not text.lstrip().startswith("["):
            return [line.strip() for line in text.strip().splitlines()]
        return json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"Expected a file of class names, but {file} cannot be read: {error}.") from error
