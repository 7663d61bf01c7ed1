"""Wrong labels that depend on the image: instance-dependent noise."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from deft_benchmarks.noise.labels import check_labels_and_ratio
from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from deft_plugin.data import ImageData, ImageSource
    from deft_plugin.types import NoiseModel, NoiseTraits

NORM_STD = 0.1
PIXEL_SIZE = 32
_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True, kw_only=True)
class InstanceDependent:
    """Flip each label by a random projection of its image, with a flip rate of its own.

    Example i has a flip rate q_i from a normal distribution around `noise_ratio` with standard deviation 0.1, truncated
    to [0, 1]. A random matrix projects its pixels to K scores; without that of the true class, their softmax says into
    which class the label turns, with probability q_i.

    Parameters
    ----------
    pixel_scale : float
        Pixels are from 0 to this. The authors of DeFT use raw pixels up to 255: the scores are in the thousands then,
        the softmax is saturated, and most flips of a class go to few others.
    shares_matrix : bool
        One (D, K) matrix for all examples, instead of one for each true class, (K, D, K).

    References
    ----------
    Xia et al., "Part-dependent Label Noise", NeurIPS 2020, algorithm 2, and the code of Wei et al., NeurIPS 2024.
    """

    pixel_scale: float = 255.0
    shares_matrix: bool = False

    def __call__(
        self,
        labels: npt.ArrayLike,
        *,
        num_classes: int,
        noise_ratio: float,
        seed: int,
        pixels: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Give noisy labels (N,).

        Parameters
        ----------
        labels : array-like of shape (N,), int in [0, K)
        num_classes : int
        noise_ratio : float in [0, 1)
            Mean flip rate; 0 gives the labels back unchanged.
        seed : int
        pixels : np.ndarray of shape (N, 32, 32, 3), uint8

        Raises
        ------
        InputError
            If there are no pixels for each label.
        """
        given = check_labels_and_ratio(labels, num_classes=num_classes, noise_ratio=noise_ratio, seed=seed)
        if pixels is None or len(pixels) != len(given):
            raise InputError(
                f"Expected pixels of shape ({len(given)}, {PIXEL_SIZE}, {PIXEL_SIZE}, 3) for noise that depends on the "
                f"image, but got {None if pixels is None else pixels.shape}."
            )
        if noise_ratio == 0 or not len(given):
            return given
        rng = np.random.default_rng(seed)
        rates = _flip_rates(rng, len(given), noise_ratio)
        flips = rng.random(len(given)) < rates
        targets = self._targets(rng, given, pixels.reshape(len(given), -1), num_classes)
        return np.where(flips, targets, given)

    def describe(self, num_classes: int) -> dict[str, Any]:
        """Say what the noise depends on beside ratio and seed, as JSON values."""
        shape = [PIXEL_SIZE * PIXEL_SIZE * 3, num_classes]
        return {
            "pixel_scale": self.pixel_scale,
            "matrix_shape": shape if self.shares_matrix else [num_classes, *shape],
            "norm_std": NORM_STD,
        }

    def _targets(
        self, rng: np.random.Generator, labels: npt.NDArray[np.int64], pixels: npt.NDArray[np.uint8], num_classes: int
    ) -> npt.NDArray[np.int64]:
        """Draw the class (N,) that each label would turn into."""
        chance = rng.random(len(labels))
        targets = np.empty(len(labels), np.int64)
        matrix = _draw_matrix(rng, pixels.shape[1], num_classes) if self.shares_matrix else None
        for label in range(num_classes):
            # Drawn for every class, so that a class without examples does not change the others.
            of_class = matrix if matrix is not None else _draw_matrix(rng, pixels.shape[1], num_classes)
            rows = np.flatnonzero(labels == label)
            for piece in np.array_split(rows, max(1, -(-len(rows) // _ROWS_AT_A_TIME))):
                values = pixels[piece].astype(np.float32) * np.float32(self.pixel_scale / 255)
                scores = (values @ of_class).astype(np.float64)  # (B, K)
                scores[:, label] = -np.inf
                targets[piece] = _draw_classes(scores, chance[piece])
        return targets


def put_noise_in(
    model: NoiseModel,
    data: ImageData,
    *,
    traits: NoiseTraits,
    noise_ratio: float,
    seed: int,
    pixels: Callable[[], npt.NDArray[np.uint8]] | None = None,
) -> npt.NDArray[np.int64]:
    """Give noisy labels (N,) of a data set; a model that asks for pixels is handed them.

    Parameters
    ----------
    model : NoiseModel
    data : ImageData
        Its labels are taken as the truth.
    traits : NoiseTraits
        With which the model is registered.
    noise_ratio : float in [0, 1)
    seed : int
    pixels : callable, optional
        Gives all images at 32 x 32, for a caller that keeps them; else they are read.
    """
    extra: dict[str, Any] = {}
    if traits.needs_pixels:
        extra["pixels"] = read_pixels(data.images) if pixels is None else pixels()
    return model(data.labels, num_classes=len(data.class_names), noise_ratio=noise_ratio, seed=seed, **extra)


def _flip_rates(rng: np.random.Generator, size: int, ratio: float) -> npt.NDArray[np.float64]:
    from scipy.stats import truncnorm

    low, high = -ratio / NORM_STD, (1 - ratio) / NORM_STD
    rates: Any = truncnorm.rvs(low, high, loc=ratio, scale=NORM_STD, size=size, random_state=rng)
    return rates


def _draw_matrix(rng: np.random.Generator, rows: int, columns: int) -> npt.NDArray[np.float32]:
    return rng.standard_normal((rows, columns), dtype=np.float32)


def _draw_classes(scores: npt.NDArray[np.float64], chance: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Draw classes (B,) by the softmax of scores (B, K), from uniform numbers (B,)."""
    weights = np.exp(scores - scores.max(1, keepdims=True))
    sums = weights.cumsum(1)
    drawn = (sums <= (chance * sums[:, -1])[:, None]).sum(1)
    return np.minimum(drawn, scores.shape[1] - 1)


def read_pixels(images: ImageSource) -> npt.NDArray[np.uint8]:
    """Read all images at 32 x 32 pixels (N, 32, 32, 3), uint8; those that have this size as they are."""

    def read(row: int) -> npt.NDArray[np.uint8]:
        return np.asarray(images.load(row).resize((PIXEL_SIZE, PIXEL_SIZE), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return np.stack(list(threads.map(read, range(len(images)), chunksize=64)))
