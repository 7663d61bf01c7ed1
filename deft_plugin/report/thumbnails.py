"""Small pictures of images, as text that a page can hold."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from deft_plugin.errors import UnreadableImageError

if TYPE_CHECKING:
    from PIL import Image

    from deft_plugin.data.sources import ImageSource

LONG_SIDE = 160  # of a thumbnail, in px
QUALITY = 75


def thumbnail_format() -> str:
    """WebP, which is a third smaller than JPEG, if this Pillow can write it; else JPEG."""
    from PIL import features

    return "webp" if features.check("webp") else "jpeg"


def read_thumbnail(images: ImageSource, row: int, file_format: str) -> str | None:
    """Read one image and encode its thumbnail; None if it cannot be read."""
    try:
        return encode_thumbnail(images.load(row), file_format)
    except UnreadableImageError:
        return None


def encode_thumbnail(image: Image.Image, file_format: str) -> str:
    """Shrink an RGB image until its longer side has at most 160 px, and encode it.

    Returns
    -------
    str
        The file in base64.

    Examples
    --------
    >>> from PIL import Image
    >>> encode_thumbnail(Image.new("RGB", (4000, 3000)), "jpeg")[:4]
    '/9j/'
    """
    from PIL import Image

    small = image.copy()
    small.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    small.save(file, file_format, quality=QUALITY, **({"method": 2} if file_format == "webp" else {}))
    return base64.b64encode(file.getvalue()).decode("ascii")
