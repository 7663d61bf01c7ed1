import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from deft_plugin.runs.probe import LinearProbe
from deft_plugin.settings import ProbeSettings

DIM, CLASSES = 24, 5


def blobs(size=500, spread=1.0, seed=0):
    """Features of length 1 around class centres, float16, and labels."""
    centres = np.random.default_rng(99).standard_normal((CLASSES, DIM)) / DIM**0.5
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, size)
    features = centres[labels] + spread * generator.standard_normal((size, DIM)) / DIM**0.5
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16), labels


def probe(seed=0, **settings):
    return LinearProbe(CLASSES, DIM, settings=ProbeSettings(**settings), seed=seed)


def cross_entropy(probabilities, labels):
    return np.array([-np.log(row[label]) for row, label in zip(probabilities, labels, strict=True)])


def test_as_good_as_scikit_learn():
    features, labels = blobs()
    others, their_labels = blobs(seed=1)
    ours = probe()
    ours.fit(features, labels)
    # No bias: LinearProbe has none.
    reference = LogisticRegression(fit_intercept=False, C=10).fit(20 * features.astype(float), labels)
    accuracy = (ours.predict_proba(others).argmax(1) == their_labels).mean()
    assert accuracy > 0.85
    assert accuracy >= reference.score(20 * others.astype(float), their_labels) - 0.02


def test_comes_to_the_minimum_that_scikit_learn_finds():
    features, labels = blobs(spread=1.5)
    ours = probe(epochs=200, learning_rate=0.03, weight_decay=5e-3)
    ours.fit(features, labels)
    scaled = 20 * features.astype(float)
    # mean loss + decay / 2 |w|² is the same problem as C * sum of losses + 1/2 |w|² with C = 1 / (n decay).
    reference = LogisticRegression(fit_intercept=False, C=1 / (500 * 5e-3), tol=1e-8, max_iter=5000).fit(scaled, labels)
    np.testing.assert_allclose(ours.predict_proba(features), reference.predict_proba(scaled), atol=0.03)


def test_probabilities():
    features, labels = blobs()
    ours = probe()
    ours.fit(features, labels)
    probabilities = ours.predict_proba(features)
    assert probabilities.shape == (500, CLASSES)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)
    logits = 20 * features.astype(np.float64) @ ours.weight.detach().double().numpy().T
    expected = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, expected / expected.sum(1, keepdims=True), rtol=1e-3, atol=1e-9)


def test_probabilities_of_more_rows_than_a_piece():
    features, labels = blobs()
    ours = probe()
    ours.fit(features, labels)
    many = np.tile(features, (17, 1))  # 8,500
    np.testing.assert_allclose(ours.predict_proba(many), np.tile(ours.predict_proba(features), (17, 1)), rtol=1e-5)


def test_no_rows():
    assert probe().predict_proba(np.empty((0, DIM), np.float16)).shape == (0, CLASSES)


def test_untrained_is_uniform():
    features, _ = blobs(7)
    np.testing.assert_allclose(probe().predict_proba(features), 1 / CLASSES)


def test_losses():
    features, labels = blobs()
    ours = probe(epochs=6)
    losses = ours.fit(features, labels, keep_history=True).losses
    assert losses.shape == (6, 500)
    means = losses.mean(1)
    assert means[0] < np.log(CLASSES)
    assert (np.diff(means) < 0).all()
    np.testing.assert_allclose(losses[-1], cross_entropy(ours.predict_proba(features), labels), rtol=1e-6)


def test_margins():
    features, labels = blobs()
    ours = probe(epochs=3)
    margins = ours.fit(features, labels, keep_history=True).margins
    assert margins.shape == (3, 500)
    logits = 20 * features.astype(np.float64) @ ours.weight.detach().double().numpy().T
    expected = [row[label] - max(np.delete(row, label)) for row, label in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(margins[-1], expected, atol=1e-4)


def test_training_on_some_rows():
    """As on these rows alone, but with a history of all."""
    features, labels = blobs()
    some = np.arange(0, 500, 2)
    ours, alone = probe(epochs=3), probe(epochs=3)
    history = ours.fit(features, labels, rows=some, keep_history=True)
    of_some = alone.fit(features[some], labels[some], keep_history=True)
    assert torch.equal(ours.weight, alone.weight)
    assert history.losses.shape == (3, 500)
    np.testing.assert_allclose(history.losses[:, some], of_some.losses, rtol=1e-4, atol=1e-6)


def test_rows_that_are_there_twice_count_twice():
    features, labels = blobs(60)
    rows = np.r_[np.arange(60), np.zeros(60, int)]
    often, once = probe(), probe()
    often.fit(features, labels, rows=rows)
    once.fit(features, labels)
    assert often.predict_proba(features)[0, labels[0]] > once.predict_proba(features)[0, labels[0]]


def test_losses_are_of_the_given_labels():
    """A wrong label stands out: that is what small-loss and GMM live on."""
    features, truth = blobs(spread=0.7)
    labels = truth.copy()
    labels[:100] = (labels[:100] + 1) % CLASSES
    losses = probe(epochs=4).fit(features, labels, keep_history=True).losses
    assert losses[-1, :100].min() > np.median(losses[-1, 100:])
    assert losses[-1, :100].mean() > 3 * losses[-1, 100:].mean()


def test_keeping_losses_changes_nothing():
    features, labels = blobs()
    with_losses, without = probe(), probe()
    with_losses.fit(features, labels, keep_history=True)
    nothing = without.fit(features, labels)
    assert nothing.losses.shape == nothing.margins.shape == (0, 500)
    assert torch.equal(with_losses.weight, without.weight)


def test_seed():
    features, labels = blobs()
    before = torch.get_rng_state()
    weights = []
    for seed in (0, 0, 1):
        trained = probe(seed)
        trained.fit(features, labels)
        weights.append(trained.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [1, 3, 65])
def test_few_examples(size):
    features, labels = blobs(size)
    ours = probe()
    history = ours.fit(features, labels, keep_history=True)
    assert np.isfinite(history.losses).all()
    assert np.isfinite(history.margins).all()
    assert np.isfinite(ours.predict_proba(features)).all()


def test_losses_stay_finite_where_the_probability_is_0():
    features = np.eye(DIM, dtype=np.float16)[[0] * 200 + [0]]
    labels = np.array([0] * 200 + [1])
    losses = probe(epochs=20, learning_rate=50.0).fit(features, labels, keep_history=True).losses
    assert np.isfinite(losses).all()


def test_features_are_not_changed(tmp_path):
    features, labels = blobs(50)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    probe().fit(mapped, labels)
    np.testing.assert_array_equal(mapped, features)
