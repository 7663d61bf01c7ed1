"""Selectors in one block, with the fake model of conftest.py."""

from __future__ import annotations

import numpy as np
import pytest
from deft_benchmarks.matrix.blocks import DataBench
from deft_benchmarks.matrix.metrics import detection_metrics
from deft_benchmarks.matrix.recipes import Recipe
from deft_benchmarks.matrix.settings import MatrixSettings, Noise
from deft_benchmarks.noise.labels import symmetric
from deft_benchmarks.speed import memory

from deft_plugin import FinetuneSettings, Selection
from deft_plugin.errors import DeftError, InputError, UnknownNameError
from deft_plugin.plugins import load_plugins
from deft_plugin.settings import RunSettings
from deft_plugin.training.batches import epoch_batches

SELECTORS = ("deft", "label_match", "small_loss", "gmm", "confident_learning")
TRUTH = np.repeat(np.arange(3), 50)


@pytest.fixture
def run(fake_model, clean_folder):
    """Judge one block; gives the bench, and what was judged by the name of the selector."""

    def go(selectors=SELECTORS, *, noise="sym:0.3", seed=1, training=None, progress=None, **settings):
        recipe = Recipe(name="colours", files=str(clean_folder), training=training)
        noise = Noise.parse(noise)
        chosen = RunSettings(**{"model": "fake", "device": "cpu", **settings})
        matrix = MatrixSettings(selectors=selectors, noises=[noise], seeds=[seed], run=chosen)
        bench = DataBench(recipe, matrix, load_plugins(), **(progress or {}))
        return bench, {each.cell.selector: each for each in bench.judge(bench.block(noise, seed), selectors)}

    return go


@pytest.fixture
def judged(run):
    return run()[1]


def test_all_selectors_see_the_same_labels(judged):
    expected = symmetric(TRUTH, num_classes=3, noise_ratio=0.3, seed=1)
    assert tuple(judged) == SELECTORS
    for each in judged.values():
        np.testing.assert_array_equal(each.detection.given_labels, expected)
        assert each.detection.label_column is None, "no column of the data holds these labels"


def test_they_share_features_and_one_training_run(run, install, make_plugin, fake_model):
    seen = []

    class Looks:
        def select(self, run):
            seen.append((id(run), id(run.image_features), id(run.training_losses)))
            n = len(run.labels)
            return Selection(is_clean=np.ones(n, bool), label_quality=np.ones(n), predicted_labels=run.labels)

    def register_selectors(register):
        register("first", Looks)
        register("second", Looks)

    install(looks=make_plugin(register_selectors=register_selectors))
    run(("first", "small_loss", "second"))
    assert seen[0] == seen[1]
    assert len(fake_model) == 1
    assert sum(fake_model[0].encoded_batches) == 150


def test_metrics_are_those_of_the_verdicts(judged):
    for each in judged.values():
        kept = ~each.detection.is_label_issue
        right = each.detection.given_labels == TRUTH
        expected = vars(detection_metrics(kept, each.detection.label_quality, right))
        assert {name: each.cell.metrics[name] for name in expected} == expected
        assert each.cell.metrics["clean_precision"] == pytest.approx(right[kept].mean())
    assert judged["deft"].cell.metrics["clean_f1"] > 0.9
    assert judged["deft"].cell.metrics["auroc"] > 0.95


def test_small_loss_is_marked_as_told(judged):
    actual = (judged["deft"].detection.given_labels != TRUTH).mean()
    assert {each.cell.actual_noise_ratio for each in judged.values()} == {actual}
    assert [name for name, each in judged.items() if each.cell.is_told_noise_ratio] == ["small_loss"]
    details = judged["small_loss"].cell.details
    assert (details["noise_ratio_used"], details["noise_ratio_source"]) == (pytest.approx(actual), "oracle")
    assert judged["small_loss"].detection.is_label_issue.sum() == round(actual * 150)


def test_no_noise(run):
    _, judged = run(("label_match", "small_loss"), noise="sym:0")
    cell = judged["small_loss"].cell
    assert (cell.noise_ratio, cell.actual_noise_ratio) == (0, 0)
    names = ("clean_precision", "clean_recall", "auroc", "noise_recall")
    assert [cell.metrics[name] for name in names] == [1, 1, None, None]


def test_pair_flips(run):
    _, judged = run(("label_match",), noise="asym:0.4")
    assert judged["label_match"].cell.metrics["clean_f1"] > 0.98
    assert judged["label_match"].cell.actual_noise_ratio > 0.2


