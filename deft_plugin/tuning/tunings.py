"""How the image encoder is adapted: each tuning puts trainable parameters into it, and can take them out again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from deft_plugin.settings import FROZEN

if TYPE_CHECKING:
    from torch import nn

    from deft_plugin.types import Backbone


class EncoderTuning(Protocol):
    """Trainable parameters inside the image tower of a backbone.

    Attributes
    ----------
    optimizer : "sgd" or "adamw"
    learning_rate : float
        What suits these parameters.
    """

    optimizer: Literal["sgd", "adamw"]
    learning_rate: float

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Trainable parameters by name, float32."""
        ...

    def remove(self) -> None:
        """Leave the encoder as it was, to the last bit."""
        ...


def _visual_prompts(backbone: Backbone, seed: int, *, deep: bool) -> EncoderTuning:
    from deft_plugin.tuning.visual_prompts import VisualPrompts

    return VisualPrompts(backbone, deep=deep, seed=seed)


def _low_rank(backbone: Backbone, seed: int) -> EncoderTuning:
    from deft_plugin.tuning.low_rank import LowRank

    return LowRank(backbone, seed=seed)


def _own_weights(backbone: Backbone, *, biases_only: bool) -> EncoderTuning:
    from deft_plugin.tuning.weights import OwnWeights

    return OwnWeights(backbone, biases_only=biases_only)


ENCODER_TUNINGS: dict[str, Callable[[Backbone, int], EncoderTuning]] = {
    "vpt_deep": lambda backbone, seed: _visual_prompts(backbone, seed, deep=True),
    "vpt_shallow": lambda backbone, seed: _visual_prompts(backbone, seed, deep=False),
    "lora": _low_rank,
    "bitfit": lambda backbone, _seed: _own_weights(backbone, biases_only=True),
    "full": lambda backbone, _seed: _own_weights(backbone, biases_only=False),
}
"""Tunings that train the encoder itself; `FROZEN` learns on its features."""


@contextmanager
def tuned(backbone: Backbone, name: str, seed: int) -> Generator[EncoderTuning]:
    """Put a tuning into the image encoder, and leave the encoder as it was.

    Parameters
    ----------
    backbone : Backbone
    name : str
        Of `ENCODER_TUNINGS`.
    seed : int
        The tuning's parameters start from it.
    """
    tuning = ENCODER_TUNINGS[name](backbone, seed)
    try:
        yield tuning
    finally:
        tuning.remove()


def pick_tuning(name: str, backbone: Backbone, device: str) -> str:
    """Resolve "auto": frozen on a CPU; on a GPU the paper's deep visual prompts, or LoRA where there is no ViT.

    Parameters
    ----------
    name : str
        One of `deft_plugin.settings.TUNINGS`.
    backbone : Backbone
    device : str
    """
    if name != "auto":
        return name
    if device.startswith("cpu"):
        return FROZEN
    from deft_plugin.backbones.vision_towers import promptable_tower

    return "lora" if promptable_tower(backbone) is None else "vpt_deep"
