"""Tunings of the encoder's own weights: all of them, or the biases alone (BitFit, Ben Zaken et al., ACL 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from deft_plugin.types import Backbone


class OwnWeights:
    """Weights of an image tower, trained in place.

    Parameters
    ----------
    backbone : Backbone
    biases_only : bool
    """

    optimizer: Literal["sgd", "adamw"] = "adamw"

    def __init__(self, backbone: Backbone, *, biases_only: bool) -> None:
        self.learning_rate = 1e-3 if biases_only else 2e-5
        self._parameters = {
            f"{name}.{kind}" if name else kind: parameter
            for name, module in used_modules(backbone.image_tower).items()
            for kind, parameter in module.named_parameters(recurse=False)
            if kind.endswith("bias") or not biases_only
        }
        self._before = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        for parameter in self._parameters.values():
            parameter.requires_grad_()

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return self._parameters

    def remove(self) -> None:
        """Leave the encoder as it was, to the last bit."""
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(self._before[name])
                parameter.requires_grad_(False).grad = None


def used_modules(tower: nn.Module) -> dict[str, nn.Module]:
    """Modules of an image tower by name, but for the classifier of a timm model, which features do not pass."""
    classifier = tower.get_classifier() if hasattr(tower, "get_classifier") else None  # pyright: ignore
    return {name: module for name, module in tower.named_modules() if module is not classifier}
