"""What selectors share is computed once, from a backbone that counts how often it is asked."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deft_plugin.errors import InputError
from deft_plugin.runs import features as features_module
from deft_plugin.runs.probe import LinearProbe
from deft_plugin.runs.run import Run
from deft_plugin.settings import RunSettings
from deft_plugin.types import Selection

SETTINGS = [field.name for field in dataclasses.fields(RunSettings)]
NAMES = ("dress", "t_shirt", "hat")
DIM = 16


class TextBackbone:
    feature_dim, logit_scale = DIM, 30.0

    def __init__(self, has_cone):
        self.has_cone = has_cone
        self.asked = []

    def encode_texts(self, texts):
        self.asked.append(list(texts))
        letters = torch.tensor([[text.count(letter) for letter in "abcdehiorstuxyz."] for text in texts])
        return F.normalize(letters.float(), dim=-1)


def normalised(array):
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float16)


def make_run(*, size=120, has_cone=False, dim=DIM, seed=0, **arguments):
    generator = np.random.default_rng(0)
    labels = np.arange(size) % len(NAMES)
    centres = generator.standard_normal((len(NAMES), dim))
    features = normalised(centres[labels] + generator.standard_normal((size, dim)) + 1)
    defaults = {
        "labels": labels,
        "class_names": NAMES,
        "backbone": TextBackbone(has_cone),
        "raw_features": features,
        "digests": generator.integers(0, 256, (size, 16), dtype=np.uint8),
    }
    settings = RunSettings(
        seed=seed, device="cpu", **{name: arguments.pop(name) for name in SETTINGS if name in arguments}
    )
    return Run(settings=settings, **{**defaults, **arguments})


class TestImageFeatures:
    def test_centred_without_a_cone(self):
        run = make_run(has_cone=False)
        raw = run.raw_features.astype(float)
        expected = normalised(raw - raw.mean(0))
        np.testing.assert_allclose(run.image_features, expected, atol=2e-3)

    def test_as_they_are_with_a_cone(self):
        run = make_run(has_cone=True)
        assert run.image_features is run.raw_features


class TestZeroShot:
    @pytest.mark.parametrize("has_cone", [True, False])
    def test_against_a_direct_computation(self, has_cone):
        run = make_run(has_cone=has_cone)
        texts = ["a photo of a dress.", "a photo of a t shirt.", "a photo of a hat."]
        text = TextBackbone(has_cone).encode_texts(texts).numpy()
        expected = 30 * run.image_features.astype(np.float32) @ text.T
        assert run.zero_shot_logits.dtype == np.float32
        np.testing.assert_allclose(run.zero_shot_logits, expected, rtol=1e-4, atol=1e-4)
        assert run.backbone.asked == [texts]

    def test_more_rows_than_a_piece(self):
        run = make_run(size=9000)
        text = run.backbone.encode_texts(["a photo of a dress.", "a photo of a t shirt.", "a photo of a hat."]).numpy()
        expected = 30 * run.image_features.astype(np.float32) @ text.T
        np.testing.assert_allclose(run.zero_shot_logits, expected, rtol=1e-4, atol=1e-4)


class TestOnce:
    def test_everything_is_computed_once(self, monkeypatch):
        calls = {"centre": 0, "fit": 0}
        centre, fit = features_module.centre_features, LinearProbe.fit

        def count_centre(*arguments):
            calls["centre"] += 1
            return centre(*arguments)

        def count_fit(probe, *arguments, **settings):
            calls["fit"] += 1
            return fit(probe, *arguments, **settings)

        monkeypatch.setattr(features_module, "centre_features", count_centre)
        monkeypatch.setattr(LinearProbe, "fit", count_fit)
        run = make_run()
        assert calls == {"centre": 0, "fit": 0}
        names = ["image_features", "zero_shot_logits", "folds", "pred_probs", "training_losses", "training_predictions"]
        names += ["training_margins", "training_pred_probs", "neighbours", "class_text_features", "first_twins"]
        first = [getattr(run, name) for name in names]
        assert calls == {"centre": 1, "fit": run.n_folds + 1}
        for name, value in zip(names, first, strict=True):
            assert getattr(run, name) is value
        assert calls == {"centre": 1, "fit": run.n_folds + 1}
        assert len(run.backbone.asked) == 1

    def test_only_what_is_asked_for(self, monkeypatch):
        monkeypatch.setattr(LinearProbe, "fit", lambda *_args, **_kwargs: pytest.fail("trains"))
        run = make_run()
        assert run.zero_shot_logits.shape == (120, 3)
        assert run.folds.shape == (120,)


class TestPredProbs:
    def test_are_probabilities(self):
        run = make_run()
        assert run.pred_probs.shape == (120, 3)
        np.testing.assert_allclose(run.pred_probs.sum(1), 1, rtol=1e-9)
        assert (run.pred_probs.argmax(1) == run.labels).mean() > 0.8

    def test_out_of_sample(self):
        """More dimensions than examples, labels at random: in sample they would all be predicted."""
        generator = np.random.default_rng(1)
        labels = generator.integers(0, 3, 300)
        random = normalised(generator.standard_normal((300, 1000)))
        run = make_run(size=300, dim=1000, labels=labels, raw_features=random)
        assert (run.training_predictions == labels).mean() > 0.9
        assert (run.pred_probs.argmax(1) == labels).mean() < 0.45

    def test_own_label_has_no_say(self):
        run = make_run()
        row = 4
        changed = run.labels.copy()
        changed[row] = (changed[row] + 1) % 3
        other = make_run(labels=changed)
        vars(other)["folds"] = run.folds
        other.of_labels["centre"] = run.centre  # the one thing that all labels have a say in
        same_fold = run.folds == run.folds[row]
        np.testing.assert_array_equal(run.pred_probs[same_fold], other.pred_probs[same_fold])
        assert (run.pred_probs[~same_fold] != other.pred_probs[~same_fold]).any()

    def test_given_ones_are_taken(self):
        given = np.full((120, 3), 1 / 3)
        assert make_run(given_pred_probs=given).pred_probs is given

    def test_tiny(self):
        run = make_run(size=8)
        assert np.isfinite(run.pred_probs).all()

    def test_fewer_examples_than_folds(self):
        run = make_run(size=3)
        assert np.isfinite(run.pred_probs).all()

    def test_seed(self):
        first, again, other = (make_run(seed=seed).pred_probs for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


class TestFolds:
    def test_identical_images_share_one(self):
        digests = np.random.default_rng(0).integers(0, 256, (120, 16), dtype=np.uint8)
        digests[60:] = digests[:60]
        folds = make_run(digests=digests).folds
        np.testing.assert_array_equal(folds[:60], folds[60:])
        assert np.bincount(folds).tolist() == [12] * 10

    def test_one_differing_byte_is_another_image(self):
        digests = np.zeros((120, 16), np.uint8)
        digests[:, 15] = np.arange(120)
        assert np.bincount(make_run(digests=digests).folds).tolist() == [12] * 10

    def test_without_digests(self):
        assert np.bincount(make_run(digests=None).folds).tolist() == [12] * 10

    def test_number(self):
        assert set(make_run(n_folds=3).folds.tolist()) == {0, 1, 2}


class TestTraining:
    def test_losses_and_predictions_are_of_one_training(self):
        run = make_run()
        assert run.training_losses.shape == (10, 120)
        assert run.training_predictions.shape == (120,)
        assert run.training_margins.shape == (10, 120)
        assert run.training_pred_probs.shape == (120, 3)
        given = run.training_pred_probs[np.arange(120), run.labels]
        np.testing.assert_allclose(run.training_losses[-1], -np.log(given), rtol=1e-6)
        np.testing.assert_array_equal(run.training_predictions, run.training_pred_probs.argmax(1))
        np.testing.assert_array_equal(run.training_margins[-1] > 0, run.training_predictions == run.labels)
        # A label is predicted where its loss is below log 2 at the latest.
        assert (run.training_predictions == run.labels)[run.training_losses[-1] < np.log(2)].all()
        assert (run.training_predictions != run.labels)[run.training_losses[-1] > np.log(3)].all()


class TestNeighbours:
    def test_are_of_the_image_features(self):
        run = make_run()
        features = run.image_features.astype(np.float64)
        similarities = features @ features.T
        np.fill_diagonal(similarities, -np.inf)
        assert run.neighbours.rows.shape == (120, 30)
        np.testing.assert_array_equal(run.neighbours.rows[:, 0], similarities.argmax(1))

    @pytest.mark.parametrize("has_cone", [True, False])
    def test_other_labels_share_them_unless_features_are_centred(self, has_cone):
        run = make_run(has_cone=has_cone)
        other = run.with_labels(run.labels[::-1].copy(), RunSettings(seed=1, device="cpu"))
        assert (other.neighbours is run.neighbours) is has_cone
        assert other.first_twins is not run.first_twins
        assert run.with_settings(seed=1).neighbours is run.neighbours


def test_other_images_share_nothing():
    """dataclasses.replace used to hand the cache on: groups and neighbours were those of the images before."""
    run = make_run()
    assert len(set(run.image_groups)) == 120
    twins = dataclasses.replace(run, digests=np.zeros_like(run.digests))
    assert set(twins.image_groups) == {0}
    assert twins.neighbours is not run.neighbours


def test_other_settings_share_what_is_of_the_images():
    run = make_run()
    other = run.with_settings(seed=7, noise_ratio=0.3)
    assert (other.seed, other.noise_ratio, run.seed, run.noise_ratio) == (7, 0.3, 0, None)
    assert other.neighbours is run.neighbours


@pytest.mark.parametrize("has_cone", [True, False])
def test_centred_features_are_centred(has_cone):
    run = make_run(has_cone=has_cone)
    raw = run.raw_features.astype(float)
    np.testing.assert_allclose(run.centred_features, normalised(raw - raw.mean(0)), atol=2e-3)
    assert (run.centred_features is run.image_features) is not has_cone


class TestTwins:
    @pytest.fixture
    def run(self):
        """Rows 1, 3 and 5 show one image, 5 with another label; 0 and 4 another one."""
        digests = np.zeros((6, 16), np.uint8)
        digests[:, 7] = [9, 4, 3, 4, 9, 4]
        return make_run(size=6, labels=np.array([1, 0, 0, 0, 1, 2]), digests=digests)

    def test_the_first_with_the_same_image_and_label(self, run):
        assert run.first_twins.tolist() == [0, 1, 2, 1, 0, 5]
        assert make_run(size=6, digests=None).first_twins.tolist() == [0, 1, 2, 3, 4, 5]

    def test_they_share_a_verdict(self, run):
        selection = Selection(
            is_clean=np.array([True, False, True, True, False, True]),
            label_quality=np.arange(6) / 10,
            predicted_labels=np.array([0, 1, 2, 0, 1, 2]),
            details={"kept": 1},
        )
        shared = run.share_verdicts(selection)
        assert shared.is_clean.tolist() == [True, False, True, False, True, True]
        assert shared.label_quality.tolist() == [0, 0.1, 0.2, 0.1, 0, 0.5]
        assert shared.predicted_labels.tolist() == [0, 1, 2, 1, 0, 2]
        assert shared.details == {"kept": 1}


class TestWithoutImages:
    @pytest.fixture
    def run(self):
        return Run(labels=np.array([0, 1, 2]), class_names=NAMES, given_pred_probs=np.eye(3))

    def test_pred_probs_are_enough(self, run):
        assert run.pred_probs is run.given_pred_probs
        assert run.num_classes == 3

    @pytest.mark.parametrize(
        "name",
        [
            *("image_features", "centred_features", "zero_shot_logits", "class_text_features", "neighbours"),
            *("training_losses", "training_margins", "training_pred_probs", "training_predictions", "require_images"),
        ],
    )
    def test_what_needs_images_says_so(self, run, name):
        with pytest.raises(InputError, match=r"run with images, but .* pred_probs alone.*'confident_learning'"):
            getattr(run, name)() if name == "require_images" else getattr(run, name)

    def test_nothing_at_all(self):
        with pytest.raises(InputError, match="run with images"):
            _ = Run(labels=np.array([0]), class_names=NAMES).pred_probs
