"""Noise that depends on the image, against a plain loop and by its rates."""

import time

import numpy as np
import pytest
from deft_benchmarks.noise.instance import InstanceDependent, read_pixels
from PIL import Image
from scipy.stats import truncnorm

from deft_plugin.data.reading import read_image_data
from deft_plugin.errors import InputError


def images(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, 32, 32, 3)).astype(np.uint8)


def plain(labels, pixels, num_classes, ratio, seed, *, scale, shared):
    """Example by example, in the words of the paper."""
    rng = np.random.default_rng(seed)
    low, high = (0 - ratio) / 0.1, (1 - ratio) / 0.1
    rates = truncnorm.rvs(low, high, loc=ratio, scale=0.1, size=len(labels), random_state=rng)
    flips = rng.random(len(labels)) < rates
    chance = rng.random(len(labels))
    size = pixels[0].size
    matrices = [rng.standard_normal((size, num_classes), dtype=np.float32) for _ in range(1 if shared else num_classes)]
    noisy = []
    for label, image, flip, u in zip(labels, pixels, flips, chance, strict=True):
        scores = (image.ravel() / 255 * scale) @ matrices[0 if shared else label].astype(float)
        others = [k for k in range(num_classes) if k != label]
        weights = np.exp(scores[others] - scores[others].max())
        weights /= weights.sum()
        target = others[min(int(np.searchsorted(weights.cumsum(), u, side="right")), len(others) - 1)]
        noisy.append(target if flip else label)
    return np.array(noisy)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("scale", [255.0, 0.05])
def test_a_plain_loop_gives_the_same(scale, shared):
    labels, pixels = np.arange(120) % 5, images(120)
    model = InstanceDependent(pixel_scale=scale, shares_matrix=shared)
    found = model(labels, num_classes=6, noise_ratio=0.5, seed=3, pixels=pixels)
    expected = plain(labels, pixels, 6, 0.5, 3, scale=scale, shared=shared)
    assert (found == expected).mean() > 0.98  # float32 and float64 differ where two sums are equal to the last digit
    assert 0.3 < (found != labels).mean() < 0.7


@pytest.mark.parametrize("ratio", [0.2, 0.3, 0.4])
def test_the_actual_ratio(ratio):
    labels = np.arange(6000) % 10
    noisy = InstanceDependent()(labels, num_classes=10, noise_ratio=ratio, seed=1, pixels=images(6000))
    assert (noisy != labels).mean() == pytest.approx(ratio, abs=0.03)


def test_raw_pixels_saturate_the_softmax():
    """Most flips of a class go to few others, unlike those of small pixels; see the class's docstring."""
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    pixels = np.clip(photo + np.random.default_rng(1).normal(0, 12, (4000, 32, 32, 3)), 0, 255).astype(np.uint8)
    labels = np.arange(4000) % 10
    shares = {}
    for scale in (255.0, 0.01):
        noisy = InstanceDependent(pixel_scale=scale)(labels, num_classes=10, noise_ratio=0.4, seed=0, pixels=pixels)
        of_zero = np.bincount(noisy[(labels == 0) & (noisy != labels)], minlength=10)
        shares[scale] = of_zero.max() / of_zero.sum()
    assert shares[255.0] > 0.6
    assert shares[0.01] < 0.3


def test_same_seed_same_noise():
    labels, pixels = np.arange(300) % 4, images(300)
    one, same, other = (
        InstanceDependent()(labels, num_classes=4, noise_ratio=0.4, seed=seed, pixels=pixels) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_array_equal(
        InstanceDependent()(labels, num_classes=4, noise_ratio=0, seed=0, pixels=pixels), labels
    )


@pytest.mark.parametrize("pixels", [None, images(3)])
def test_without_pixels(pixels):
    with pytest.raises(InputError, match=r"pixels of shape \(4, 32, 32, 3\)"):
        InstanceDependent()([0, 1, 0, 1], num_classes=2, noise_ratio=0.4, seed=0, pixels=pixels)


def test_what_it_says_of_itself():
    assert InstanceDependent().describe(10) == {"pixel_scale": 255.0, "matrix_shape": [10, 3072, 10], "norm_std": 0.1}
    assert InstanceDependent(shares_matrix=True).describe(10)["matrix_shape"] == [3072, 10]


def test_pixels_of_images_of_any_size():
    small, large = images(1)[0], np.zeros((100, 50, 3), np.uint8)
    data = read_image_data([Image.fromarray(small), Image.fromarray(large)], [0, 1])
    pixels = read_pixels(data.images)
    assert pixels.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(pixels[0], small)


def test_fifty_thousand_labels():
    labels, pixels = np.arange(50_000) % 100, np.tile(images(1000), (50, 1, 1, 1))
    started = time.perf_counter()
    InstanceDependent()(labels, num_classes=100, noise_ratio=0.4, seed=0, pixels=pixels)
    assert time.perf_counter() - started < 60
