"""Decoding: whatever an image comes as becomes RGB pixels, always in the same way, so that it is recognised.

`to_rgb` is idempotent: a reader that has already turned a photo upright (Hugging Face `datasets` does) and
one that has not end at the same pixels, hence at the same `image_digest`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps

from deft_plugin.data.walk import open_heif
from deft_plugin.errors import InputError, UnreadableImageError


def to_rgb(image: Image.Image, *, mode: str | None = None) -> Image.Image:
    """Turn an image of any mode into an upright RGB image on white ground; the image itself stays as it is.

    EXIF orientation is applied, 16-bit and floating-point pixels are scaled to 8 bit, transparent pixels are
    laid on white, and of an animation the current frame is taken (the first, unless the caller moved on).

    Parameters
    ----------
    image : PIL.Image.Image
    mode : str, optional
        Convert to this mode first, as ``datasets.Image(mode=...)`` does.

    Returns
    -------
    PIL.Image.Image
        A new image of mode RGB without metadata.

    Raises
    ------
    UnreadableImageError
        If the pixels cannot be decoded.

    Examples
    --------
    >>> from PIL import Image
    >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    try:
        image.load()
        upright = _upright(image)
        rgb = _flatten(upright.convert(mode) if mode else upright)
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files
        raise UnreadableImageError(_reason(error)) from error
    if 0 in rgb.size:
        raise UnreadableImageError(f"it has no pixels: {rgb.width} x {rgb.height}")
    rgb.info = {}  # no metadata of the file is ever applied once more
    return rgb


def read_image(value: object, *, where: str = "image", mode: str | None = None) -> Image.Image:
    """Read one image from whatever it comes as.

    Parameters
    ----------
    value : PIL image, path, bytes, array or mapping
        Bytes are those of an image file. Numpy arrays are (H, W) or (H, W, C), torch tensors (H, W) or
        (C, H, W); integers are pixels in [0, 255] (uint16: [0, 65535]), floats are in [0, 1]. A mapping has
        ``bytes`` and ``path``, as Hugging Face `datasets` stores images.
    where : str
        Named in errors: "row 7 (photos/cat/1.jpg)".
    mode : str, optional
        See `to_rgb`.

    Returns
    -------
    PIL.Image.Image
        Of mode RGB.

    Raises
    ------
    UnreadableImageError
        If there is no image, or it cannot be decoded.
    InputError
        If `value` is of another kind, or its pixels are out of range.

    Examples
    --------
    >>> import numpy as np
    >>> read_image(np.full((2, 3), 255, dtype=np.uint8)).getpixel((0, 0))
    (255, 255, 255)
    """
    try:
        for kind, read in _READERS:
            if kind(value):
                return read(value, mode)
        raise InputError(
            "expected a PIL image, a path, an array, or a mapping with 'bytes' or 'path', "
            f"but got {type(value).__name__}"
        )
    except UnreadableImageError as error:
        raise UnreadableImageError(
            f"Cannot read {where}: {error}. Replace or remove it, or keep it as a label issue with on_bad_image='flag'."
        ) from error
    except InputError as error:
        raise InputError(f"Cannot use {where}: {error}.") from error


