"""Selectors that look at features and texts, each against a second implementation in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from deft_adapters.selectors.clipcleaner import ClipCleaner
from deft_adapters.selectors.knn_vote import KnnVote, count_votes
from deft_adapters.selectors.lemon import Lemon, find_valley, share_of_examples
from deft_adapters.selectors.prototype_gmm import PrototypeGmm
from scipy.special import softmax
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from deft_plugin.compute.precision import use_precision
from deft_plugin.runs.neighbours import Neighbours


@pytest.fixture(autouse=True)
def _exact_neighbours():
    with use_precision("float32"):
        yield


def larger_posterior(values, seed):
    """Of the component with the larger mean, of min-max normalised values, by scikit-learn's defaults."""
    normalised = (values - values.min()) / (values.max() - values.min())
    mixture = GaussianMixture(2, random_state=seed).fit(normalised[:, None])
    return mixture.predict_proba(normalised[:, None])[:, mixture.means_[:, 0].argmax()]


class TestKnnVote:
    @pytest.mark.parametrize("num_classes", [2, 4])
    def test_against_loops(self, feature_run, num_classes):
        run, _ = feature_run(num_classes=num_classes, spread=2.0)
        features = run.image_features.astype(np.float64)
        nearest = NearestNeighbors(n_neighbors=9, metric="cosine").fit(features).kneighbors(return_distance=False)
        quality, predicted = [], []
        for row in range(150):
            similarities = [features[row] @ features[other] for other in nearest[row]]
            votes = dict.fromkeys(range(num_classes), 0.0)
            votes[run.labels[row]] += 2 * similarities[0] - similarities[1]
            for other, similarity in zip(nearest[row], similarities, strict=True):
                votes[run.labels[other]] += similarity
            quality.append(votes[run.labels[row]] / sum(votes.values()))
            predicted.append(max(votes, key=votes.get))
        selection = KnnVote().select(run)
        np.testing.assert_array_equal(selection.predicted_labels, predicted)
        np.testing.assert_array_equal(selection.is_clean, np.array(predicted) == run.labels)
        np.testing.assert_allclose(selection.label_quality, quality, atol=2e-3)
        assert 0 < selection.is_clean.sum() < 150

    def test_a_tie_keeps_the_label(self):
        """Two neighbours, as near as each other: the own vote is as strong as one of theirs."""
        neighbours = Neighbours(rows=np.array([[1], [0]]), similarities=np.full((2, 1), 0.5, np.float32))
        votes = count_votes(neighbours, np.array([1, 0]), 2)
        np.testing.assert_allclose(votes, [[0.5, 0.5], [0.5, 0.5]])

    def test_what_is_on_the_other_side_does_not_count(self):
        similarities = np.array([[0.5, -0.5], [0.2, 0.1], [-0.5, -0.5]], np.float32)
        neighbours = Neighbours(rows=np.array([[1, 2], [0, 2], [0, 1]]), similarities=similarities)
        votes = count_votes(neighbours, np.array([0, 0, 1]), 2)
        np.testing.assert_allclose(votes, [[2.0, 0.0], [0.5, 0.1], [0.0, 0.0]], atol=1e-6)


class TestClipCleaner:
    @pytest.mark.parametrize("has_cone", [True, False])
    def test_against_loops(self, feature_run, has_cone):
        """As released: larger log-probabilities are clean, class by class."""
        run, _ = feature_run(has_cone=has_cone, size=300)
        zero_shot = softmax(run.zero_shot_logits.astype(np.float64) / 10 / 0.07, axis=1)
        expected = np.ones(300, bool)
        for probabilities in (zero_shot, run.training_pred_probs):
            for k in range(4):
                rows = np.flatnonzero(run.labels == k)
                posterior = larger_posterior(np.log(probabilities[rows, k]), seed=0)
                for row, p_clean in zip(rows, posterior, strict=True):
                    consistency = probabilities[row, k] / max(probabilities[row])
                    expected[row] &= p_clean >= 0.5 and consistency >= 0.8
        selection = ClipCleaner().select(run)
        np.testing.assert_array_equal(selection.is_clean, expected)
        together = np.sqrt(zero_shot * run.training_pred_probs)
        np.testing.assert_allclose(selection.label_quality, together[range(300), run.labels])
        np.testing.assert_array_equal(selection.predicted_labels, together.argmax(1))
        assert len(selection.details) == 4
        assert expected.mean() < min(selection.details.values()) <= max(selection.details.values()) < 1


def lemon_scores(run, k=30, beta=5, gamma=5, tau_1=0.1, tau_2=5):
    """The paper's score, pair by pair; neighbours by text that tie count by their share."""
    images, texts, labels = run.image_features.astype(np.float64), run.class_text_features.astype(float), run.labels
    multimodal = [1 - image @ texts[label] for image, label in zip(images, labels, strict=True)]
    k = min(k, len(labels) - 1)
    scores = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        others = [j for j in range(len(labels)) if j != i]
        s_n = 0
        for j in sorted(others, key=lambda j: -image @ images[j])[:k]:
            weight = math.exp(-tau_1 * (1 - image @ images[j])) * math.exp(-tau_2 * multimodal[j])
            s_n += weight * (labels[j] != label) / k
        s_m, left = 0, k
        for other_label in sorted(range(len(texts)), key=lambda c: -texts[label] @ texts[c]):
            members = [j for j in others if labels[j] == other_label]
            for j in members:
                weight = math.exp(-tau_1 * (1 - texts[label] @ texts[other_label])) * math.exp(-tau_2 * multimodal[j])
                s_m += min(1, left / len(members)) * weight * (1 - image @ images[j]) / k
            left = max(0, left - len(members))
        scores.append(multimodal[i] + beta * s_n + gamma * s_m)
    return np.array(scores)


