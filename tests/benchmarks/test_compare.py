"""Selectors compared on one run, with the fake model of conftest.py."""

from __future__ import annotations

import functools
import json
import os

import datasets
import numpy as np
import pytest
from deft_benchmarks.compare import DEFAULT_SELECTORS, ORACLE_NOTE, compare
from deft_benchmarks.matrix.metrics import detection_metrics
from deft_benchmarks.noise.labels import symmetric

from deft_plugin import FinetuneSettings, Selection
from deft_plugin.errors import InputError, UnknownNameError
from deft_plugin.plugins import load_plugins
from deft_plugin.training.batches import epoch_batches

METRICS = (
    "clean_precision",
    "clean_recall",
    "clean_f1",
    "noise_precision",
    "noise_recall",
    "noise_f1",
    "auroc",
    "auprc",
)


BATCH_MEANS = ("batch_mean_clean_precision", "batch_mean_clean_recall")


@pytest.fixture
def clean(colour_maker):
    return colour_maker(num_examples=150, noise_ratio=0.0)


def hf(colours, **columns):
    names = datasets.ClassLabel(names=list(colours.names))
    return datasets.Dataset.from_dict(
        {"image": colours.images, "label": colours.truth, **columns},
        features=datasets.Features(
            {"image": datasets.Image(), "label": names, **{name: datasets.Value("int64") for name in columns}}
        ),
    )


@pytest.fixture
def run(fake_model):
    """Call `compare` with the fake model and all installed plugins."""
    return lambda data, **settings: compare(data, data_name="colours", plugins=load_plugins(), model="fake", **settings)


@pytest.fixture
def comparison(run, clean):
    return run(hf(clean), noise_ratio=0.3, seed=1)


def test_all_selectors_see_the_same_labels(comparison, clean):
    expected = symmetric(clean.truth, num_classes=3, noise_ratio=0.3, seed=1)
    assert tuple(comparison.detections) == DEFAULT_SELECTORS
    for detection in comparison.detections.values():
        np.testing.assert_array_equal(detection.given_labels, expected)
    np.testing.assert_array_equal(comparison.data.labels, clean.truth)


def test_they_share_features_and_one_training_run(run, clean, install, make_plugin, fake_model):
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
    run(hf(clean), selectors=("first", "small_loss", "second"))
    assert seen[0] == seen[1]
    assert len(fake_model) == 1
    assert sum(fake_model[0].encoded_batches) == 150


def test_metrics_are_those_of_the_verdicts(comparison, clean):
    given = symmetric(clean.truth, num_classes=3, noise_ratio=0.3, seed=1)
    for selector in comparison.result.selectors:
        detection = comparison.detections[selector.name]
        expected = detection_metrics(~detection.is_label_issue, detection.label_quality, given == clean.truth)
        assert selector.metrics == expected
        kept = ~detection.is_label_issue
        assert selector.metrics.clean_precision == pytest.approx((given == clean.truth)[kept].mean())
    by_name = {selector.name: selector.metrics for selector in comparison.result.selectors}
    assert by_name["deft"].clean_f1 > 0.9
    assert by_name["deft"].auroc > 0.95


def test_small_loss_is_marked_as_told(comparison, clean):
    actual = (comparison.detections["deft"].given_labels != clean.truth).mean()
    assert comparison.result.actual_noise_ratio == pytest.approx(actual)
    notes = {selector.name: selector.note for selector in comparison.result.selectors}
    assert notes == {**dict.fromkeys(DEFAULT_SELECTORS, ""), "small_loss": ORACLE_NOTE}
    (told,) = [selector for selector in comparison.result.selectors if selector.name == "small_loss"]
    assert (told.noise_ratio_used, told.noise_ratio_source) == (pytest.approx(actual), "oracle")
    assert comparison.detections["small_loss"].is_label_issue.sum() == round(actual * 150)


def test_json_has_the_keys_of_the_issue(comparison):
    found = json.loads(json.dumps(comparison.result.to_json_dict(), allow_nan=False))
    asked = {"data", "num_examples", "num_classes", "noise_mode", "noise_ratio", "model", "seed", "seconds"}
    assert set(found) == {*asked, "selectors", "actual_noise_ratio", "feature_seconds"}
    assert (found["data"], found["num_examples"], found["num_classes"]) == ("colours", 150, 3)
    assert (found["noise_mode"], found["noise_ratio"], found["model"], found["seed"]) == ("sym", 0.3, "fake", 1)
    assert [selector["name"] for selector in found["selectors"]] == list(DEFAULT_SELECTORS)
    for selector in found["selectors"]:
        extra = {"note", "noise_ratio_used", "noise_ratio_source", *BATCH_MEANS}
        assert set(selector) == {"name", *METRICS, "seconds", *extra}
        assert all(0 <= selector[metric] <= 1 for metric in METRICS)
    assert found["seconds"] >= sum(selector["seconds"] for selector in found["selectors"])


