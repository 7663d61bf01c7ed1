"""Each compared selector against a reference of its own, on runs whose losses and probabilities are known."""

from __future__ import annotations

import numpy as np
import pytest
from cleanlab.count import num_label_issues
from cleanlab.filter import find_label_issues
from deft_adapters.selectors.confident_learning import ConfidentLearning
from deft_adapters.selectors.gmm import Gmm
from deft_adapters.selectors.label_match import LabelMatch
from deft_adapters.selectors.small_loss import SmallLoss
from deft_adapters.selectors.training_loss import example_losses, loss_quality
from sklearn.mixture import GaussianMixture

from deft_plugin import Run, load_plugins
from deft_plugin.settings import RunSettings

N, K, EPOCHS = 200, 4, 5


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def make_run(rng):
    """A run whose expensive parts are put in by hand; they are cached properties."""
    truth = rng.integers(K, size=N)
    is_wrong = rng.random(N) < 0.3
    labels = np.where(is_wrong, (truth + rng.integers(1, K, N)) % K, truth)
    parts = {
        "zero_shot_logits": (2 * np.eye(K)[truth] + rng.normal(size=(N, K))).astype(np.float32),
        "training_losses": np.where(is_wrong, 2.5, 0.4) + rng.normal(0, 0.15, (EPOCHS, N)),
        "training_predictions": truth,
        "pred_probs": softmax(3 * np.eye(K)[truth] + rng.normal(size=(N, K))),
    }

    def make(*, settings=None, digests=None, **changes):
        run = Run(
            labels=labels, class_names=("a", "b", "c", "d"), digests=digests, settings=RunSettings(**(settings or {}))
        )
        run.__dict__.update({**parts, **changes})
        return run

    return make


class TestLabelMatch:
    def test_against_numpy(self, make_run):
        run = make_run()
        selection = LabelMatch().select(run)
        predicted = np.argmax(run.zero_shot_logits, axis=1)
        np.testing.assert_array_equal(selection.predicted_labels, predicted)
        np.testing.assert_array_equal(selection.is_clean, predicted == run.labels)
        expected = softmax(run.zero_shot_logits.astype(float))[np.arange(N), run.labels]
        np.testing.assert_allclose(selection.label_quality, expected)
        assert 0 < selection.is_clean.sum() < N

    def test_logits_come_from_the_models_texts(self, colours, fake_backbone):
        """Zero-shot by hand: "a photo of a {}.", dot products, centred features."""
        backbone = fake_backbone()
        features = np.concatenate([backbone.encode_images(backbone.preprocess(i)[None]) for i in colours.images])
        names = ("red", "green", "sea_weed")
        run = Run(labels=colours.labels, class_names=names, backbone=backbone, raw_features=features.astype(np.float16))
        texts = backbone.encode_texts(["a photo of a red.", "a photo of a green.", "a photo of a sea weed."]).numpy()
        centred = features - np.mean([features[colours.labels == label].mean(0) for label in range(3)], axis=0)
        similarity = centred / np.linalg.norm(centred, axis=1, keepdims=True) @ texts.T
        np.testing.assert_allclose(run.zero_shot_logits, backbone.logit_scale * similarity, atol=0.05)
        np.testing.assert_array_equal(LabelMatch().select(run).is_clean, similarity.argmax(1) == colours.labels)


class TestTrainingLosses:
    def test_mean_over_the_epochs(self, make_run):
        losses = np.array([[1.0, 2.0], [3.0, 6.0]])
        np.testing.assert_array_equal(example_losses(make_run(training_losses=losses)), [2.0, 4.0])

    def test_quality_falls_with_the_loss(self):
        quality = loss_quality(np.array([0.0, np.log(2), 1e4]))
        np.testing.assert_allclose(quality, [1, 0.5, 0])

    def test_losses_are_of_the_given_label_and_fall(self, colours, fake_backbone):
        backbone = fake_backbone()
        features = np.concatenate([backbone.encode_images(backbone.preprocess(i)[None]) for i in colours.images])
        run = Run(labels=colours.labels, class_names=colours.names, backbone=backbone, raw_features=features)
        assert run.training_losses.shape[1] == 120
        assert run.training_losses[-1].mean() < run.training_losses[0].mean()
        losses = example_losses(run)
        assert losses[colours.is_wrong].mean() > 2 * losses[~colours.is_wrong].mean()


