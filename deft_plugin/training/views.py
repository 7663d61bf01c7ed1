"""Views of images: what the network sees of them, augmented for training or as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deft_plugin.compute.decoding import decode_batches, num_decoders
from deft_plugin.data.sources import ImageSource
from deft_plugin.training.augment import augment_image


class Views:
    """Pixels of images, by row.

    Parameters
    ----------
    images : ImageSource of length N
        All readable.
    preprocess : callable
        From an RGB image to pixels (3, H, W).
    seed : int
        The training view of an image follows from seed, epoch and row alone.
    device : str
        Where pixels are handed over.
    """

    def __init__(
        self, images: ImageSource, preprocess: Callable[[Image.Image], Tensor], *, seed: int, device: str
    ) -> None:
        self._images, self._preprocess, self._seed, self._device = images, preprocess, seed, device

    def __len__(self) -> int:
        return len(self._images)

    def training(self, batches: Sequence[Tensor], epoch: int) -> Iterator[Tensor]:
        """Give augmented pixels (B, 3, H, W) of batches of rows (B,), all with one row at least.

        Parameters
        ----------
        batches : sequence of Tensor of shape (B,), int64
        epoch : int
        """
        return self._load([[(epoch, int(row)) for row in rows] for rows in batches])

    def clean(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Give the pixels (B, 3, H, W) of batches of rows (B,), without augmentation."""
        return self._load([[(None, int(row)) for row in rows] for rows in batches])

    def _load(self, batches: list[list[tuple[int | None, int]]]) -> Iterator[Tensor]:
        is_pinned = torch.device(self._device).type == "cuda"

        def collate(pixels: list[Tensor]) -> Tensor:
            stacked = torch.stack(pixels)
            return stacked.pin_memory() if is_pinned else stacked

        loader = decode_batches(self._pixels, batches, collate=collate, num_threads=num_decoders(self._device))
        with contextlib.closing(loader):
            for pixels in loader:
                yield pixels.to(self._device, non_blocking=True)

    def _pixels(self, key: tuple[int | None, int]) -> Tensor:
        """Pixels by (epoch, row); without an epoch the clean view."""
        epoch, row = key
        image = self._images.load(row)
        if epoch is not None:
            image = augment_image(image, np.random.default_rng((self._seed, epoch, row)))
        return self._preprocess(image)
