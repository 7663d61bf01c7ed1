"""The training view of an image: shifted and mirrored at random, before the model's own preprocessing."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

PADDING = 1 / 8
"""Of each side: 4 pixels of 32, as the paper has it for CIFAR."""


def augment_image(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Crop an RGB image at random out of itself with black borders, and mirror every second one.

    Parameters
    ----------
    image : PIL.Image.Image
    generator : np.random.Generator
        Two draws are taken for the crop and one for the mirror.

    Returns
    -------
    PIL.Image.Image
        Of the same size.
    """
    pad_x, pad_y = round(image.width * PADDING), round(image.height * PADDING)
    left, top = (int(generator.integers(2 * pad + 1)) - pad for pad in (pad_x, pad_y))
    cropped = image.crop((left, top, left + image.width, top + image.height))
    return ImageOps.mirror(cropped) if generator.random() < 0.5 else cropped
