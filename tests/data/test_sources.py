"""Keys of images by their content, and sources that several threads read from."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest
from PIL import Image

from deft_plugin.data.reading import read_image_data
from deft_plugin.data.sources import IndexedImages, StoredImages
from deft_plugin.errors import UnreadableImageError

BMP = [np.full((4, 4, 3), value, np.uint8) for value in (10, 200)]


@pytest.mark.parametrize("kind", ["folder", "paths", "stored paths"])
def test_fingerprint_is_of_bytes_not_of_name_size_and_time(tmp_path, kind):
    """Two BMP files of one size, with the same name and time."""

    def images(root):
        file = root / "cat" / "0.bmp"
        if kind == "folder":
            return read_image_data(root).images
        if kind == "paths":
            return IndexedImages([str(file)])
        stored = datasets.Dataset.from_dict({"image": [str(file)], "label": [0]})
        return StoredImages(stored.cast_column("image", datasets.Image()), "image")

    def write(root, pixels):
        (root / "cat").mkdir(parents=True, exist_ok=True)
        (root / "dog").mkdir(exist_ok=True)
        for file in (root / "cat" / "0.bmp", root / "dog" / "1.bmp"):
            Image.fromarray(pixels).save(file)
            os.utime(file, ns=(1, 1))

    write(tmp_path / "a", BMP[0])
    write(tmp_path / "b", BMP[1])
    write(tmp_path / "c", BMP[0])
    source = images(tmp_path / "a")
    before = source.fingerprint()
    assert images(tmp_path / "b").fingerprint() != before
    assert images(tmp_path / "c").fingerprint() == before
    source.load(0)
    write(tmp_path / "a", BMP[1])
    with pytest.raises(UnreadableImageError, match=r"Cannot read row 0 \(.*0\.bmp\): its file has changed"):
        source.load(0)
    assert source.fingerprint() != before
    assert source.load(0).getpixel((0, 0)) == (200, 200, 200)


class OneOpenFile:
    """Rows of one file that is read with seek, as archives are."""

    def __init__(self, file):
        self._file = file

    def __len__(self):
        return 5

    def __getitem__(self, row):
        self._file.seek(row * 48)
        time.sleep(0.001)
        return np.frombuffer(self._file.read(48), np.uint8).reshape(4, 4, 3)


def test_threads_do_not_mix_up_the_rows_of_an_open_file(tmp_path):
    (tmp_path / "rows").write_bytes(b"".join(bytes([row]) * 48 for row in range(5)))
    with open(tmp_path / "rows", "rb") as file, ThreadPoolExecutor(8) as threads:
        images = IndexedImages(OneOpenFile(file))
        rows = [*range(5)] * 20
        found = [image.getpixel((0, 0))[0] for image in threads.map(images.load, rows)]
    assert found == rows
