"""Visual prompt tuning: learned tokens beside the patches of a vision transformer (Jia et al., ECCV 2022)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from deft_plugin.backbones.vision_towers import promptable_tower
from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from deft_plugin.types import Backbone

N_TOKENS = 20


class VisualPrompts:
    """Learned tokens, put into an open_clip ViT.

    Parameters
    ----------
    backbone : Backbone
        With an image tower of open_clip's VisionTransformer.
    deep : bool
        Tokens of its own for each block, which replace those of the block before; else for the first block only.
    seed : int
    n_tokens : int

    Raises
    ------
    InputError
        If the image tower is another one.
    """

    learning_rate = 0.03
    optimizer: Literal["sgd", "adamw"] = "sgd"

    def __init__(self, backbone: Backbone, *, deep: bool, seed: int, n_tokens: int = N_TOKENS) -> None:
        tower = promptable_tower(backbone)
        if tower is None:
            raise InputError(
                f"Expected a vision transformer of open_clip for visual prompts, but {backbone.name!r} has a "
                f"{type(backbone.image_tower).__name__}. Use tuning='lora', which fits any image tower."
            )
        # As in Jia et al.: uniform within ±sqrt(6 / (3 · patch² + width)).
        bound = math.sqrt(6 / (3 * math.prod(tower.patch_size) + tower.width))
        shape = (tower.num_blocks if deep else 1, n_tokens, tower.width)
        start = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 * bound - bound
        device = next(backbone.image_tower.parameters()).device
        self._tower = tower
        self._tokens = nn.Parameter(start.to(device))
        tower.tokens = self._tokens

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {"visual_tokens": self._tokens}

    def remove(self) -> None:
        """Leave the encoder as it was."""
        self._tower.tokens = None
