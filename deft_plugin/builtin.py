"""The detector and the backbones that come with the package, registered through the public hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deft_plugin.backbones.open_clip_sources import is_open_clip_name
from deft_plugin.hookspecs import hookimpl
from deft_plugin.types import SelectorTraits

if TYPE_CHECKING:
    from deft_plugin.registry import Register
    from deft_plugin.types import Backbone, BackboneLoader, Selector, SelectorLoader


def _load_deft() -> Selector:
    from deft_plugin.deft.selector import Deft

    return Deft()


def _load_bridge(name: str) -> Backbone:
    from deft_plugin.backbones.bridge import load_bridge

    return load_bridge(name)


def _load_open_clip(name: str) -> Backbone:
    from deft_plugin.backbones.open_clip import load_open_clip

    return load_open_clip(name)


@hookimpl
def register_selectors(register: Register[SelectorLoader, SelectorTraits]) -> None:
    """Register DeFT."""
    register(
        "deft",
        _load_deft,
        summary="positive and negative text prompts (Wei et al., NeurIPS 2024)",
        traits=SelectorTraits(consumes=("images", "features", "texts")),
    )


@hookimpl
def register_backbones(register: Register[BackboneLoader, None]) -> None:
    """Register the embedded model and open_clip's models."""
    register(
        "bridge-lite0",
        _load_bridge,
        summary="embedded: EfficientNet-Lite0 and MiniLM, joined by ImageNet names",
    )
    register(
        "open_clip",
        _load_open_clip,
        summary='"architecture/pretrained", such as "ViT-B-16/openai", or a local folder',
        accepts=is_open_clip_name,
    )
