"""What every selector must do: find wrong colours, say what it goes by, and stand odd data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import deft_plugin
from deft_plugin import Run
from deft_plugin.plugins import load_plugins
from deft_plugin.settings import RunSettings

SELECTORS = (
    *("label_match", "small_loss", "small_loss_batch", "gmm", "confident_learning"),
    *("aum", "knn_vote", "clipcleaner", "lemon", "jsd_uniform", "prototype_gmm", "matched_high_confidence"),
    "longremix",
)
TOLD = {"small_loss", "small_loss_batch"}
READ = {  # by the name of what a run computes
    "image_features": "features",
    "centred_features": "features",
    "class_text_features": "texts",
    "zero_shot_logits": "zero_shot_logits",
    "neighbours": "neighbours",
    "training_losses": "training_losses",
    "training_margins": "training_losses",
    "training_pred_probs": "training_pred_probs",
    "pred_probs": "pred_probs",
}

every_selector = pytest.mark.parametrize("name", SELECTORS)


@pytest.fixture(scope="module")
def registry():
    return load_plugins().selectors


def check(selection, run):
    """Shapes, types and ranges; details that JSON can hold."""
    size = len(run.labels)
    assert selection.is_clean.shape == selection.label_quality.shape == selection.predicted_labels.shape == (size,)
    assert selection.is_clean.dtype == bool
    assert selection.predicted_labels.dtype.kind == "i"
    assert ((selection.label_quality >= 0) & (selection.label_quality <= 1)).all()
    assert ((selection.predicted_labels >= 0) & (selection.predicted_labels < run.num_classes)).all()
    json.dumps(selection.details, allow_nan=False)


def colour_run(colours, backbone, *, noise_ratio=None, **parts):
    features = np.concatenate([backbone.encode_images(backbone.preprocess(image)[None]) for image in colours.images])
    return Run(
        **{
            "labels": colours.labels,
            "class_names": colours.names,
            "backbone": backbone,
            "raw_features": features.astype(np.float16),
            "settings": RunSettings(noise_ratio=noise_ratio, device="cpu"),
            **parts,
        }
    )


def test_they_are_all_here(registry):
    """But for the variants of DeFT, which have a file of their own."""
    found = [entry for entry in registry if entry.plugin == "adapters"]
    assert {entry.name for entry in found if entry.traits.variant_of is None} == set(SELECTORS)


@every_selector
class TestColours:
    def test_wrong_labels_rank_low(self, registry, colour_maker, fake_backbone, name):
        colours = colour_maker(num_examples=240, num_classes=4, noise_ratio=0.3)
        run = colour_run(colours, fake_backbone(), noise_ratio=0.3)
        selection = registry.load(name).select(run)
        check(selection, run)
        assert roc_auc_score(~colours.is_wrong, selection.label_quality) > 0.95
        assert (selection.predicted_labels == colours.truth).mean() > 0.9
        assert selection.is_clean[~colours.is_wrong].mean() > 2 * selection.is_clean[colours.is_wrong].mean()

    def test_through_the_public_function(self, fake_model, colours, name):
        detection = deft_plugin.detect(
            colours.images, colours.labels, class_names=colours.names, model="fake", method=name
        )
        assert roc_auc_score(~colours.is_wrong, detection.label_quality) > 0.95
        assert detection.is_label_issue[colours.is_wrong].mean() > 0.75

    def test_the_same_seed_gives_the_same(self, registry, feature_run, name):
        first, again = (registry.load(name).select(feature_run(seed=3)[0]) for _ in range(2))
        np.testing.assert_array_equal(first.label_quality, again.label_quality)
        np.testing.assert_array_equal(first.is_clean, again.is_clean)
        assert first.details == again.details


@every_selector
class TestWhatItGoesBy:
    def test_it_says_so(self, registry, name):
        traits = registry.get(name).traits
        assert len(traits.consumes) > 0
        assert traits.is_told_noise_ratio is (name in TOLD)
        assert traits.needs_images is (name != "confident_learning")

    def test_it_reads_nothing_else(self, registry, feature_run, name):
        """Nothing but what it consumes is in a run's cache afterwards, and what that is made of."""
        run, _ = feature_run(noise_ratio=0.3)
        consumes = set(registry.get(name).traits.consumes)
        registry.load(name).select(run)
        made_of = {
            "zero_shot_logits": {"features", "texts"},
            "neighbours": {"features"},
            "training_losses": {"features", "training_pred_probs"},  # the predicted label, if nothing else
            "training_pred_probs": {"features"},
            "pred_probs": {"features"},
        }
        allowed = consumes.union(*(made_of.get(what, set()) for what in consumes))
        computed = {READ[key] for key in {**vars(run), **run.of_images, **run.of_labels} if key in READ}
        assert computed <= allowed
        assert consumes - {"images"} <= computed

    def test_the_ratio_that_it_is_told(self, registry, feature_run, name):
        """A selector that is not told gives the same verdicts whatever the run knows."""
        run, _ = feature_run()
        told = run.with_settings(noise_ratio=0.9)
        verdicts = [registry.load(name).select(of).is_clean for of in (run, told)]
        assert (verdicts[0] == verdicts[1]).all() == (name not in TOLD)