class TestSmallLoss:
    @pytest.mark.parametrize("source", ["given", "oracle"])
    @pytest.mark.parametrize("noise_ratio", [0.0, 0.1, 0.3, 0.4975, 0.99])
    def test_keeps_the_smallest(self, make_run, noise_ratio, source):
        run = make_run(settings={"noise_ratio": noise_ratio, "noise_ratio_source": source})
        selection = SmallLoss().select(run)
        mean = run.training_losses.mean(0)
        expected = np.zeros(N, bool)
        expected[np.argsort(mean, kind="stable")[: N - round(noise_ratio * N)]] = True
        np.testing.assert_array_equal(selection.is_clean, expected)
        assert selection.is_clean.sum() == N - round(noise_ratio * N)
        assert selection.details == {"noise_ratio_used": noise_ratio, "noise_ratio_source": source}
        np.testing.assert_allclose(selection.label_quality, np.exp(-mean))
        np.testing.assert_array_equal(selection.predicted_labels, run.training_predictions)

    def test_the_ratio_is_estimated_if_nobody_tells(self, make_run):
        run = make_run()
        selection = SmallLoss().select(run)
        issues = num_label_issues(labels=run.labels, pred_probs=run.pred_probs)
        assert 0.2 < issues / N < 0.4
        assert selection.details == {"noise_ratio_used": issues / N, "noise_ratio_source": "estimated"}
        assert (~selection.is_clean).sum() == issues

    def test_equal_losses(self, make_run):
        run = make_run(training_losses=np.ones((EPOCHS, N)), settings={"noise_ratio": 0.25})
        assert SmallLoss().select(run).is_clean.sum() == 150

    def test_identical_rows_at_the_threshold_are_not_split(self, make_run):
        """Ten rows of one image with one label, of which the noise ratio leaves five: the first one decides."""
        losses = np.tile(np.arange(N) / N, (EPOCHS, 1))
        losses[:, 90:100] = losses[0, 95]
        digests = np.zeros((N, 16), np.uint8)
        digests[:, 0] = np.arange(N)
        digests[90:100, 0] = 90
        run = make_run(training_losses=losses, settings={"noise_ratio": 0.525}, digests=digests)
        run.labels[90:100] = 1
        assert SmallLoss().select(run).is_clean.tolist() == [True] * 100 + [False] * 100
        run.labels[90] = 2
        assert SmallLoss().select(run).is_clean.sum() == 100


class TestGmm:
    def test_against_scikit_learn(self, make_run):
        run = make_run()
        mean = run.training_losses.mean(0)
        normalised = (mean - mean.min()) / (mean.max() - mean.min())
        mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0)
        mixture.fit(normalised[:, None])
        expected = mixture.predict_proba(normalised[:, None])[:, mixture.means_[:, 0].argmin()]
        selection = Gmm().select(run)
        np.testing.assert_allclose(selection.label_quality, expected)
        np.testing.assert_array_equal(selection.is_clean, expected > 0.5)
        np.testing.assert_array_equal(selection.predicted_labels, run.training_predictions)
        # The losses are 2.5 and 0.4: clean is where they are small.
        np.testing.assert_array_equal(selection.is_clean, mean < 1.4)

    def test_clean_is_more_than_half(self, make_run, rng):
        """Components that overlap, so that posteriors lie between."""
        selection = Gmm().select(make_run(training_losses=rng.gamma(2.0, size=(1, N))))
        assert ((selection.label_quality > 0.5) & (selection.label_quality < 0.9)).any()
        np.testing.assert_array_equal(selection.is_clean, selection.label_quality > 0.5)

    @pytest.mark.parametrize("seed", range(5))
    def test_the_clean_component_is_that_of_the_smaller_mean(self, make_run, seed):
        run = make_run(settings={"seed": seed})
        selection = Gmm().select(run)
        np.testing.assert_array_equal(selection.is_clean, run.training_losses.mean(0) < 1.4)

    @pytest.mark.parametrize("losses", [np.zeros((EPOCHS, N)), np.full((EPOCHS, N), 2.3)], ids=["zero", "constant"])
    def test_constant_losses(self, make_run, losses):
        """Neither an error nor a warning, and a verdict that can be reported."""
        selection = Gmm().select(make_run(training_losses=losses))
        assert np.isfinite(selection.label_quality).all()
        assert ((selection.label_quality >= 0) & (selection.label_quality <= 1)).all()
        assert len(np.unique(selection.is_clean)) == 1


class TestConfidentLearning:
    def test_against_cleanlab(self, make_run):
        run = make_run()
        selection = ConfidentLearning().select(run)
        expected = find_label_issues(run.labels, run.pred_probs, n_jobs=1)
        np.testing.assert_array_equal(selection.is_clean, ~expected)
        np.testing.assert_allclose(selection.label_quality, run.pred_probs[np.arange(N), run.labels])
        np.testing.assert_array_equal(selection.predicted_labels, run.pred_probs.argmax(1))
        assert 0 < expected.sum() < N

    def test_it_needs_no_images(self, make_run):
        run = make_run()
        given = Run(labels=run.labels, class_names=run.class_names, given_pred_probs=run.pred_probs)
        assert not load_plugins().selectors.get("confident_learning").traits.needs_images
        np.testing.assert_array_equal(
            ConfidentLearning().select(given).is_clean, ConfidentLearning().select(run).is_clean
        )

    def test_pred_probs_are_out_of_sample(self, colours, fake_backbone):
        """Each row's probabilities do not change when its own label does."""
        backbone = fake_backbone()
        features = np.concatenate([backbone.encode_images(backbone.preprocess(i)[None]) for i in colours.images])

        def probs(labels):
            run = Run(labels=labels, class_names=colours.names, backbone=backbone, raw_features=features)
            run.__dict__["folds"] = np.arange(120) % 5
            run.of_labels["centre"] = features.mean(0)  # in which all labels have a say
            return run.pred_probs

        changed = colours.labels.copy()
        changed[7] = (changed[7] + 1) % 3
        before, after = probs(colours.labels), probs(changed)
        np.testing.assert_allclose(before.sum(1), 1)
        np.testing.assert_array_equal(before[7], after[7])
        assert (before[8] != after[8]).any()
