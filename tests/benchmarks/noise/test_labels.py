import numpy as np
import pytest
from deft_benchmarks.noise.labels import asymmetric, symmetric
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_plugin.errors import InputError
from deft_plugin.types import NoiseModel

both_models = pytest.mark.parametrize("noise_model", [symmetric, asymmetric])


@st.composite
def noise_cases(draw: st.DrawFn) -> tuple[np.ndarray, int, float, int]:
    num_classes = draw(st.integers(2, 300))
    dtype = draw(st.sampled_from([np.int8, np.uint8, np.int32, np.int64]))
    top = min(num_classes - 1, np.iinfo(dtype).max)
    labels = np.array(draw(st.lists(st.integers(0, top), max_size=60)), dtype=dtype)
    return labels, num_classes, draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 2**40))


@both_models
@settings(deadline=None)
@given(case=noise_cases())
def test_shape_range_determinism_and_untouched_input(noise_model: NoiseModel, case):
    labels, num_classes, ratio, seed = case
    before = labels.copy()
    noisy = noise_model(labels, num_classes=num_classes, noise_ratio=ratio, seed=seed)
    again = noise_model(labels, num_classes=num_classes, noise_ratio=ratio, seed=seed)
    assert noisy.shape == labels.shape
    assert noisy.dtype == np.int64
    assert ((noisy >= 0) & (noisy < num_classes)).all()
    assert not np.shares_memory(noisy, labels)
    np.testing.assert_array_equal(noisy, again)
    np.testing.assert_array_equal(labels, before)


@both_models
@settings(deadline=None)
@given(case=noise_cases())
def test_ratio_zero_gives_the_labels_back(noise_model: NoiseModel, case):
    labels, num_classes, _, seed = case
    noisy = noise_model(labels, num_classes=num_classes, noise_ratio=0, seed=seed)
    np.testing.assert_array_equal(noisy, labels)


@settings(deadline=None)
@given(case=noise_cases())
def test_pair_flip_only_turns_a_class_into_the_next(case):
    labels, num_classes, ratio, seed = case
    noisy = asymmetric(labels, num_classes=num_classes, noise_ratio=ratio, seed=seed)
    for true, given_label in zip(labels.tolist(), noisy.tolist(), strict=True):
        assert given_label in (true, 0 if true == num_classes - 1 else true + 1)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.6])
@pytest.mark.parametrize(
    ("noise_model", "share_wrong"), [(symmetric, lambda k: (k - 1) / k), (asymmetric, lambda k: 1.0)]
)
def test_actual_ratio(noise_model: NoiseModel, share_wrong, ratio: float, num_classes: int):
    labels = np.arange(50_000) % num_classes
    noisy = noise_model(labels, num_classes=num_classes, noise_ratio=ratio, seed=1)
    expected = ratio * share_wrong(num_classes)
    five_sigma = 5 * (expected * (1 - expected) / len(labels)) ** 0.5
    assert np.mean(noisy != labels) == pytest.approx(expected, abs=five_sigma)


def test_cifar100_at_40_percent_is_39_6_percent():
    labels = np.arange(1_000_000) % 100
    noisy = symmetric(labels, num_classes=100, noise_ratio=0.4, seed=0)
    assert np.mean(noisy != labels) == pytest.approx(0.396, abs=0.0015)


def test_symmetric_noise_reaches_every_class_alike():
    labels = np.full(60_000, 3)
    noisy = symmetric(labels, num_classes=6, noise_ratio=0.6, seed=2)
    counts = np.bincount(noisy, minlength=6)
    expected = np.array([6000, 6000, 6000, 30_000, 6000, 6000])
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 25  # five degrees of freedom: exceeded once in 7,000 draws


@both_models
def test_noise_of_a_lower_ratio_is_part_of_that_of_a_higher_one(noise_model: NoiseModel):
    labels = np.arange(500) % 7
    low, high = (noise_model(labels, num_classes=7, noise_ratio=r, seed=5) for r in (0.2, 0.5))
    changed = low != labels
    assert 0 < changed.sum() < (high != labels).sum()
    np.testing.assert_array_equal(low[changed], high[changed])


@both_models
def test_seeds_differ(noise_model: NoiseModel):
    labels = np.zeros(200, dtype=int)
    one, two = (noise_model(labels, num_classes=5, noise_ratio=0.5, seed=s) for s in (1, 2))
    assert (one != two).any()


@both_models
def test_a_list_and_an_empty_list_are_accepted(noise_model: NoiseModel):
    assert noise_model([1, 0], num_classes=2, noise_ratio=0, seed=0).tolist() == [1, 0]
    assert noise_model([], num_classes=2, noise_ratio=0.5, seed=0).tolist() == []


@both_models
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noise_ratio": 1.0}, r"noise_ratio in \[0, 1\), but got 1.0"),
        ({"noise_ratio": -0.1}, "but got -0.1"),
        ({"noise_ratio": float("nan")}, "but got nan"),
        ({"noise_ratio": 40}, "0.4 for 40 %"),
        ({"num_classes": 1}, "at least 2 classes, but got 1"),
        ({"seed": -1}, "seed"),
        ({"labels": [0, 5, 3]}, r"labels in \[0, 3\), but got 5 in row 1 \(2 of 3 rows\)"),
        ({"labels": [0, -1]}, "but got -1 in row 1"),
        ({"labels": [0.0, 1.0]}, "float64"),
        ({"labels": [True, False]}, "bool"),
        ({"labels": ["cat", "dog"]}, "class indices, not names"),
        ({"labels": [[0, 1], [1, 0]]}, r"shape \(2, 2\)"),
    ],
)
def test_bad_input_is_a_clear_error(noise_model: NoiseModel, changed, message: str):
    arguments = {"labels": [0, 1, 2], "num_classes": 3, "noise_ratio": 0.4, "seed": 0, **changed}
    labels = arguments.pop("labels")
    with pytest.raises(InputError, match=message):
        noise_model(labels, **arguments)