def test_a_noise_model_of_a_plugin(run, install, make_plugin):
    def shift(labels, *, num_classes, noise_ratio, seed):
        return np.where(np.arange(len(labels)) < noise_ratio * len(labels), (labels + 1) % num_classes, labels)

    install(shift=make_plugin(register_noise_models=lambda register: register("shift", lambda: shift)))
    _, judged = run(("label_match",), noise="shift:0.2")
    given = judged["label_match"].detection.given_labels
    np.testing.assert_array_equal(np.flatnonzero(given != TRUTH), np.arange(30))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"noise": "smy:0.4"}, "Unknown noise model 'smy'. Did you mean 'sym'"),
        ({"selectors": ("deft", "gm")}, "Unknown selector 'gm'. Did you mean 'gmm'"),
    ],
)
def test_unknown_names(run, fake_model, settings, words):
    with pytest.raises(UnknownNameError, match=words):
        run(**settings)
    assert fake_model == []  # before any image is read


@pytest.mark.parametrize(
    ("noise", "words"), [("sym:-0.1", "noise_ratio"), ("sym:1", "noise_ratio"), ("human", "Expected human labels in")]
)
def test_noise_that_cannot_be_put_in(run, fake_model, noise, words):
    with pytest.raises(InputError, match=words):
        run(noise=noise)
    assert fake_model == []


def test_progress(run):
    features, epochs = [], []
    progress = {"feature_progress": lambda *counts: features.append(counts), "epoch_end": epochs.append}
    run(("deft",), progress=progress)
    assert features[-1] == (150, 150)
    assert [event.epoch for event in epochs] == list(range(1, epochs[0].num_epochs + 1))


def test_seconds_of_features_are_there_until_they_are_cached(run):
    assert run(("label_match",))[0].feature_seconds > 0
    assert run(("label_match",))[0].feature_seconds == 0


def test_what_a_selector_fails_with_is_kept(run, install, make_plugin):
    class Broken:
        def select(self, run):
            raise RuntimeError("out of luck")

    install(broken=make_plugin(register_selectors=lambda register: register("broken", Broken)))
    _, judged = run(("broken", "label_match"))
    with pytest.raises(DeftError, match=r"Selector 'broken' failed with RuntimeError: out of luck"):
        judged["broken"].require_detection()
    assert judged["label_match"].require_detection() is judged["label_match"].detection


def test_a_system_that_does_not_tell_its_memory(run, monkeypatch):
    def held_bytes(*_, **__):
        raise FileNotFoundError("/proc/self/clear_refs")

    monkeypatch.setattr(memory, "held_bytes", held_bytes)
    _, judged = run(("label_match",))
    assert judged["label_match"].cell.peak_memory_mb is None


def test_faithful_verdicts_have_the_batch_means_beside_them(run, install, make_plugin, tiny_backbone):
    def register_backbones(register):
        register("clip", lambda _name: tiny_backbone(), summary="small and random")

    install(clip=make_plugin(register_backbones=register_backbones))
    training = FinetuneSettings(protocol="faithful", epochs=1, batch_size=50)
    _, judged = run(("deft", "label_match"), seed=0, training=training, model="clip", tuning="vpt_deep")
    kept = ~judged["deft"].detection.is_label_issue
    right = judged["deft"].detection.given_labels == TRUTH
    batches = [rows.numpy() for rows in epoch_batches(150, 50, seed=0, epoch=1)]
    scores = [(right[rows] & kept[rows]).sum() / right[rows].sum() for rows in batches]
    assert judged["deft"].cell.metrics["batch_mean_clean_recall"] == pytest.approx(np.mean(scores))
    assert "batch_mean_clean_recall" not in judged["label_match"].cell.metrics


@pytest.mark.slow
def test_deft_beats_the_others_in_the_demo(tmp_path):
    """Seeds 0-1 of `deft demo`: the clean F1 of DeFT is the best, on average."""
    noise = Noise(mode="sym", ratio=0.4)
    settings = RunSettings(cache_dir=tmp_path)
    matrix = MatrixSettings(selectors=SELECTORS, noises=[noise], seeds=[0, 1], run=settings)
    bench = DataBench(Recipe(name="clothing_demo", registered="clothing_demo"), matrix, load_plugins())
    cells = [each.cell for seed in (0, 1) for each in bench.judge(bench.block(noise, seed), SELECTORS)]
    clean_f1 = {
        name: np.mean([cell.metrics["clean_f1"] for cell in cells if cell.selector == name]) for name in SELECTORS
    }
    of_deft = clean_f1.pop("deft")
    assert of_deft >= clean_f1.pop("small_loss")  # which is told the true noise ratio
    assert all(of_deft > score for score in clean_f1.values()), (of_deft, clean_f1)
