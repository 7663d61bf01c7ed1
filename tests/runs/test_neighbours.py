"""Nearest neighbours against scikit-learn's, in both number formats."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from deft_plugin.compute.precision import use_precision
from deft_plugin.runs import neighbours as module
from deft_plugin.runs.neighbours import nearest_neighbours


def unit_rows(size, dim=24, seed=0, dtype=np.float16):
    rows = np.random.default_rng(seed).standard_normal((size, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def reference(features, k):
    """Similarities and rows by scikit-learn, without each row itself."""
    exact = features.astype(np.float64)
    similarities = exact @ exact.T
    found = NearestNeighbors(n_neighbors=k, metric="cosine").fit(exact).kneighbors(return_distance=False)
    return found, np.take_along_axis(similarities, found, axis=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("rows_at_a_time", [7, 1024])
def test_as_scikit_learn(monkeypatch, dtype, rows_at_a_time):
    monkeypatch.setattr(module, "ROWS_AT_A_TIME", rows_at_a_time)
    features = unit_rows(200, dtype=dtype)
    with use_precision("float32"):
        found = nearest_neighbours(features, 12)
    rows, similarities = reference(features, 12)
    assert found.rows.dtype == np.int64
    assert found.similarities.dtype == np.float32
    np.testing.assert_allclose(found.similarities, similarities, atol=2e-3 if dtype == np.float16 else 1e-6)
    assert (found.rows == rows).mean() > 0.99  # float16 rows are not quite of length 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_hides_next_to_none(dtype):
    """Similarities are exact, and so is nearly every neighbour, though bfloat16 has three digits."""
    features = unit_rows(600)
    with use_precision("float32"):
        expected = nearest_neighbours(features, 30)
    with use_precision(dtype):
        found = nearest_neighbours(features, 30)
    assert (found.rows == expected.rows).mean() > 0.995
    np.testing.assert_allclose(found.similarities, expected.similarities, atol=5e-3)
    assert np.abs(found.similarities - expected.similarities).mean() < 1e-5


def test_identical_images_are_neighbours_and_nobody_is_their_own():
    features = np.repeat(unit_rows(10), 5, axis=0)
    found = nearest_neighbours(features, 6)
    assert not (found.rows == np.arange(50)[:, None]).any()
    np.testing.assert_array_equal(found.rows[:, :4] // 5, np.repeat(np.arange(10), 5)[:, None].repeat(4, axis=1))
    np.testing.assert_allclose(found.similarities[:, :4], 1, atol=2e-3)
    assert (found.similarities <= 1).all()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_fewer_than_asked_for(size):
    found = nearest_neighbours(unit_rows(size), 30)
    assert found.rows.shape == found.similarities.shape == (size, size - 1)
    for row, others in enumerate(found.rows):
        assert sorted(others) == [other for other in range(size) if other != row]


def test_memory_mapped_features_stay_as_they_are(tmp_path):
    features = unit_rows(40)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="c")
    np.testing.assert_array_equal(nearest_neighbours(mapped, 3).rows, nearest_neighbours(features, 3).rows)
    np.testing.assert_array_equal(mapped, features)