def is_image(value: object) -> bool:
    """Tell whether a value of a data row is an image: a PIL image, or a mapping of bytes and path."""
    return isinstance(value, Image.Image) or _is_stored(value)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken metadata does not make the pixels unreadable
        return image.copy()


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        overlay = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", overlay.size, "white"), overlay).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale pixels to [0, 255], from the smallest usual range that holds them, else from their own range."""
    low, high = float(values.min()), float(values.max())
    full_scale = {"u": (65535.0,), "i": (255.0, 65535.0), "f": (1.0, 255.0, 65535.0)}[values.dtype.kind]
    if not np.isfinite([low, high]).all():
        raise ValueError("it has pixels that are not finite")
    top = next((scale for scale in full_scale if high <= scale), None)
    if low < 0 or top is None:
        return np.rint((values - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
    return np.rint(values * (255.0 / top)).astype(np.uint8)


def _decode(file: bytes | str | os.PathLike[str], mode: str | None) -> Image.Image:
    open_heif()
    try:
        with Image.open(BytesIO(file) if isinstance(file, bytes) else file) as image:
            _refuse_bomb(image)
            return to_rgb(image, mode=mode)
    except UnreadableImageError:
        raise
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from error


def _refuse_bomb(image: Image.Image) -> None:
    # Pillow only warns between its limit and twice that. Turning the warning into an error would take
    # warnings.catch_warnings, which changes the filters of all threads.
    pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        raise UnreadableImageError(
            f"it has {image.width} x {image.height} pixels, more than the {limit} that Pillow takes as safe "
            "(PIL.Image.MAX_IMAGE_PIXELS); it could be a decompression bomb"
        )


def _reason(error: Exception) -> str:
    message = str(error).rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _from_array(array: np.ndarray) -> Image.Image:
    """Turn pixels (H, W) or (H, W, C) into an image."""
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4):
        raise InputError(
            "expected an array of shape (H, W) or (H, W, C) with 1 to 4 channels "
            f"(a torch tensor: (C, H, W)), but got {array.shape}"
        )
    if array.size == 0:
        raise UnreadableImageError(f"it has no pixels: an array of shape {array.shape}")
    pixels = _pixels_of(array)
    return to_rgb(Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and channels == 1 else pixels))


def _pixels_of(array: np.ndarray) -> np.ndarray:
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.uint16:
        return _to_8_bit(array)
    if kind not in "buif":
        raise InputError(f"expected pixels that are numbers, but got an array of {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if kind == "f" and not (low >= -1e-6 and high <= 1 + 1e-6):  # NaN, too, ends here
        raise InputError(
            f"expected float pixels in [0, 1], but got values from {low:.4g} to {high:.4g}. If they are "
            "already normalised, take Normalize out of the data set's transform: the model brings its own "
            "preprocessing. If they are in 0 … 255, convert them to uint8"
        )
    if kind in "ui" and not (low >= 0 and high <= 255):
        raise InputError(f"expected integer pixels in [0, 255], but got values from {low:.0f} to {high:.0f}")
    return np.rint(np.clip(array, 0, 1) * 255.0 if kind in "bf" else array).astype(np.uint8)


def _from_tensor(tensor: Any, _mode: str | None) -> Image.Image:
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    array = np.asarray(tensor.detach().cpu().numpy())  # (C, H, W)
    if array.ndim == 3 and array.shape[0] not in (1, 2, 3, 4):
        raise InputError(f"expected a tensor of shape (C, H, W) with 1 to 4 channels, but got {array.shape}")
    return _from_array(array.transpose(1, 2, 0) if array.ndim == 3 else array)


def _from_stored(value: Any, mode: str | None) -> Image.Image:
    stored = cast("Mapping[str, Any]", value)
    file = stored.get("bytes") if stored.get("bytes") is not None else stored.get("path")
    if file is None:
        raise UnreadableImageError("it has neither bytes nor a path")
    return _decode(file, mode)


def _missing(_value: object, _mode: str | None) -> Image.Image:
    raise UnreadableImageError("there is none (None)")


def _is_stored(value: object) -> bool:
    return isinstance(value, Mapping) and set(cast("Mapping[str, Any]", value)) in _STORED_AS


_STORED_AS = ({"bytes", "path"}, {"bytes"}, {"path"})

_READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str | None], Image.Image]], ...] = (
    (lambda value: value is None, _missing),
    (lambda value: isinstance(value, Image.Image), lambda value, mode: to_rgb(value, mode=mode)),
    (lambda value: isinstance(value, bytes | str | os.PathLike), _decode),
    (_is_stored, _from_stored),
    (lambda value: hasattr(value, "detach"), _from_tensor),
    (lambda value: isinstance(value, np.ndarray), lambda value, _mode: _from_array(value)),
)
