"""Settings of the tunings that train the image encoder, and recipes: JSON files with some of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeAlias

from deft_plugin.errors import InputError, did_you_mean

Protocol: TypeAlias = Literal["default", "faithful"]


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
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
    epochs, warmup_epochs : int
        In warm-up all examples are taken as clean.
    batch_size : int
        Of all processes together.
    learning_rate, momentum, weight_decay : float
        SGD on the contexts, and on the encoder for visual prompts. The schedule is a cosine, stepped per epoch.
    encoder_learning_rate : float, optional
        By default what the tuning says.
    max_grad_norm : float, optional
        Clip gradients to this norm.
    gradient_checkpointing : bool
        Less memory for the image encoder, for about a third more time.
    checkpoint_steps : int
        Steps between checkpoints; there is one at the end of each epoch anyway.
    """

    protocol: Protocol = "default"
    is_real_noise: bool = False
    n_ctx: int = 16
    epochs: int = 10
    warmup_epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    encoder_learning_rate: float | None = None
    max_grad_norm: float | None = None
    gradient_checkpointing: bool = False
    checkpoint_steps: int = 500

    def __post_init__(self) -> None:
        if self.protocol not in ("default", "faithful"):
            raise InputError(f"Expected protocol to be 'default' or 'faithful', but got {self.protocol!r}.")
        for name in ("n_ctx", "epochs", "batch_size", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"Expected {name} of at least 1, but got {getattr(self, name)}.")


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
