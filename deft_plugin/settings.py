"""All settings, each with its default, its check and what it means; and recipes, JSON files with some of them.

A setting has one home: a field here. `deft_plugin.detect` has keywords for those of a run, and the command line an
option (`deft_plugin.options`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

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
        _check_positive(self, "epochs", "batch_size", "checkpoint_steps")
        check_choice("schedule", self.schedule, Schedule)


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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("protocol", self.protocol, Protocol)
        _check_positive(self, "n_ctx")


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
        _check_positive(self, "n_ctx", "epochs", "text_updates_per_epoch", "transition_steps")


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
    seed : int
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
        check_tuning(self.tuning)
        check_precision(self.precision)
        check_choice("on_bad_image", self.on_bad_image, OnBadImage)
        check_choice("noise_ratio_source", self.noise_ratio_source, NoiseRatioSource)
        _check_positive(self, "batch_size")
        if self.n_folds < 2:
            raise InputError(f"Expected n_folds of at least 2, to judge one by the others, but got {self.n_folds}.")
        if self.noise_ratio is not None and not 0 <= self.noise_ratio < 1:
            raise InputError(f"Expected noise_ratio in [0, 1), such as 0.4 for 40 %, but got {self.noise_ratio}.")


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


def _check_positive(settings: object, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise InputError(f"Expected {name} of at least 1, but got {getattr(settings, name)}.")


def read_recipe(file: Path) -> FinetuneSettings:
    """Read settings from a JSON file; what it does not name keeps its default. Keys with "_" in front are notes.

    A recipe of a data set, with keys "data" and "training", has them under "training".

    Raises
    ------
    InputError
        If the file is not a JSON object, or has another key.

    References
    ----------
    The paper's settings for its seven data sets are in ``benchmarks/recipes``.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        settings = content.get("training", {}) if "data" in content else content
        items = {key: value for key, value in settings.items() if not key.startswith("_")}
    except (ValueError, AttributeError) as error:
        raise InputError(f"Expected {file} to be a JSON object of training settings, but: {error}.") from error
    known = [field.name for field in fields(FinetuneSettings)]
    for key in items:
        if key not in known:
            raise InputError(f"Unknown training setting {key!r} in {file}. {did_you_mean(key, known)}")
    return FinetuneSettings(**items)
