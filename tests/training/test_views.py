"""Views of images, whatever number of threads makes them."""

import numpy as np
import pytest
import torch
from PIL import Image

from deft_plugin.data.sources import IndexedImages
from deft_plugin.training import Views, views


@pytest.mark.parametrize("num_threads", [2, 8])
def test_are_the_same_for_any_number_of_threads(monkeypatch, num_threads):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 9, 7, 3)).astype(np.uint8)
    images = IndexedImages([Image.fromarray(image) for image in pixels])

    def make(of):
        monkeypatch.setattr(views, "num_decoders", lambda _device: of)
        made = Views(images, lambda image: torch.tensor(np.array(image.resize((4, 4)))), seed=1, device="cpu")
        batches = torch.arange(20).split(3)
        return torch.cat([*made.training(batches, 2), *made.clean(batches)])

    alone = make(1)
    assert alone.shape == (40, 4, 4, 3)
    assert torch.equal(make(num_threads), alone)
