"""The selector end to end, on synthetic features with a text tower of a few lines."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deft_plugin.deft.frozen import FrozenTuning, Scores
from deft_plugin.deft.selector import Deft
from deft_plugin.errors import InputError, UnknownNameError
from deft_plugin.runs.run import Run
from deft_plugin.settings import FinetuneSettings, FrozenSettings, RunSettings
from deft_plugin.types import Selection

SETTINGS = [field.name for field in dataclasses.fields(RunSettings)]
NAMES = ("dress", "hat", "shirt", "shoes")
DIM, SIZE = 32, 400


class Tokens:
    def __init__(self, class_names):
        self.classes = [NAMES.index(name) for name in class_names]
        self.num_classes = self.num_tokens = len(self.classes)


class TinyBackbone:
    name, fingerprint = "tiny", "0"
    context_dim, context_std, logit_scale, has_cone = 8, 0.1, 20.0, False

    def __init__(self, centres):
        generator = torch.Generator().manual_seed(0)
        self._texts = F.normalize(torch.tensor(centres, dtype=torch.float32), dim=-1)
        self._turn = torch.randn(self.context_dim, DIM, generator=generator)

    def tokenize_prompts(self, class_names, n_ctx):
        return Tokens(class_names)

    def encode_prompts(self, tokens, context):
        with torch.autocast("cpu", enabled=False):
            return F.normalize(self._texts[tokens.classes] + 0.1 * context.mean(0) @ self._turn, dim=-1)


@pytest.fixture(scope="module")
def truth():
    return np.arange(SIZE) % len(NAMES)


@pytest.fixture(scope="module")
def is_wrong():
    return np.random.default_rng(1).random(SIZE) < 0.3


@pytest.fixture(scope="module")
def make_run(truth, is_wrong):
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((len(NAMES), DIM)) / math.sqrt(DIM)
    features = centres[truth] + 0.8 * generator.standard_normal((SIZE, DIM)) / math.sqrt(DIM)
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16)
    labels = np.where(is_wrong, (truth + generator.integers(1, len(NAMES), SIZE)) % len(NAMES), truth)

    def make(**arguments):
        defaults = {
            "labels": labels,
            "class_names": NAMES,
            "backbone": TinyBackbone(centres),
            "raw_features": features,
        }
        settings = RunSettings(device="cpu", **{name: arguments.pop(name) for name in SETTINGS if name in arguments})
        return Run(settings=settings, **{**defaults, **arguments})

    return make


@pytest.fixture(scope="module")
def selection(make_run):
    return Deft().select(make_run())


def test_finds_wrong_labels(selection, is_wrong, truth):
    assert isinstance(selection, Selection)
    assert selection.is_clean.shape == (SIZE,)
    flagged = ~selection.is_clean
    f1 = 2 * (flagged & is_wrong).sum() / (flagged.sum() + is_wrong.sum())
    assert f1 > 0.93
    assert (selection.predicted_labels == truth).mean() > 0.95


def test_label_quality_is_p_clean(selection, is_wrong):
    quality = selection.label_quality
    assert quality.dtype == np.float64
    assert ((quality >= 0) & (quality <= 1)).all()
    np.testing.assert_array_equal(selection.is_clean, quality > 0.5)
    assert np.median(quality[is_wrong]) < 0.1 < 0.9 < np.median(quality[~is_wrong])


def test_arrays_are_plain_numpy(selection):
    assert selection.is_clean.dtype == bool
    assert selection.predicted_labels.dtype == np.int64


def test_details_are_json(selection, is_wrong):
    details = json.loads(json.dumps(selection.details))
    assert details["tuning"] == "frozen"
    assert details["estimated_noise_ratio"] == pytest.approx(is_wrong.mean(), abs=0.05)
    assert details["estimated_noise_ratio"] == pytest.approx(1 - selection.label_quality.mean())
    of_class = details["estimated_noise_ratio_of_class"]
    assert list(of_class) == list(NAMES)
    assert all(ratio == pytest.approx(0.3, abs=0.12) for ratio in of_class.values())


def test_reproducible(make_run, selection):
    again, other = Deft().select(make_run()), Deft().select(make_run(seed=1))
    np.testing.assert_array_equal(again.label_quality, selection.label_quality)
    assert (other.label_quality != selection.label_quality).any()


def test_the_run_is_not_changed(make_run):
    run = make_run()
    labels, features = run.labels.copy(), run.raw_features.copy()
    Deft().select(run)
    np.testing.assert_array_equal(run.labels, labels)
    np.testing.assert_array_equal(run.raw_features, features)


def test_settings_and_listener(make_run):
    events = []
    Deft(frozen=FrozenSettings(epochs=3, n_ctx=2)).select(make_run(epoch_end=events.append))
    assert [(event.epoch, event.num_epochs) for event in events] == [(1, 3), (2, 3), (3, 3)]


def test_default_settings():
    assert Deft().frozen == FrozenSettings()


def test_a_tie_is_an_issue(make_run, monkeypatch):
    margins = torch.zeros(SIZE)
    margins[0] = torch.nextafter(torch.tensor(0.0), torch.tensor(1.0))
    scores = Scores(
        margins=margins,
        posterior=torch.full((SIZE,), 0.5),
        predicted_labels=torch.zeros(SIZE, dtype=torch.int64),
        transition=torch.eye(4),
        text=torch.zeros(2, 4, DIM),
        settings=FrozenSettings(),
    )
    monkeypatch.setattr(FrozenTuning, "fit", lambda *_: scores)
    selection = Deft().select(make_run())
    assert selection.is_clean.sum() == 1
    assert selection.is_clean[0]
    np.testing.assert_array_equal(selection.label_quality > 0.5, selection.is_clean)


@pytest.mark.parametrize("tuning", ["auto", "frozen"])
def test_tuning(make_run, tuning):
    assert Deft(frozen=FrozenSettings(epochs=1)).select(make_run(tuning=tuning)).details["tuning"] == "frozen"


@pytest.mark.parametrize("tuning", ["frozn", "Frozen"])
def test_unknown_tuning(make_run, tuning):
    with pytest.raises(
        UnknownNameError,
        match=rf"Unknown tuning '{tuning}'. Did you mean 'frozen'\? Known: auto, bitfit, frozen, full, lora, ",
    ):
        Deft().select(make_run(tuning=tuning))


def test_without_images():
    run = Run(labels=np.arange(4), class_names=NAMES, given_pred_probs=np.eye(4))
    with pytest.raises(InputError, match="run with images"):
        Deft().select(run)


def test_the_faithful_protocol_wants_a_cone(make_run):
    deft = Deft(finetune=FinetuneSettings(protocol="faithful"))
    with pytest.raises(InputError, match="Expected a CLIP for protocol='faithful', but 'tiny' has centred features"):
        deft.select(make_run(tuning="lora", images=list(range(SIZE))))


def test_features_alone_do_not_train_an_encoder(make_run):
    with pytest.raises(InputError, match="Expected a run with images to train their encoder by 'lora'"):
        Deft().select(make_run(tuning="lora"))


def test_what_was_trained_is_kept(make_run):
    deft = Deft(frozen=FrozenSettings(epochs=2))
    assert deft.trained is None
    deft.select(make_run())
    assert deft.trained.tuning == "frozen"
    assert deft.trained.text.shape == (2, 4, DIM)


@pytest.mark.parametrize("sizes", [(300, 3), (300, 10), (300, 30), (200, 4, 4, 4)])
def test_right_labels_of_a_large_class_are_kept(sizes):
    """Centred on the mean of the data, which is that of the large class, half of its images pointed anywhere."""
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    centres = generator.standard_normal((len(NAMES), DIM)) / math.sqrt(DIM)
    features = 1 / math.sqrt(DIM) + centres[truth] + 0.5 * generator.standard_normal((len(truth), DIM)) / math.sqrt(DIM)
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16)
    run = Run(
        labels=truth,
        class_names=NAMES[: len(sizes)],
        backbone=TinyBackbone(centres),
        raw_features=features,
        settings=RunSettings(device="cpu"),
    )
    deft = Deft()
    kept = deft.select(run).is_clean
    assert min(kept[truth == label].mean() for label in range(len(sizes))) >= 0.95
    # What is saved judges from the same centre.
    assert torch.equal(deft.trained.centre, torch.from_numpy(run.centre))
