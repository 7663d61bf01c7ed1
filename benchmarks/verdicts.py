"""Verdicts of every method on fixed data, to see that a change of the code has changed none of them.

Write them before and after the change, on one machine, and compare; equal means equal to the bit::

    python benchmarks/verdicts.py write before.npz --clothing ../shared/data/clothing_small/train.parquet
    python benchmarks/verdicts.py write after.npz --clothing ../shared/data/clothing_small/train.parquet
    python benchmarks/verdicts.py compare before.npz after.npz
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

import deft_plugin
from deft_plugin.plugins import Plugins, load_plugins

DEMO_SELECTORS = ("deft", "label_match", "small_loss", "gmm", "confident_learning")
NEEDS_CLIP = ("deft_faithful",)
SETTINGS: dict[str, Any] = {"device": "cpu", "precision": "float32"}


@click.group()
def main() -> None:
    """Write verdicts, or compare two files of them."""


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--clothing", type=click.Path(exists=True, path_type=Path), help="Parquet of the clothing photos.")
@click.option("--seeds", default=5, show_default=True, help="Of the demo.")
def write(file: Path, clothing: Path | None, seeds: int) -> None:
    """Write label_quality, masks and predicted labels of all methods into FILE (.npz)."""
    plugins = load_plugins()
    found: dict[str, np.ndarray] = {}
    for name, detection in _all(plugins, clothing, seeds):
        click.echo(f"{name:<40} {detection}")
        found[f"{name} label_quality"] = detection.label_quality
        found[f"{name} is_label_issue"] = detection.is_label_issue
        found[f"{name} predicted_labels"] = detection.predicted_labels
    np.savez_compressed(file, allow_pickle=False, **found)


@main.command()
@click.argument("before", type=click.Path(exists=True, path_type=Path))
@click.argument("after", type=click.Path(exists=True, path_type=Path))
def compare(before: Path, after: Path) -> None:
    """Compare two files to the bit; exit status 1 if they differ."""
    with np.load(before) as one, np.load(after) as other:
        names = sorted({*one.files, *other.files})
        different = [name for name in names if not _same(one, other, name)]
    for name in different:
        click.echo(f"differs: {name}")
    click.echo(f"{len(names) - len(different)} of {len(names)} arrays are equal to the bit")
    sys.exit(bool(different))


def _same(one: Any, other: Any, name: str) -> bool:
    return name in one.files and name in other.files and np.array_equal(one[name], other[name])


def _all(plugins: Plugins, clothing: Path | None, seeds: int) -> Iterator[tuple[str, deft_plugin.Detection]]:
    demo = plugins.datasets.load("clothing_demo")
    for seed in range(seeds):
        for method in DEMO_SELECTORS:
            yield f"demo seed {seed} {method}", _detect(demo, plugins, method, seed=seed)
    if clothing is not None:
        import datasets

        photos = datasets.Dataset.from_parquet(str(clothing))
        for entry in plugins.selectors:
            if entry.name not in NEEDS_CLIP:
                yield f"clothing {entry.name}", _detect(photos, plugins, entry.name, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        yield from _tuned(plugins, demo.select(range(96)), Path(folder))


def _tuned(plugins: Plugins, photos: Any, folder: Path) -> Iterator[tuple[str, deft_plugin.Detection]]:
    """Tunings that train the encoder of a small random CLIP."""
    _write_random_clip(folder)
    training = deft_plugin.FinetuneSettings(epochs=3, batch_size=16, n_ctx=4)
    settings = {"model": str(folder), "training": training, "cache_dir": folder / "cache"}
    for tuning in ("vpt_deep", "lora"):
        yield f"tiny {tuning}", _detect(photos, plugins, "deft", seed=0, tuning=tuning, **settings)
    settings["training"] = deft_plugin.FinetuneSettings(protocol="faithful", epochs=3, batch_size=16, n_ctx=4)
    yield "tiny faithful", _detect(photos, plugins, "deft", seed=0, tuning="vpt_deep", **settings)
    for method in NEEDS_CLIP:
        yield f"tiny {method}", _detect(photos.select(range(32)), plugins, method, seed=0, **settings)


def _detect(photos: Any, plugins: Plugins, method: str, *, seed: int, **settings: Any) -> deft_plugin.Detection:
    """Judge photos with 40 % symmetric noise."""
    truth, names = np.array(photos["label"]), photos.features["label"].names
    given = plugins.noise_models.load("sym")(truth, num_classes=len(names), noise_ratio=0.4, seed=seed)
    images = photos.remove_columns("label").add_column("label", given.tolist()).cast_column("label", _classes(names))
    return deft_plugin.detect(images, method=method, noise_ratio=0.4, seed=seed, **{**SETTINGS, **settings})


def _classes(names: list[str]) -> Any:
    import datasets

    return datasets.ClassLabel(names=names)


def _write_random_clip(folder: Path) -> None:
    """Make an open_clip folder with a ViT of two blocks at 32 pixels."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    weights = open_clip.CLIP(**config).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))


if __name__ == "__main__":
    main()
