"""Registers noise models, the demo's data set, and the commands ``deft demo`` and ``deft bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deft_plugin import hookimpl

if TYPE_CHECKING:
    import click

    from deft_plugin.plugins import Register
    from deft_plugin.types import DatasetLoader, NoiseModel, NoiseModelLoader


def _load_symmetric() -> NoiseModel:
    from deft_benchmarks.noise import symmetric

    return symmetric


def _load_asymmetric() -> NoiseModel:
    from deft_benchmarks.noise import asymmetric

    return asymmetric


def _load_clothing_demo() -> Any:
    from deft_benchmarks.demo_data import load_clothing_demo

    return load_clothing_demo()


@hookimpl
def register_noise_models(register: Register[NoiseModelLoader]) -> None:
    """Register the built-in noise models."""
    register("symmetric", _load_symmetric, summary="redrawn uniformly over all classes, the true one included")
    register("asymmetric", _load_asymmetric, summary="each class turns into the next one")


@hookimpl
def register_datasets(register: Register[DatasetLoader]) -> None:
    """Register the demo's photos."""
    register("clothing_demo", _load_clothing_demo, summary="1,400 CC0 photos of clothes in 10 classes")


@hookimpl
def register_commands(app: click.Group) -> None:
    """Add ``deft demo`` and ``deft bench``."""
    from deft_benchmarks.commands import bench, demo

    app.add_command(demo)
    app.add_command(bench)
