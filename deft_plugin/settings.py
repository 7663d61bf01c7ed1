"""All settings, each with its default, its check and what it means; and recipes, JSON files with some of them.

A setting has one home: a field here. `deft_plugin.detect` has keywords for those of a run, and the command line an
option (`deft_plugin.options`).
"""

from __future__ import annotations

import functools
import json
import math
import numbers
import operator
import os
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from deft_plugin.errors import InputError, UnknownNameError, did_you_mean

Protocol: TypeAlias = Literal["default", "faithful"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
OnBadImage: TypeAlias = Literal["raise", "flag"]
NoiseRatioSource: TypeAlias = Literal["given", "oracle"]
Schedule: TypeAlias = Literal["cosine", "constant"]

DEFAULT_MODEL = "bridge-lite0"
FROZEN = "frozen"
TUNINGS = ("auto", FROZEN, "vpt_deep", "vpt_shallow", "lora", "bitfit", "full")
"""How DeFT adapts the image encoder; `deft_plugin.tuning` has those that train it."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Settings of the training loop, whatever it trains.

    Attributes
    ----------
    epochs : int
    batch_size : int
        Of all processes together.
    schedule : "cosine" or "constant"
        Of the learning rates, by epoch.
    max_grad_norm : float, optional
        Clip gradients to this norm.
    checkpoint_steps : int
        Steps between checkpoints; there is one at the end of each epoch anyway.
    """

    epochs: int = 10
    batch_size: int = 64
    schedule: Schedule = "cosine"
    max_grad_norm: float | None = None
    checkpoint_steps: int = 500

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(LoopSettings):
    """Settings of the tunings that train the encoder; those of the authors' code unless said otherwise.

    Attributes
    ----------
    protocol : "default" or "faithful"
        "default" judges all examples after training, by their clean view. "faithful" keeps the verdicts of the
        last training epoch, each made from an augmented view before its step, and clamps as the authors' code does.
    is_real_noise : bool
        The authors' variant for noise from real life; see `deft_plugin.deft.step.DeftStep`.
    n_ctx : int
        M, context vectors of a prompt.
    epochs, batch_size, schedule, max_grad_norm, checkpoint_steps
        See `LoopSettings`.
    warmup_epochs : int
        In warm-up all examples are taken as clean.
    learning_rate, momentum, weight_decay : float
        SGD on the contexts, and on the encoder for visual prompts.
    encoder_learning_rate : float, optional
        By default what the tuning says.
    gradient_checkpointing : bool
        Less memory for the image encoder, for about a third more time.
    cone_sine : float
        See `FrozenSettings`; for a backbone without a cone.
    """

    protocol: Protocol = "default"
    is_real_noise: bool = False
    n_ctx: int = 16
    warmup_epochs: int = 1
    learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    encoder_learning_rate: float | None = None
    gradient_checkpointing: bool = False
    cone_sine: float = 0.2


@dataclass(frozen=True, kw_only=True)
class FrozenSettings:
    """Settings of frozen tuning; one set for all data.

    Attributes
    ----------
    n_ctx : int
        M, context vectors of a prompt.
    epochs, warmup_epochs : int
        In warm-up all examples are taken as clean.
    residual_learning_rate, context_learning_rate : float
        SGD with momentum and Adam, both with a cosine schedule. Residuals are kept in units of logits, so that a
        step means the same whatever the backbone's logit scale.
    momentum, weight_decay : float
        Of the class residuals.
    text_updates_per_epoch : int
        How often the prompts go through the text tower; see `prompts.SoftPrompts`.
    sharpening : float
        Factor on logits whenever labels are judged: a class posterior learned from noisy labels is flatter than
        the truth's.
    is_out_of_sample : bool
        False trains on all examples and judges the same ones, as the paper does; for comparison.
    cone_sine : float
        Sine of the half-angle of the cone within which a negative prompt may move away from the background, for a
        backbone without a cone of its own.
    transition_smoothing : float
        Pseudo-count of each wrong label of each class in the estimated transition.
    transition_steps : int
        Steps of expectation maximisation that estimate it.
    """

    n_ctx: int = 16
    epochs: int = 10
    warmup_epochs: int = 2
    residual_learning_rate: float = 120.0
    context_learning_rate: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 2.5e-5
    text_updates_per_epoch: int = 1
    sharpening: float = 1.5
    is_out_of_sample: bool = True
    cone_sine: float = 0.2
    transition_smoothing: float = 3.0
    transition_steps: int = 20

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Settings of the linear classifier; the same for every selector that uses it.

    Attributes
    ----------
    epochs : int
    learning_rate, momentum, weight_decay : float
        SGD with a cosine schedule.
    logit_scale : float
        Factor on features, which have length 1.
    """

    epochs: int = 10
    learning_rate: float = 0.003
    momentum: float = 0.9
    weight_decay: float = 5e-4
    logit_scale: float = 20.0

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run is set up by.

    Attributes
    ----------
    model : str
        A registered backbone, an open_clip name such as "ViT-B-16/openai", or a local folder.
    tuning : str
        How DeFT adapts the image encoder: "frozen", "vpt_deep", "vpt_shallow", "lora", "bitfit" or "full"; "auto"
        takes what suits encoder and device.
    training : FinetuneSettings, optional
        Protocol, epochs, batch size and so on of the tunings that train the encoder.
    device : str
        "auto", "cpu", "cuda", "mps", ...
    precision : "auto", "float32", "bfloat16" or "float16"
        Format that the encoders compute in; weights stay float32. "auto" is the fastest that the device has.
    batch_size : int
        Images that go through the encoder at a time.
    seed : int in [0, 2**32)
        The same seed, data and machine give the same verdicts.
    cache_dir : path, optional
        Where image features are kept; else $DEFT_CACHE_DIR or the user's cache folder.
    n_folds : int, at least 2
        Folds that examples are dealt into, so that none is judged by what was trained on it: for frozen tuning, and
        for out-of-sample class probabilities. More of them train on more examples each, and take longer.
    noise_ratio : float in [0, 1), optional
        Expected share of wrong labels, for methods that need to be told; else they estimate it.
    noise_ratio_source : "given" or "oracle"
        An oracle has seen the true labels; for comparisons.
    on_bad_image : "raise" or "flag"
        Whether an unreadable image is an error, or a row of the result marked ``is_image_issue``.

    Raises
    ------
    InputError, UnknownNameError
        If one of them cannot be.
    """

    model: str = DEFAULT_MODEL
    tuning: str = "auto"
    training: FinetuneSettings | None = None
    device: str = "auto"
    precision: Precision = "auto"
    batch_size: int = 64
    seed: int = 0
    cache_dir: Path | str | None = None
    n_folds: int = 10
    noise_ratio: float | None = None
    noise_ratio_source: NoiseRatioSource = "given"
    on_bad_image: OnBadImage = "raise"

    def __post_init__(self) -> None:
        if isinstance(self.precision, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            check_precision(self.precision)
        check_settings(self)
        check_tuning(self.tuning)
        if self.cache_dir is not None:
            check_cache_dir(self.cache_dir, "cache_dir")


def check_cache_dir(folder: Path | str, name: str) -> None:
    """Refuse a file where a folder is to be.

    Parameters
    ----------
    folder : path
    name : str
        Where it was said: a setting, or a variable of the environment.

    Raises
    ------
    InputError
    """
    path = Path(folder)
    try:
        is_folder = "\0" not in str(path) and next(each for each in (path, *path.parents) if each.exists()).is_dir()
    except OSError:  # a name that is too long
        is_folder = False
    if not is_folder:
        raise InputError(f"Expected {name} to be a folder, or a path where one can be made, but got {_shown(folder)}.")


def check_tuning(name: str) -> None:
    """Refuse a tuning that does not exist, before anything is computed.

    Raises
    ------
    UnknownNameError
    """
    if name not in TUNINGS:
        raise UnknownNameError(f"Unknown tuning {name!r}. {did_you_mean(name, TUNINGS)}")


def check_precision(name: str) -> None:
    """Refuse a number format that does not exist, before anything is computed.

    Raises
    ------
    UnknownNameError
    """
    if name not in get_args(Precision):
        raise UnknownNameError(f"Unknown precision {name!r}. {did_you_mean(name, get_args(Precision))}")


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse a value that is not among those of a Literal type.

    Parameters
    ----------
    name : str
        Of the setting.
    value : object
    choices : Literal type

    Raises
    ------
    InputError
    """
    if value not in get_args(choices):
        known = " or ".join(map(repr, get_args(choices)))
        raise InputError(f"Expected {name} to be {known}, but got {value!r}.")


def read_recipe(file: Path) -> FinetuneSettings:
    """Read settings from a JSON file; what it does not name keeps its default. Keys with "_" in front are notes.

    A recipe of a data set, with keys "data" and "training", has them under "training".

    Raises
    ------
    InputError
        If the file is not a JSON object, has another key, or a value that a setting cannot have.

    References
    ----------
    The paper's settings for its seven data sets are in ``benchmarks/recipes``.
    """
    content = read_json(file, what="a JSON object of training settings")
    settings = content.get("training", {}) if "data" in content else content
    if not isinstance(settings, dict):
        raise InputError(f"Expected 'training' in {file} to be a JSON object of training settings, but: {settings!r}.")
    items = {key: value for key, value in settings.items() if not key.startswith("_")}
    known = [field.name for field in fields(FinetuneSettings)]
    for key in items:
        if key not in known:
            raise InputError(f"Unknown training setting {key!r} in {file}. {did_you_mean(key, known)}")
    try:
        return FinetuneSettings(**items)
    except InputError as error:
        raise InputError(f"{error} Mend it in {file}.") from error


def read_json(file: Path, *, what: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Parameters
    ----------
    file : Path
    what : str
        What the file should be, for the error.

    Raises
    ------
    InputError
        If there is no such file, it cannot be read, or holds anything else.
    """
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"Expected {file} to be {what}, but {type(error).__name__}: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"Expected {file} to be {what}, but it holds {type(content).__name__}.")
    return content


_RANGES: Mapping[str, tuple[Any, str]] = {
    **dict.fromkeys(
        ("epochs", "batch_size", "checkpoint_steps", "n_ctx", "text_updates_per_epoch", "transition_steps"),
        (lambda value: value >= 1, "of at least 1"),
    ),
    **dict.fromkeys(
        (
            *("learning_rate", "encoder_learning_rate", "residual_learning_rate", "context_learning_rate"),
            *("weight_decay", "warmup_epochs", "transition_smoothing"),
        ),
        (lambda value: value >= 0, "of at least 0"),
    ),
    **dict.fromkeys(("max_grad_norm", "sharpening", "logit_scale"), (lambda value: value > 0, "above 0")),
    "momentum": (lambda value: 0 <= value < 1, "in [0, 1)"),
    "cone_sine": (lambda value: 0 < value <= 1, "in (0, 1]"),
    "seed": (lambda value: 0 <= value < 2**32, "in [0, 2**32)"),  # as scikit-learn's
    "n_folds": (lambda value: value >= 2, "of at least 2, to judge one by the others"),
    "noise_ratio": (lambda value: 0 <= value < 1, "in [0, 1), such as 0.4 for 40 %"),
}
"""What a number must be, by the name of its setting, and how that is said."""


def check_settings(settings: Any) -> None:
    """Refuse a setting of another type than its field has, or out of its range; numbers are kept as Python's own.

    Parameters
    ----------
    settings : dataclass
        In its ``__post_init__``.

    Raises
    ------
    InputError, UnknownNameError
        Names the setting, what it may be, and what came.
    """
    for name, kind in _kinds(type(settings)).items():
        given = getattr(settings, name)
        is_lost = isinstance(given, float) and not math.isfinite(given)
        value = given if is_lost and name in _RANGES else check_type(name, given, kind)
        if value is not None and name in _RANGES and (is_lost or not _RANGES[name][0](value)):
            raise InputError(f"Expected {name} {_RANGES[name][1]}, but got {value!r}.")
        object.__setattr__(settings, name, value)


@functools.cache
def _kinds(settings: type) -> dict[str, Any]:
    """Types of the fields of a dataclass by name."""
    hints = get_type_hints(settings)
    return {field.name: hints[field.name] for field in fields(settings)}


def check_type(name: str, value: Any, kind: Any) -> Any:
    """Give a value of a field's type, a number as Python's own; refuse any other.

    Parameters
    ----------
    name : str
        Of the field.
    value : object
    kind : type
        A class, a Literal, or a union of them; a path or a number may be any that Python knows.

    Raises
    ------
    InputError
        Names the field, what it may be, and what came.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    is_bool = isinstance(value, bool)  # Python's are whole numbers, too
    for each in kinds:
        if each is type(None) and value is None:
            return None
        if get_origin(each) is Literal and isinstance(value, str) and value in get_args(each):
            return value
        if each is int and not is_bool and isinstance(value, numbers.Integral) and abs(value) < 2**63:
            return operator.index(value)
        if each is float and not is_bool and isinstance(value, numbers.Real) and _is_finite(value):
            return float(value)
        if each is Path and isinstance(value, os.PathLike):
            return Path(value)
        if isinstance(each, type) and each not in (int, float, Path) and isinstance(value, each):
            return value
    expected = [_in_words(each) for each in kinds if each is not type(None)]
    expected += ["None"] if type(None) in kinds else []
    raise InputError(f"Expected {name} to be {' or '.join(expected)}, but got {_shown(value)}.")


def _is_finite(value: numbers.Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can be
        return False


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a string", Path: "a path"}
    return words.get(kind) or f"a {kind.__name__}"


def _shown(value: object) -> str:
    """Name a value in a message: short, and on one line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of an object that cannot say what it is
        text = object.__repr__(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
