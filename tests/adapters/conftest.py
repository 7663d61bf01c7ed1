"""Runs over made-up features for the selectors."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from deft_plugin import Run
from deft_plugin.settings import RunSettings

NAMES = ("ant", "bee", "cat", "dog")


class Texts:
    """A backbone with given text features."""

    name = fingerprint = "texts"

    def __init__(self, features, *, has_cone):
        self.features, self.has_cone, self.logit_scale = features, has_cone, 10.0

    def encode_texts(self, texts):
        return torch.from_numpy(self.features[: len(texts)])


def unit_rows(array):
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def make_run(*, size=150, num_classes=4, dim=10, noise_ratio=0.3, spread=1.5, has_cone=False, seed=0, **parts):
    """A run over clusters of features; `is_wrong` of its images are the labels that were put in.

    Labels may be given as `labels`; then nothing is wrong but what they make so.
    """
    rng = np.random.default_rng(5)
    truth = rng.permutation(np.arange(size) % num_classes)
    centres = rng.standard_normal((num_classes, dim))
    features = unit_rows(2 * centres[truth] + spread * rng.standard_normal((size, dim))).astype(np.float16)
    texts = unit_rows(centres + rng.standard_normal((num_classes, dim))).astype(np.float32)
    is_wrong = rng.random(size) < noise_ratio
    labels = np.where(is_wrong, (truth + rng.integers(1, num_classes, size)) % num_classes, truth)
    names = tuple(f"{NAMES[k % 4]} {k}" for k in range(num_classes))
    backbone = Texts(texts, has_cone=has_cone)
    return Run(
        **{
            "labels": labels,
            "class_names": names,
            "backbone": backbone,
            "raw_features": features,
            "settings": RunSettings(seed=seed, device="cpu"),
            **parts,
        }
    ), types.SimpleNamespace(is_wrong=is_wrong, truth=truth)


@pytest.fixture(scope="session")
def feature_run():
    """Builder of a run, and of what is known of it: ``run, known = feature_run(size=150, ...)``."""
    return make_run