# cleanlab's own function keeps a number of each class, and may tell identical rows apart.
@pytest.mark.parametrize("name", sorted({*SELECTORS} - {"confident_learning"}))
class TestTwins:
    def test_identical_rows_share_a_verdict(self, registry, feature_run, name):
        """Each image three times; one of the three with another label, and some neighbours with a tie."""
        run, _ = feature_run(size=60, noise_ratio=0.2, spread=2.5)
        rows = np.tile(np.arange(60), 3)
        labels = run.labels[rows]
        labels[:60:7] = (labels[:60:7] + 1) % 4
        digests = np.zeros((180, 16), np.uint8)
        digests[:, 0] = rows
        twins = Run(
            labels=labels,
            class_names=run.class_names,
            backbone=run.backbone,
            raw_features=run.raw_features[rows],
            digests=digests,
            settings=RunSettings(noise_ratio=0.37, device="cpu"),
        )
        selection = registry.load(name).select(twins)
        assert len(set(zip(rows, labels, strict=True))) == 69
        for row, label in set(zip(rows, labels, strict=True)):
            same = (rows == row) & (labels == label)
            assert len(set(selection.is_clean[same])) == 1
            np.testing.assert_allclose(selection.label_quality[same], selection.label_quality[same][0], atol=1e-5)


@every_selector
class TestOddData:
    @pytest.mark.parametrize("num_classes", [2, 7])
    def test_numbers_of_classes(self, registry, feature_run, name, num_classes):
        run, known = feature_run(num_classes=num_classes, noise_ratio=0.2, spread=0.8)
        selection = registry.load(name).select(run)
        check(selection, run)
        if name != "label_match":
            assert roc_auc_score(~known.is_wrong, selection.label_quality) > 0.85

    @pytest.mark.filterwarnings("ignore:May not flag all label issues in class")  # cleanlab's
    def test_an_empty_class_and_one_example_in_a_class(self, registry, feature_run, name):
        run, _ = feature_run()
        labels = np.where(run.labels == 2, 0, run.labels)  # class 2 is empty
        alone = np.flatnonzero(labels == 3)[0]
        labels[(labels == 3) & (np.arange(150) != alone)] = 1  # class 3 has one example
        odd = run.with_labels(labels, RunSettings(noise_ratio=0.2, device="cpu"))
        odd.__dict__["pred_probs"] = odd.pred_probs * 0.97 + 0.0075
        selection = registry.load(name).select(odd)
        check(selection, odd)

    def test_all_labels_right(self, registry, feature_run, name):
        run, _ = feature_run(noise_ratio=0.0, spread=0.5)
        selection = registry.load(name).select(run)
        check(selection, run)
        assert (selection.predicted_labels == run.labels).mean() > 0.8

    @pytest.mark.parametrize("size", [4, 9])
    @pytest.mark.filterwarnings("ignore:May not flag all label issues in class")
    def test_few_examples(self, registry, feature_run, name, size):
        run, _ = feature_run(size=size, num_classes=2, noise_ratio=0.0)
        check(registry.load(name).select(run), run)

    def test_images_that_all_look_the_same(self, registry, feature_run, name):
        """Features without a difference (of images that differ): no verdict is right, but there is one."""
        run, _ = feature_run(raw_features=np.full((150, 10), 10**-0.5, np.float16), has_cone=True)
        check(registry.load(name).select(run), run)
