"""Digests by which rows are recognised: of an image's pixels, or of an id."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from PIL import Image

from deft_plugin.data.images import read_image
from deft_plugin.errors import InputError, UnreadableImageError

DIGEST_SIZE = 16
UNREADABLE_DIGEST = bytes(DIGEST_SIZE)
"""Stands for the pixels of an image that cannot be decoded."""


def image_digest(image: object) -> bytes:
    """Digest of the pixels, by which an image is recognised.

    Parameters
    ----------
    image : object
        Anything that `read_image` takes.

    Returns
    -------
    bytes
        16 bytes, from width, height and the RGB pixels after `to_rgb`.

    Examples
    --------
    >>> import numpy as np
    >>> from PIL import Image
    >>> image_digest(Image.new("1", (2, 2), 1)) == image_digest(np.ones((2, 2)))
    True
    """
    rgb = read_image(image)
    size = struct.pack("<II", *rgb.size)
    return hashlib.blake2b(size + rgb.tobytes(), digest_size=DIGEST_SIZE).digest()


def id_digest(value: object) -> bytes:
    """Digest an id, an int or a str, into 16 bytes.

    Examples
    --------
    >>> id_digest(7) == id_digest(np.int32(7)) != id_digest("7")
    True
    """
    plain: Any = value.item() if getattr(value, "ndim", None) == 0 else value  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(plain, bool) or not isinstance(plain, int | str):
        raise InputError(f"Expected ids that are whole numbers or strings, but got {plain!r}.")
    return hashlib.blake2b(repr(plain).encode(), digest_size=DIGEST_SIZE).digest()


def join_digests(digests: Iterable[bytes]) -> np.ndarray:
    """Make an array (B, 16) of digests."""
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_SIZE)


def digest_or_blank(load: Callable[[], Image.Image]) -> bytes:
    """Digest what `load` gives; `UNREADABLE_DIGEST` if that cannot be read."""
    try:
        return image_digest(load())
    except UnreadableImageError:
        return UNREADABLE_DIGEST
