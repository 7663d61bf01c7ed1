from __future__ import annotations

import hashlib
import io
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from deft_plugin.data.digests import image_digest
from deft_plugin.data.images import is_image, read_image, to_rgb
from deft_plugin.errors import InputError, UnreadableImageError

ORIENTATION = 0x0112

UPRIGHT = {  # by the EXIF standard: where the 0th row and the 0th column of the stored pixels belong
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, k=-1),
    7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda pixels: np.rot90(pixels, k=1),
}


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def encode_rotated(pixels: np.ndarray, orientation: int, format: str = "PNG") -> bytes:  # noqa: A002
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(Image.fromarray(pixels), format, exif=exif)


def palette_image(transparent: bool) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    if transparent:
        image.info["transparency"] = 0
    return image


def with_info(image: Image.Image, **info) -> Image.Image:
    image.info.update(info)
    return image


MODES = {
    "1": (Image.new("1", (2, 1), 1), (255, 255, 255)),
    "L": (Image.new("L", (2, 1), 100), (100, 100, 100)),
    "L with a transparent grey": (with_info(Image.new("L", (2, 1), 7), transparency=7), (255, 255, 255)),
    "LA, opaque": (Image.new("LA", (2, 1), (100, 255)), (100, 100, 100)),
    "LA, transparent": (Image.new("LA", (2, 1), (100, 0)), (255, 255, 255)),
    "LA, 1/5 opaque": (Image.new("LA", (2, 1), (100, 51)), (224, 224, 224)),
    "P": (palette_image(transparent=False), (10, 20, 30)),
    "P, transparent": (palette_image(transparent=True), (255, 255, 255)),
    "RGB": (Image.new("RGB", (2, 1), (1, 2, 3)), (1, 2, 3)),
    "RGB with a transparent colour": (
        with_info(Image.new("RGB", (2, 1), (1, 2, 3)), transparency=(1, 2, 3)),
        (255, 255, 255),
    ),
    "RGBA, transparent": (Image.new("RGBA", (2, 1), (9, 9, 9, 0)), (255, 255, 255)),
    "RGBA, 1/5 opaque": (Image.new("RGBA", (2, 1), (0, 100, 255, 51)), (204, 224, 255)),
    "CMYK": (Image.new("CMYK", (2, 1), (255, 0, 0, 0)), (0, 255, 255)),
    "I;16": (Image.fromarray(np.full((1, 2), 257 * 90, np.uint16)), (90, 90, 90)),
    "I of 16 bit": (Image.fromarray(np.array([[257 * 90, 65535]], np.int32)), (90, 90, 90)),
    "I of 8 bit": (Image.fromarray(np.array([[90, 255]], np.int32)), (90, 90, 90)),
    "I of 32 bit": (Image.fromarray(np.array([[0, 2**30]], np.int32)), (0, 0, 0)),
    "F in [0, 1]": (Image.fromarray(np.array([[0.2, 1.0]], np.float32)), (51, 51, 51)),
    "F in [0, 255]": (Image.fromarray(np.array([[51, 255]], np.float32)), (51, 51, 51)),
    "F with negatives": (Image.fromarray(np.array([[-3.0, 5.0]], np.float32)), (0, 0, 0)),
    "HSV": (Image.new("HSV", (2, 1), (0, 0, 80)), (80, 80, 80)),
    "YCbCr": (Image.new("YCbCr", (2, 1), (80, 128, 128)), (80, 80, 80)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_rgb(name):
    image, expected = MODES[name]
    mode, info = image.mode, dict(image.info)
    rgb = to_rgb(image)
    assert (rgb.mode, rgb.size, rgb.info) == ("RGB", image.size, {})
    assert rgb.getpixel((0, 0)) == expected
    assert (image.mode, image.info) == (mode, info), "the image itself must stay as it is"


def test_16_bit_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    decoded = np.asarray(read_image(encode(Image.fromarray(ramp))))[..., 0]
    np.testing.assert_array_equal(decoded, np.arange(256, dtype=np.uint8).reshape(16, 16))


@pytest.mark.parametrize(
    ("brightest", "shown"),
    [(0, 0), (1, 1), (255, 255), (1023, 255), (2048, 128), (4095, 255), (16383, 255), (32896, 128), (65535, 255)],
)
def test_depth_is_told_from_the_values_however_they_arrive(brightest, shown):
    pixels = np.array([[0, brightest]], np.uint16)
    image = Image.fromarray(pixels)
    for arrived in (pixels, image, encode(image), encode(image, "TIFF"), Image.fromarray(pixels.astype(np.int32))):
        assert np.asarray(read_image(arrived))[0, :, 0].tolist() == [0, shown]
        assert image_digest(arrived) == image_digest(pixels)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_once(orientation, format):  # noqa: A002
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    rgb = read_image(encode(Image.fromarray(pixels), format, exif=exif, **options))
    np.testing.assert_array_equal(np.asarray(rgb), UPRIGHT[orientation](pixels))
    np.testing.assert_array_equal(np.asarray(to_rgb(rgb)), np.asarray(rgb))


@given(
    pixels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([3, 4]))),
    orientation=st.sampled_from(list(UPRIGHT)),
)
def test_to_rgb_is_idempotent(pixels, orientation):
    image = Image.open(io.BytesIO(encode_rotated(pixels, orientation)))
    once = to_rgb(image)
    assert to_rgb(once).tobytes() == once.tobytes()
    assert image_digest(once) == image_digest(image) == image_digest(np.asarray(once))


