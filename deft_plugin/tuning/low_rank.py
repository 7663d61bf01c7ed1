"""LoRA (Hu et al., ICLR 2022) through peft: attention of ViTs, linear layers and convolutions of other towers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from deft_plugin.errors import InputError
from deft_plugin.tuning.weights import used_modules

if TYPE_CHECKING:
    from deft_plugin.types import Backbone

RANK = 8
ADAPTER = "default"


class LowRank:
    """Low-rank updates beside the weights of an image tower.

    In a tower with ``nn.MultiheadAttention`` (open_clip's ViTs) these are adapted, else all linear layers and all
    convolutions that are not depthwise.

    Parameters
    ----------
    backbone : Backbone
    seed : int
    rank : int
    """

    learning_rate = 1e-3
    optimizer: Literal["sgd", "adamw"] = "adamw"

    def __init__(self, backbone: Backbone, *, seed: int, rank: int = RANK) -> None:
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
        from peft.tuners.lora.layer import MultiheadAttention as AdaptedAttention

        self._tower = backbone.image_tower
        targets = target_modules(self._tower)
        self._weights = {name: parameter.detach().clone() for name, parameter in self._of(targets).items()}
        pattern = "|".join(map(re.escape, targets))  # peft matches a string as a whole, but the end of a list's items
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=pattern, lora_dropout=0.0, bias="none")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model: Any = LoraModel(self._tower, {ADAPTER: config}, ADAPTER)
        self._tower.eval()  # peft leaves it in training mode where a layer is new
        self._hooks = [
            module.register_forward_pre_hook(lambda *call, name=name: self._restore(call[0], name))
            for name, module in self._tower.named_modules()
            if isinstance(module, AdaptedAttention)
        ]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {name: parameter for name, parameter in self._tower.named_parameters() if "lora_" in name}

    def remove(self) -> None:
        """Leave the encoder as it was, to the last bit."""
        for hook in self._hooks:
            hook.remove()
        self._model.unload()
        self._restore(self._tower)
        self._tower.requires_grad_(False)

    @torch.no_grad()
    def _restore(self, module: nn.Module, name: str = "") -> None:
        """Undo what peft rounds: at each pass it adds the update to the weights of attention and takes it off again.

        Without this the frozen weights drift with the number of passes, and a run that was killed and goes on, which
        starts from the weights of the file, ends elsewhere.
        """
        for place, parameter in module.named_parameters(prefix=name):
            if (saved := self._weights.get(place.replace(".base_layer.", "."))) is not None:
                parameter.copy_(saved)

    def _of(self, targets: list[str]) -> dict[str, nn.Parameter]:
        prefixes = tuple(f"{target}." for target in targets)
        return {name: value for name, value in self._tower.named_parameters() if name.startswith(prefixes)}


def target_modules(tower: nn.Module) -> list[str]:
    """Names of the modules that get a low-rank update.

    Raises
    ------
    InputError
        If there is none.
    """
    modules = used_modules(tower)
    attention = [name for name, module in modules.items() if isinstance(module, nn.MultiheadAttention)]
    others = [name for name, module in modules.items() if _is_dense(module)]
    if not (targets := attention or others):
        raise InputError(
            f"Expected attention, linear layers or convolutions for LoRA, but {type(tower).__name__} has none. "
            "Use another tuning, such as 'full'."
        )
    return targets


def _is_dense(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