def valley_in_loops(scores):
    """A Gaussian kernel with Scott's bandwidth, and neighbours compared one by one."""
    grid = np.linspace(min(scores), max(scores), 1000)
    width = len(scores) ** -0.2 * np.std(scores, ddof=1)
    density = [np.exp(-0.5 * ((x - scores) / width) ** 2).sum() for x in grid]
    triples = list(zip(density, density[1:], density[2:], strict=False))
    minima = [grid[i + 1] for i, (a, b, c) in enumerate(triples) if a > b < c]
    maxima = [grid[i + 1] for i, (a, b, c) in enumerate(triples) if a < b > c]
    if minima:
        return np.median(minima), "minima"
    return (np.median(maxima), "maxima") if len(maxima) > 1 else (np.mean(scores), "mean")


class TestLemon:
    @pytest.mark.parametrize(
        "options", [{}, {"size": 60, "num_classes": 6, "noise_ratio": 0.1}, {"size": 20}, {"has_cone": True}]
    )
    def test_against_loops(self, feature_run, options):
        """With classes of more and of less than 30 examples, and less than 30 examples in all."""
        run, _ = feature_run(**options)
        expected = lemon_scores(run)
        selection = Lemon().select(run)
        np.testing.assert_allclose(-np.log(selection.label_quality), expected, atol=5e-3)
        threshold, _ = valley_in_loops(expected)
        is_sure = np.abs(expected - threshold) > 0.01  # features are float16
        assert is_sure.mean() > 0.8
        np.testing.assert_array_equal(selection.is_clean[is_sure], expected[is_sure] < threshold)
        assert 0 < selection.is_clean.sum() < len(expected)

    def test_the_predicted_label_has_the_smallest_score(self, feature_run):
        run, known = feature_run()
        selection = Lemon().select(run)
        kept = selection.is_clean & (selection.predicted_labels == run.labels)
        assert kept.sum() > 0.8 * selection.is_clean.sum()
        assert (selection.predicted_labels == known.truth).mean() > 0.8

    def test_shares(self):
        """k is dealt out in the order of similarity; nobody is a neighbour of itself."""
        rng = np.random.default_rng(0)
        texts = rng.standard_normal((5, 3))
        counts = np.array([4, 1, 0, 7, 2])
        shares = share_of_examples(texts @ texts.T, counts, 6)
        for label in range(5):
            available = counts - (np.arange(5) == label)
            assert abs((shares[label] * np.maximum(available, 0)).sum() - 6) < 1e-9
        assert shares[3, 3] == 1
        assert shares.min() == 0
        assert shares.max() == 1


class TestFindValley:
    @pytest.mark.parametrize(("heaps", "kind"), [((0, 5), "minima"), ((0, 5, 9), "minima"), ((0,), "mean")])
    def test_against_loops(self, heaps, kind):
        rng = np.random.default_rng(1)
        scores = np.concatenate([rng.normal(heap, 0.5, 200) for heap in heaps])
        expected, by = valley_in_loops(scores)
        assert by == kind
        np.testing.assert_allclose(find_valley(scores), expected)

    @pytest.mark.parametrize("scores", [np.zeros(5), np.full(3, 0.7)])
    def test_nothing_to_split(self, scores):
        assert find_valley(scores) == np.inf


class TestPrototypeGmm:
    @pytest.mark.parametrize("has_cone", [True, False])
    def test_against_loops(self, feature_run, has_cone):
        run, _ = feature_run(size=300, has_cone=has_cone)
        raw = run.raw_features.astype(np.float64)
        centred = raw - np.mean([raw[run.labels == label].mean(0) for label in np.unique(run.labels)], axis=0)
        features = np.array([row / np.linalg.norm(row) for row in centred])
        chosen = [True] * 300
        for _ in range(2):
            centres = []
            for k in range(4):
                members = [features[row] for row in range(300) if run.labels[row] == k and chosen[row]]
                centres.append(np.mean(members, axis=0))
            logits = np.array([[-((row - centre) ** 2).sum() for centre in centres] for row in features])
            posterior = np.empty(300)
            for k in range(4):
                rows = run.labels == k
                posterior[rows] = larger_posterior(logits[rows, k], seed=0)
            chosen = [p > 0.5 for p in posterior]
        selection = PrototypeGmm().select(run)
        is_sure = np.abs(posterior - 0.5) > 0.02  # features are float16
        assert is_sure.mean() > 0.95
        np.testing.assert_array_equal(selection.is_clean[is_sure], posterior[is_sure] > 0.5)
        own = logits[range(300), run.labels]
        np.testing.assert_allclose(selection.label_quality, 1 + own / 4, atol=1e-2)
        assert (selection.predicted_labels == logits.argmax(1)).mean() > 0.99
        assert 0 < selection.is_clean.sum() < 300

    def test_a_class_without_examples_is_never_predicted(self, feature_run):
        run, _ = feature_run()
        empty = run.with_labels(np.where(run.labels == 2, 1, run.labels))
        assert set(PrototypeGmm().select(empty).predicted_labels) == {0, 1, 3}
