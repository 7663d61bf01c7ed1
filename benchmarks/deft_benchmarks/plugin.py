"""Registers noise models, the demo's data set, and the commands ``deft demo`` and ``deft bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deft_plugin import hookimpl
from deft_plugin.types import NoiseTraits

if TYPE_CHECKING:
    import click

    from deft_plugin.plugins import Register
    from deft_plugin.types import DatasetLoader, NoiseModel, NoiseModelLoader


def _load_symmetric() -> NoiseModel:
    from deft_benchmarks.noise.labels import symmetric

    return symmetric


def _load_symmetric_others() -> NoiseModel:
    from deft_benchmarks.noise.labels import symmetric_others

    return symmetric_others


def _load_instance_dependent() -> NoiseModel:
    from deft_benchmarks.noise.instance import InstanceDependent

    return InstanceDependent()


def _load_instance_dependent_shared() -> NoiseModel:
    from deft_benchmarks.noise.instance import InstanceDependent

    return InstanceDependent(shares_matrix=True)


def _load_asymmetric() -> NoiseModel:
    from deft_benchmarks.noise.labels import asymmetric

    return asymmetric


def _load_clothing_demo() -> Any:
    from deft_benchmarks.demo_data import load_clothing_demo

    return load_clothing_demo()


@hookimpl
def register_noise_models(register: Register[NoiseModelLoader, NoiseTraits]) -> None:
    """Register the built-in noise models."""
    register("sym", _load_symmetric, summary="redrawn uniformly over all classes, the true one included")
    register("sym_others", _load_symmetric_others, summary="redrawn uniformly over the other classes")
    register("asym", _load_asymmetric, summary="each class turns into the next one (pair flip)")
    register(
        "idn",
        _load_instance_dependent,
        summary="depends on the image (Xia et al. 2020), raw pixels",
        traits=NoiseTraits(needs_pixels=True),
    )
    register(
        "idn_shared",
        _load_instance_dependent_shared,
        summary="the same with one matrix for all classes",
        traits=NoiseTraits(needs_pixels=True),
    )


@hookimpl
def register_datasets(register: Register[DatasetLoader, None]) -> None:
    """Register the demo's photos."""
    register("clothing_demo", _load_clothing_demo, summary="1,400 CC0 photos of clothes in 10 classes")


@hookimpl
def register_commands(app: click.Group) -> None:
    """Add ``deft demo`` and ``deft bench``."""
    from deft_benchmarks.commands.bench import bench
    from deft_benchmarks.commands.demo import demo

    app.add_command(demo)
    app.add_command(bench)
