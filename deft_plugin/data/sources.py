"""Where images come from: files, rows of a Hugging Face data set, or anything indexed by row."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from PIL import Image

from deft_plugin.data.digests import UNREADABLE_DIGEST, image_digest
from deft_plugin.data.images import read_image
from deft_plugin.errors import UnreadableImageError

if TYPE_CHECKING:
    from datasets import Dataset


class ImageSource(Protocol):
    """Images by row. Rows are read when they are asked for, in any order, from any process."""

    def __len__(self) -> int:
        """N."""
        ...

    def load(self, row: int) -> Image.Image:
        """Decode one image to RGB.

        Raises
        ------
        UnreadableImageError
            If it cannot be decoded; names the row, and the file if there is one.
        """
        ...

    def path(self, row: int) -> str | None:
        """File that a row comes from, as the data name it; None if it has none."""
        ...

    def fingerprint(self) -> str:
        """Hex digest of all images in their order: a key for what is computed from them."""
        ...


class FileImages:
    """Image files.

    Parameters
    ----------
    files : sequence of Path of length N
    root : Path
        Folder that the files are in. The fingerprint is of relative paths, so that the folder may be moved.
    """

    def __init__(self, files: Sequence[Path], root: Path) -> None:
        self._files = files
        self._root = root

    def __len__(self) -> int:
        return len(self._files)

    def load(self, row: int) -> Image.Image:
        """Decode one image to RGB."""
        return read_image(self._files[row], where=describe(self, row))

    def path(self, row: int) -> str | None:
        """File of a row."""
        return os.fspath(self._files[row])

    def fingerprint(self) -> str:
        """Hex digest of all images in their order."""
        return _hash_all(_file_key(file, os.path.relpath(file, self._root)) for file in self._files)


class StoredImages:
    """The image column of a Hugging Face data set, as it is stored: encoded bytes, or paths.

    Parameters
    ----------
    dataset : datasets.Dataset
    column : str
    """

    def __init__(self, dataset: Dataset, column: str) -> None:
        from datasets import Image as ImageFeature

        feature = dataset.features[column]
        self._column = column
        self._mode: str | None = getattr(feature, "mode", None)
        stored = dataset.select_columns([column]).with_format(None)
        self._stored = stored.cast_column(column, ImageFeature(mode=self._mode, decode=False))

    def __len__(self) -> int:
        return len(self._stored)

    def load(self, row: int) -> Image.Image:
        """Decode one image to RGB."""
        value = self._value(row)
        return read_image(value, where=_name(row, _path_of(value)), mode=self._mode)

    def path(self, row: int) -> str | None:
        """File of a row, if it is stored."""
        return _path_of(self._value(row))

    def fingerprint(self) -> str:
        """Hex digest of all images in their order."""
        return _hash_all([str(self._mode).encode()], self._keys())

    def _value(self, row: int) -> Mapping[str, Any] | None:
        return cast("dict[str, Any]", self._stored[int(row)])[self._column]

    def _keys(self) -> Iterable[bytes]:
        for table in cast("Iterable[Any]", self._stored.with_format("arrow").iter(batch_size=100)):
            yield from map(_stored_key, table.column(self._column).to_pylist())


class IndexedImages:
    """Anything with ``len(data)`` and ``data[row]``: a sequence of images, or a map-style torch data set.

    An element is what `deft_plugin.data.images.read_image` takes, or a pair (image, label). Each access must give
    the same pixels, so a data set must not augment its images. The fingerprint needs every image to be
    decoded, except those given as paths.

    Parameters
    ----------
    data : object
    """

    def __init__(self, data: Any) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def load(self, row: int) -> Image.Image:
        """Decode one image to RGB."""
        return read_image(self._element(row), where=describe(self, row))

    def path(self, row: int) -> str | None:
        """File of a row, if the data are files or know them."""
        samples = getattr(self._data, "samples", None)  # torchvision's ImageFolder: (path, label)
        known = samples if isinstance(samples, list) else self._data
        return _path_of(known[row]) if isinstance(known, list | tuple) else None

    def fingerprint(self) -> str:
        """Hex digest of all images in their order."""
        return _hash_all(map(self._key, range(len(self))))

    def _element(self, row: int) -> Any:
        sample = get_sample(self._data, row)
        return cast("Any", sample)[0] if is_pair(sample) else sample

    def _key(self, row: int) -> bytes:
        try:
            element = self._element(row)
            if isinstance(element, str | os.PathLike):
                return _file_key(cast("os.PathLike[str]", element), os.fspath(cast("Any", element)))
            return image_digest(read_image(element, where=describe(self, row)))
        except UnreadableImageError:
            return UNREADABLE_DIGEST


class SelectedImages:
    """Some rows of another source.

    Parameters
    ----------
    source : ImageSource
    rows : np.ndarray of shape (n,), int
    """

    def __init__(self, source: ImageSource, rows: np.ndarray) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, row: int) -> Image.Image:
        """Decode one image to RGB."""
        return self._source.load(int(self._rows[row]))

    def path(self, row: int) -> str | None:
        """File of a row."""
        return self._source.path(int(self._rows[row]))

    def fingerprint(self) -> str:
        """Hex digest of all images in their order."""
        return _hash_all([self._source.fingerprint().encode(), np.ascontiguousarray(self._rows).tobytes()])


def get_sample(data: Any, row: int) -> object:
    """Get ``data[row]``; a data set that fails to read its file is told apart from one with a bug.

    Raises
    ------
    UnreadableImageError
        If the file of this row cannot be read.
    """
    try:
        return data[row]
    except (OSError, EOFError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises
        raise UnreadableImageError(
            f"Cannot read row {row}: the data set raised {type(error).__name__}: {error}."
        ) from error


def is_pair(sample: object) -> bool:
    """Tell whether a sample is (image, label)."""
    return isinstance(sample, tuple | list) and len(cast("Sequence[object]", sample)) == 2


def describe(images: ImageSource, row: int) -> str:
    """Name a row for people: "row 7 (photos/cat/1.jpg)", or "row 7".

    Parameters
    ----------
    images : ImageSource
    row : int
    """
    return _name(row, images.path(row))


def _name(row: int, path: str | None) -> str:
    return f"row {row}" if path is None else f"row {row} ({path})"


def _path_of(value: object) -> str | None:
    """File of a value that is one, has one, or is a pair (file, label)."""
    image = cast("Sequence[object]", value)[0] if is_pair(value) else value
    if isinstance(image, Mapping):
        image = cast("Mapping[str, object]", image).get("path")
    file = getattr(image, "filename", None) or image
    return os.fspath(file) if isinstance(file, str | Path) else None


def _stored_key(value: Mapping[str, Any] | None) -> bytes:
    if value is None:
        return UNREADABLE_DIGEST
    if value["bytes"] is not None:
        return value["bytes"]
    return _file_key(value["path"], value["path"]) if value["path"] else UNREADABLE_DIGEST


def _file_key(file: str | os.PathLike[str], name: str) -> bytes:
    try:
        status = os.stat(file)
    except OSError:
        return os.fsencode(f"{name}\0missing")
    return os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")


def _hash_all(*groups: Iterable[bytes]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for group in groups:
        for part in group:
            total.update(len(part).to_bytes(8, "little"))
            total.update(part)
    return total.hexdigest()
