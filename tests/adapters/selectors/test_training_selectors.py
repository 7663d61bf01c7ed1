"""Selectors that look at a training, each against a second implementation in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from deft_adapters.selectors.aum import Aum, draw_threshold_samples
from deft_adapters.selectors.jsd_uniform import JsdUniform, label_divergence
from deft_adapters.selectors.longremix import LongReMix, high_confidence_set
from deft_adapters.selectors.matched_high_confidence import MatchedHighConfidence
from deft_adapters.selectors.small_loss_batch import SmallLossBatch, smallest_in_batches
from scipy.spatial.distance import jensenshannon
from sklearn.mixture import GaussianMixture


def train_in_numpy(features, labels, num_classes, seed, rows=None):
    """Softmax regression by SGD, written out; gives the logits (N, K) after each of the 10 epochs."""
    features = features.astype(np.float64)
    rows = np.arange(len(labels)) if rows is None else rows
    generator = torch.Generator().manual_seed(seed)
    size = min(256, max(64, len(rows) // 128))
    weight = np.zeros((num_classes, features.shape[1]))
    momentum, step, steps = np.zeros_like(weight), 0, 10 * math.ceil(len(rows) / size)
    history = []
    for _ in range(10):
        order = rows[torch.randperm(len(rows), generator=generator).numpy()]
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            powers = np.exp(20 * features[batch] @ weight.T)
            error = powers / powers.sum(1, keepdims=True) - np.eye(num_classes)[labels[batch]]
            gradient = 20 * error.T @ features[batch] / len(batch) + 5e-4 * weight
            momentum = 0.9 * momentum + gradient if step else gradient
            weight = weight - 0.003 * (1 + math.cos(math.pi * step / steps)) / 2 * momentum
            step += 1
        history.append(20 * features @ weight.T)
    return history


def losses_of(history, labels):
    return np.array(
        [[math.log(np.exp(z).sum()) - z[y] for z, y in zip(logits, labels, strict=True)] for logits in history]
    )


def smaller_posterior(values, seed):
    normalised = (values - values.min()) / (values.max() - values.min())
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=seed).fit(normalised[:, None])
    return mixture.predict_proba(normalised[:, None])[:, mixture.means_[:, 0].argmin()]


class TestAum:
    @pytest.mark.parametrize("seed", [0, 3])
    def test_against_loops(self, feature_run, seed):
        run, _ = feature_run(seed=seed)
        size = 150 // 5
        order = run.generator("aum").permutation(150)
        best = np.full(150, -np.inf)
        for number, chosen in enumerate((order[:size], order[size : 2 * size])):
            labels = run.labels.copy()
            labels[chosen] = 4
            margins = [
                [z[y] - max(z[k] for k in range(5) if k != y) for z, y in zip(logits, labels, strict=True)]
                for logits in train_in_numpy(run.image_features, labels, 5, seed + number)
            ]
            area = np.mean(margins, axis=0)
            threshold = np.percentile(area[chosen], 99)
            for row in set(range(150)) - set(chosen):
                best[row] = max(best[row], area[row] - threshold)
        is_sure = np.abs(best) > 1e-4  # not where the verdict hangs on rounding
        assert is_sure.mean() > 0.98
        selection = Aum().select(run)
        np.testing.assert_array_equal(selection.is_clean[is_sure], best[is_sure] > 0)
        np.testing.assert_allclose(selection.label_quality, 1 / (1 + np.exp(-best)), atol=1e-4)
        assert 0 < selection.is_clean.sum() < 150

    @pytest.mark.parametrize(("size", "num_classes", "expected"), [(150, 4, 30), (3, 3, 1), (2, 2, 1), (50, 2, 16)])
    def test_threshold_samples(self, feature_run, size, num_classes, expected):
        run, _ = feature_run(size=size, num_classes=num_classes)
        first, second = draw_threshold_samples(run)
        assert len(set(first)) == len(set(second)) == expected
        assert not set(first) & set(second)


class TestJsdUniform:
    def test_divergence_is_scipys(self):
        rng = np.random.default_rng(0)
        probabilities = rng.dirichlet(np.full(5, 0.3), 100)
        labels = rng.integers(0, 5, 100)
        expected = [jensenshannon(p, np.eye(5)[y], base=2) ** 2 for p, y in zip(probabilities, labels, strict=True)]
        np.testing.assert_allclose(label_divergence(probabilities[range(100), labels]), expected, atol=1e-9)

    @pytest.mark.parametrize("noise_ratio", [0.1, 0.6])
    def test_against_loops(self, feature_run, noise_ratio):
        run, _ = feature_run(noise_ratio=noise_ratio, spread=2.5)
        run.__dict__["training_losses"] = run.training_losses * (1.8 if noise_ratio > 0.5 else 1)
        predicted = [math.exp(-loss) for loss in run.training_losses[-1]]  # of the label, the rest being the others'
        rest = [np.r_[p, np.full(3, (1 - p) / 3)] for p in predicted]
        divergence = np.array([jensenshannon(p, [1, 0, 0, 0], base=2) ** 2 for p in rest])
        cutoff = divergence.mean()
        assert (0.7 < cutoff < 0.8) == (noise_ratio > 0.5)  # both rules are tried
        if cutoff > 0.7:
            cutoff -= (cutoff - divergence.min()) / 5
        each = int(sum(divergence < cutoff) / 4)
        expected = np.zeros(150, bool)
        for k in range(4):
            rows = sorted(np.flatnonzero(run.labels == k), key=lambda row: divergence[row])
            expected[rows[:each]] = True
        selection = JsdUniform().select(run)
        np.testing.assert_array_equal(selection.is_clean, expected)
        np.testing.assert_allclose(selection.label_quality, 1 - divergence, atol=1e-9)
        np.testing.assert_allclose(selection.details["cutoff"], cutoff)
        assert np.bincount(run.labels[selection.is_clean]).tolist() == [each] * 4


class TestMatchedHighConfidence:
    def test_against_loops(self, feature_run):
        run, _ = feature_run(spread=0.8)
        run.__dict__["training_losses"] = run.training_losses / 4  # so that some are confident
        mean = run.training_losses.mean(0)
        expected = np.array([math.exp(-loss) > 0.95 for loss in run.training_losses[-1]])
        by_confidence = expected.sum()
        for k in range(4):
            rows = sorted(np.flatnonzero(run.labels == k), key=lambda row: mean[row])
            expected[rows[: math.ceil(0.5 * 150 / 4)]] = True
        assert 0 < by_confidence < 75 < expected.sum() < 150
        selection = MatchedHighConfidence().select(run)
        np.testing.assert_array_equal(selection.is_clean, expected)
        np.testing.assert_allclose(selection.label_quality, np.exp(-mean))


class TestLongReMix:
    @pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")
    @pytest.mark.parametrize("seed", [0, 2])
    def test_against_loops(self, feature_run, seed):
        run, _ = feature_run(seed=seed)
        losses = losses_of(train_in_numpy(run.image_features, run.labels, 4, seed), run.labels)
        clean = [{row for row in range(150) if p[row] > 0.5} for p in (smaller_posterior(e, seed) for e in losses)]
        trusted = max((set.intersection(*clean[end - 5 : end]) for end in (10, 9, 8, 7, 6)), key=len)
        rows = np.array([sorted(trusted)[i % len(trusted)] for i in range(150)])
        assert set(run.labels[rows]) == {0, 1, 2, 3}
        again = losses_of(train_in_numpy(run.image_features, run.labels, 4, seed, rows), run.labels)
        posterior = smaller_posterior(again.mean(0), seed)
        selection = LongReMix().select(run)
        expected = [row in trusted or posterior[row] > 0.5 for row in range(150)]
        np.testing.assert_array_equal(selection.is_clean, expected)
        np.testing.assert_allclose(selection.label_quality, posterior, atol=1e-3)
        assert selection.details["fraction_high_confidence"] == len(trusted) / 150

    def test_the_largest_set_of_the_second_half(self):
        """The first five epochs agree on most, but end too early."""
        bad = np.arange(40) >= 20
        losses = np.tile(np.where(bad, 2.0, 0.1), (10, 1)) + 0.01 * np.random.default_rng(0).random((10, 40))
        losses[5, :6] = 2.0  # these fall out of all windows of the second half but the first of it
        losses[9, :3] = 2.0
        assert high_confidence_set(losses, seed=0).tolist() == (~bad & (np.arange(40) >= 6)).tolist()

    def test_a_class_that_nobody_trusts_is_learned(self, feature_run):
        run, _ = feature_run(noise_ratio=0.0, spread=0.5)
        run.__dict__["training_losses"] = run.training_losses + 5 * (run.labels == 2)
        selection = LongReMix().select(run)
        assert selection.details["fraction_high_confidence"] < 0.8
        assert (selection.predicted_labels[run.labels == 2] == 2).all()


class TestSmallLossBatch:
    @pytest.mark.parametrize("noise_ratio", [0.0, 0.3, 0.9])
    def test_against_loops(self, feature_run, noise_ratio):
        run, _ = feature_run(seed=4)
        run = run.with_settings(seed=4, noise_ratio=noise_ratio)
        order = run.generator("small_loss_batch").permutation(150)
        expected = np.zeros(150, bool)
        for batch in (order[:64], order[64:128], order[128:]):
            smallest = sorted(batch, key=lambda row: run.training_losses[-1, row])
            expected[smallest[: math.floor(round((1 - noise_ratio) * len(batch), 6))]] = True
        selection = SmallLossBatch().select(run)
        np.testing.assert_array_equal(selection.is_clean, expected)
        np.testing.assert_allclose(selection.label_quality, np.exp(-run.training_losses[-1]))
        told = {"noise_ratio_used": noise_ratio, "noise_ratio_source": "given", "batch_size": 64}
        assert selection.details == told

    def test_a_tenth_of_ten_is_one(self):
        assert smallest_in_batches(np.arange(10.0), np.arange(10), 0.9).sum() == 1

    def test_the_ratio_is_estimated_if_nobody_tells(self, feature_run):
        run, _ = feature_run()
        selection = SmallLossBatch().select(run)
        assert selection.details["noise_ratio_source"] == "estimated"
        assert 0.1 < selection.details["noise_ratio_used"] < 0.5