def test_broken_exif_does_not_make_an_image_unreadable():
    data = encode(Image.new("RGB", (2, 1), (9, 8, 7)), exif=b"Exif\0\0 this is no EXIF")
    rgb = read_image(data)
    assert (rgb.getpixel((0, 0)), rgb.info) == ((9, 8, 7), {})


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert read_image(data).getpixel((0, 0)) == (255, 0, 0)


def test_mode_is_converted_to_before_transparency_is_applied():
    data = encode(Image.new("RGBA", (2, 2), (9, 8, 7, 0)))
    assert read_image(data, mode="RGB").getpixel((0, 0)) == (9, 8, 7)  # as datasets.Image(mode="RGB") decodes


JPEG = encode(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")

UNREADABLE = {
    "truncated": JPEG[: len(JPEG) // 2],
    "only a header": JPEG[:30],
    "zero bytes": b"",
    "text": b"this is no image",
    "missing file": "no/such/file.jpg",
    "nothing": None,
    "neither bytes nor path": {"bytes": None, "path": None},
    "no pixels": np.zeros((0, 4, 3), np.uint8),
    "not finite": Image.fromarray(np.array([[np.nan]], np.float32)),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_images_are_named(name):
    with pytest.raises(UnreadableImageError, match=r"Cannot read row 7 \(a\.jpg\): "):
        read_image(UNREADABLE[name], where="row 7 (a.jpg)")


@pytest.mark.parametrize("width", [11, 25])  # Pillow warns at the one, and raises at the other
@pytest.mark.parametrize("action", ["error", "default"])
def test_decompression_bombs_are_refused(monkeypatch, width, action):
    data = encode(Image.new("RGB", (width, 10)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        filters = list(warnings.filters)
        with pytest.raises(UnreadableImageError, match="decompression bomb"):
            read_image(data)
        assert warnings.filters == filters
    assert Image.MAX_IMAGE_PIXELS == 100


def test_large_images_are_read_if_the_user_lifted_the_limit(monkeypatch):
    data = encode(Image.new("RGB", (25, 10)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(data).size == (25, 10)


COLOUR = np.array([[[10, 20, 30], [40, 50, 60]]], dtype=np.uint8)  # (H, W, C) = (1, 2, 3)
GREY = np.array([[10, 250]], dtype=np.uint8)

ARRAYS = {
    "uint8 (H, W, 3)": (COLOUR, COLOUR),
    "uint8, not contiguous": (COLOUR[:, ::-1], COLOUR[:, ::-1]),
    "uint8 (H, W, 4)": (np.dstack([COLOUR, np.full((1, 2), 255, np.uint8)]), COLOUR),
    "uint8 (H, W)": (GREY, np.dstack([GREY] * 3)),
    "uint8 (H, W, 1)": (GREY[..., None], np.dstack([GREY] * 3)),
    "int64": (COLOUR.astype(np.int64), COLOUR),
    "float32": ((COLOUR / 255).astype(np.float32), COLOUR),
    "float16": ((COLOUR / 255).astype(np.float16), COLOUR),
    "uint16": (GREY.astype(np.uint16) * 257, np.dstack([GREY] * 3)),
    "bool": (GREY > 100, np.dstack([np.array([[0, 255]])] * 3)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_become_images(name):
    array, expected = ARRAYS[name]
    np.testing.assert_array_equal(np.asarray(read_image(array)), expected)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bfloat16", "int64"])
def test_tensors_become_images(dtype):
    import torch

    pixels = torch.from_numpy(COLOUR.copy()).permute(2, 0, 1)  # (C, H, W)
    tensor = pixels.to(getattr(torch, dtype)) if "int" in dtype else (pixels / 255).to(getattr(torch, dtype))
    tolerance = 1 if dtype == "bfloat16" else 0
    np.testing.assert_allclose(np.asarray(read_image(tensor)).astype(int), COLOUR, atol=tolerance)
    np.testing.assert_array_equal(np.asarray(read_image(pixels[0])), np.dstack([COLOUR[..., 0]] * 3))


def test_tensors_that_are_not_channels_first_are_refused():
    import torch

    with pytest.raises(InputError, match=r"\(C, H, W\) .* got \(8, 8, 3\)"):
        read_image(torch.zeros(8, 8, 3, dtype=torch.uint8), where="row 2")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.full((2, 2, 3), -1.5), r"row 2: .*\[0, 1\].* -1\.5 .*normalised.*Normalize"),
        (np.full((2, 2, 3), np.nan), "nan"),
        (np.full((2, 2), 256), r"\[0, 255\].* 256"),
        (np.zeros((3, 8, 8), np.uint8), r"\(H, W, C\).* got \(3, 8, 8\)"),
        (np.zeros(5, np.uint8), r"got \(5,\)"),
        (np.array([["a"]]), "numbers"),
        (3, "row 2: expected a PIL image.* got int"),
        ({"image": None}, "got dict"),
    ],
)
def test_other_values_are_refused(value, words):
    with pytest.raises(InputError, match=words):
        read_image(value, where="row 2")


def test_digest_is_that_of_size_and_pixels(tmp_path):
    image = Image.fromarray(COLOUR)
    (tmp_path / "a.png").write_bytes(encode(image))
    expected = hashlib.blake2b(struct.pack("<II", 2, 1) + COLOUR.tobytes(), digest_size=16).digest()
    stored = {"bytes": encode(image), "path": None}
    for value in (image, COLOUR, encode(image), stored, tmp_path / "a.png", str(tmp_path / "a.png")):
        assert image_digest(value) == expected


def test_digest_tells_shapes_and_pixels_apart():
    tall, wide = np.zeros((4, 1), np.uint8), np.zeros((1, 4), np.uint8)
    assert len({image_digest(tall), image_digest(wide), image_digest(wide + 1)}) == 3


def test_stored_images_are_told_from_other_mappings():
    assert is_image({"bytes": b"", "path": None})
    assert is_image({"path": "a.jpg"})
    assert is_image(Image.new("L", (1, 1)))
    assert not is_image({"bytes": b"", "path": None, "label": 1})
    assert not is_image({})
    assert not is_image("a.jpg")
