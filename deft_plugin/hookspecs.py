"""The hooks that a plugin may implement.

A plugin is a module (or any object) under the entry-point group ``deft_plugin`` with functions marked by
``deft_plugin.hookimpl``. Register *loaders*, not objects: a loader imports torch when its name is used, so that
``deft --help`` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from deft_plugin.registry import Register
    from deft_plugin.types import (
        BackboneLoader,
        DatasetLoader,
        EpochEnd,
        NoiseModelLoader,
        NoiseTraits,
        SelectorLoader,
        SelectorTraits,
    )

hookspec = pluggy.HookspecMarker("deft_plugin")
hookimpl = pluggy.HookimplMarker("deft_plugin")


@hookspec
def register_selectors(register: Register[SelectorLoader, SelectorTraits]) -> None:
    """Register selectors: ``register("small_loss", load, summary="...")``, where ``load()`` gives a Selector.

    What it needs and goes by is said here, so that it need not be loaded to know it:
    ``traits=SelectorTraits(needs_images=False, consumes=("pred_probs",))``.
    """


@hookspec
def register_backbones(register: Register[BackboneLoader, None]) -> None:
    """Register vision-language models: ``register(name, load, summary="...")``, where ``load(name)`` gives one.

    With ``accepts`` an entry stands for a family of names: ``load`` gets the name that the user typed.
    """


@hookspec
def register_datasets(register: Register[DatasetLoader, None]) -> None:
    """Register data sets for comparisons: ``load()`` gives anything that ``deft_plugin.detect`` takes."""


@hookspec
def register_noise_models(register: Register[NoiseModelLoader, NoiseTraits]) -> None:
    """Register generators of label noise: ``register(name, load, summary="...")``, where ``load()`` gives a NoiseModel.

    One that reads the images says so here: ``traits=NoiseTraits(needs_pixels=True)``.
    """


@hookspec
def register_commands(app: click.Group) -> None:
    """Add commands to the ``deft`` command line."""


@hookspec
def deft_epoch_end(event: EpochEnd) -> None:
    """Be told that a training epoch of the detector has ended."""