def test_no_noise(run, clean):
    comparison = run(hf(clean), noise_ratio=0.0, selectors=("label_match", "small_loss"))
    assert comparison.result.actual_noise_ratio == 0
    metrics = comparison.result.selectors[1].metrics
    assert (metrics.clean_precision, metrics.clean_recall, metrics.auroc, metrics.noise_recall) == (1, 1, None, None)
    assert comparison.result.to_json_dict()["noise_ratio"] == 0


def test_a_folder_and_pairs_can_be_compared(run, clean, tmp_path):
    expected = run(hf(clean), selectors=("label_match",)).result.actual_noise_ratio
    pairs = list(zip(clean.images, clean.truth.tolist(), strict=True))
    assert run(pairs, selectors=("label_match",)).result.actual_noise_ratio == expected
    for row, (image, label) in enumerate(pairs):
        os.makedirs(tmp_path / clean.names[label], exist_ok=True)
        image.save(tmp_path / clean.names[label] / f"{row}.png")
    result = run(tmp_path, selectors=("label_match",), noise_mode="asym").result
    assert result.selectors[0].metrics.clean_f1 > 0.98
    assert result.actual_noise_ratio > 0.2


def test_a_noise_model_of_a_plugin(run, clean, install, make_plugin):
    def shift(labels, *, num_classes, noise_ratio, seed):
        return np.where(np.arange(len(labels)) < noise_ratio * len(labels), (labels + 1) % num_classes, labels)

    install(shift=make_plugin(register_noise_models=lambda register: register("shift", lambda: shift)))
    comparison = run(hf(clean), noise_mode="shift", noise_ratio=0.2, selectors=("label_match",))
    detection = comparison.detections["label_match"]
    np.testing.assert_array_equal(np.flatnonzero(detection.given_labels != clean.truth), np.arange(30))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"noise_mode": "smy"}, "Unknown noise model 'smy'. Did you mean 'sym'"),
        ({"selectors": ("deft", "gm")}, "Unknown selector 'gm'. Did you mean 'gmm'"),
    ],
)
def test_unknown_names(run, clean, fake_model, settings, words):
    with pytest.raises(UnknownNameError, match=words):
        run(hf(clean), **settings)
    assert fake_model == []  # before any image is read


@pytest.mark.parametrize("noise_ratio", [-0.1, 1.0])
def test_noise_ratio_out_of_range(run, clean, noise_ratio):
    with pytest.raises(InputError, match="noise_ratio"):
        run(hf(clean), noise_ratio=noise_ratio)


def test_progress(run, clean):
    features, epochs = [], []
    run(
        hf(clean),
        selectors=("deft",),
        feature_progress=lambda done, total: features.append((done, total)),
        epoch_end=epochs.append,
    )
    assert features[-1] == (150, 150)
    assert [event.epoch for event in epochs] == list(range(1, epochs[0].num_epochs + 1))


@pytest.mark.slow
def test_deft_beats_the_others_in_the_demo(tmp_path):
    """Seeds 0-1 of `deft demo`: the clean F1 of DeFT is the best, on average."""
    plugins = load_plugins()
    data = plugins.datasets.get("clothing_demo").loader()
    demo = functools.partial(compare, data, data_name="clothing_demo", plugins=plugins)
    results = [demo(seed=seed, cache_dir=tmp_path).result for seed in (0, 1)]
    clean_f1 = {
        name: np.mean([result.selectors[position].metrics.clean_f1 for result in results])
        for position, name in enumerate(DEFAULT_SELECTORS)
    }
    of_deft = clean_f1.pop("deft")
    assert of_deft >= clean_f1.pop("small_loss")  # which is told the true noise ratio
    assert all(of_deft > score for score in clean_f1.values()), (of_deft, clean_f1)


def test_faithful_verdicts_have_the_batch_means_beside_them(run, clean, install, make_plugin, tiny_backbone):
    def register_backbones(register):
        register("clip", lambda _name: tiny_backbone(), summary="small and random")

    install(clip=make_plugin(register_backbones=register_backbones))
    training = FinetuneSettings(protocol="faithful", epochs=1, batch_size=50)
    found = compare(
        hf(clean),
        data_name="x",
        plugins=load_plugins(),
        model="clip",
        tuning="vpt_deep",
        training=training,
        selectors=("deft", "label_match"),
        device="cpu",
        noise_ratio=0.3,
    )
    deft, other = found.result.selectors
    kept = ~found.detections["deft"].is_label_issue
    right = found.detections["deft"].given_labels == clean.truth
    batches = [rows.numpy() for rows in epoch_batches(150, 50, seed=0, epoch=1)]
    scores = [(right[rows] & kept[rows]).sum() / right[rows].sum() for rows in batches]
    assert deft.batch_mean_clean_recall == pytest.approx(np.mean(scores))
    assert "means over mini-batches" in deft.note
    assert other.batch_mean_clean_recall is None
    assert "mini-batches" not in other.note
