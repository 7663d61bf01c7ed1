"""Cells and data that several tests of benchmarks build on."""

from __future__ import annotations

import pytest
from deft_benchmarks.matrix.cells import Cell


@pytest.fixture(scope="session")
def make_cell():
    """Builder of a cell of a frozen run, without scores; any field can be given."""

    def build(selector="deft", *, noise="sym", ratio=0.4, **changes):
        fields = {
            "data": "CIFAR-100",
            "num_examples": 10,
            "num_classes": 2,
            "noise": noise,
            "noise_ratio": ratio,
            "actual_noise_ratio": ratio,
            "noise_details": {},
            "labels_hash": "0" * 64,
            "seed": 0,
            "model": "bridge-lite0",
            "tuning": "frozen",
            "device": "cpu",
            "dtype": "bfloat16",
            "selector": selector,
            "consumes": [],
            "is_told_noise_ratio": selector == "small_loss",
            "variant_of": None,
            "metrics": {},
            "per_class": None,
            "details": {},
            "seconds": 1.0,
            "order": [],
            "peak_memory_mb": 1.0,
            "encoder_passes": 0,
            "versions": {"python": "3.11.7", "torch": "2.9"},
            "machine": "a processor, 2 cores",
            "git_commit": "abc123",
        }
        return Cell(**{**fields, **changes})

    return build


@pytest.fixture
def clean_folder(colour_maker, tmp_path):
    """150 images with their true labels: 50 of each class, and a folder's rows are by class."""
    colours = colour_maker(num_examples=150, noise_ratio=0.0)
    for row, (image, label) in enumerate(zip(colours.images, colours.labels, strict=True)):
        folder = tmp_path / "photos" / colours.names[label]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{row:03d}.png")
    return tmp_path / "photos"
