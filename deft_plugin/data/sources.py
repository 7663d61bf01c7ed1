"""Where images come from: files, rows of a Hugging Face data set, or anything indexed by row."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import xxhash
from PIL import Image

from deft_plugin.data.columns import LABEL_NAMES
from deft_plugin.data.digests import UNREADABLE_DIGEST, image_digest
from deft_plugin.data.images import is_image, read_image
from deft_plugin.errors import InputError, UnreadableImageError

if TYPE_CHECKING:
    from datasets import Dataset


_READERS = 8
_ROWS_AHEAD = 4096
_BYTES_AT_ONCE = 1 << 20
NO_LABEL = object()
"""Stands for the label of a row that has none."""

_IMAGE_KEYS = ("image", "pixel_values", "img")
_LABEL_KEYS = ("target", "targets", "class", "y")
_ROWS_TO_READ_AGAIN, _READS = 8, 3  # a flip at random goes unseen once in 65,536 times


class ImageSource(Protocol):
    """Images by row. Rows are read when they are asked for, in any order, from any thread or process."""

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
        """Hex digest of the content of all images in their order: a key for what is computed from them.

        From then on a row whose file has changed cannot be read: what is kept under this key is of these images.
        """
        ...


class FileImages:
    """Image files.

    Parameters
    ----------
    files : sequence of Path of length N
        The fingerprint is of their bytes alone, so that they may be moved.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._stamps: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self._files)

    def load(self, row: int) -> Image.Image:
        """Decode one image to RGB."""
        return _read_file(self._files[row], self._stamps[row] if self._stamps else None, where=describe(self, row))

    def path(self, row: int) -> str | None:
        """File of a row."""
        return os.fspath(self._files[row])

    def fingerprint(self) -> str:
        """Hex digest of all images in their order."""
        self._stamps = list(_stamp_all(self._files))
        return _hash_all(self._stamps)


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
        self._stamps: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self._stored)

    def load(self, row: int) -> Image.Image:
        """Decode one image to RGB."""
        value = self._value(row)
        where = _name(row, _path_of(value))
        if isinstance(file := _file_or_bytes(value), str):
            return _read_file(file, self._stamps[row] if self._stamps else None, where=where, mode=self._mode)
        return read_image(value, where=where, mode=self._mode)

    def path(self, row: int) -> str | None:
        """File of a row, if it is stored."""
        return _path_of(self._value(row))

    def fingerprint(self) -> str:
        """Hex digest of all images in their order."""
        self._stamps = [
            stamp
            for table in cast("Iterable[Any]", self._stored.with_format("arrow").iter(batch_size=100))
            for stamp in _stamp_all([_file_or_bytes(value) for value in table.column(self._column).to_pylist()])
        ]
        return _hash_all([str(self._mode).encode(), *self._stamps])

    def _value(self, row: int) -> Mapping[str, Any] | None:
        return cast("dict[str, Any]", self._stored[int(row)])[self._column]


class IndexedImages:
    """Anything with ``len(data)`` and ``data[row]``: a sequence of images, or a map-style torch data set.

    An element is what `deft_plugin.data.images.read_image` takes, or a row with an image and a label; see
    `split_sample`. Each access must give the same pixels, so a data set must not augment its images. The fingerprint
    needs every image to be decoded, except those given as paths. Only one thread at a time gets ``data[row]``: a data
    set may read all of its images from one open file.

    Parameters
    ----------
    data : object
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self._lock = threading.Lock()
        self._stamps: list[bytes] | None = None

    def __reduce__(self) -> tuple[type[IndexedImages], tuple[Any]]:
        return IndexedImages, (self._data,)

    def __len__(self) -> int:
        return len(self._data)

    def load(self, row: int) -> Image.Image:
        """Decode one image to RGB."""
        where = describe(self, row)
        with self._lock:
            element = self._element(row)
            if not isinstance(element, str | os.PathLike):  # an opened image reads its file when it is decoded
                return read_image(element, where=where)
        return _read_file(cast("os.PathLike[str]", element), self._stamps[row] if self._stamps else None, where=where)

    def path(self, row: int) -> str | None:
        """File of a row, if the data are files or know them."""
        samples = getattr(self._data, "samples", None)  # torchvision's ImageFolder: (path, label)
        known = samples if isinstance(samples, list) else self._data
        return _path_of(known[row]) if isinstance(known, list | tuple) else None

    def fingerprint(self) -> str:
        """Hex digest of all images in their order."""
        self._stamps = [stamp for rows in _in_pieces(range(len(self))) for stamp in self._stamp_rows(rows)]
        return _hash_all(self._stamps)

    def find_change(self) -> int | None:
        """Find a row whose image is another one when it is read again; None if the few that are looked at stay.

        A list or an array gives what it holds, and is not looked at.
        """
        if isinstance(self._data, list | tuple | np.ndarray):
            return None
        for row in np.unique(np.linspace(0, len(self) - 1, _ROWS_TO_READ_AGAIN, dtype=int)).tolist():
            if len({self._digest(row) for _ in range(_READS)}) > 1:
                return row
        return None

    def _digest(self, row: int) -> bytes:
        try:
            return image_digest(self._element(row))
        except (InputError, UnreadableImageError):  # told, with the row, by the pass over all images
            return UNREADABLE_DIGEST

    def _element(self, row: int) -> Any:
        return split_sample(get_sample(self._data, row))[0]

    def _stamp_rows(self, rows: Sequence[int]) -> Iterator[bytes]:
        """Stamps of some rows: files are read side by side, images one after the other."""
        return _stamp_all([self._file_or_digest(row) for row in rows])

    def _file_or_digest(self, row: int) -> str | bytes | None:
        try:
            with self._lock:
                element = self._element(row)
                if isinstance(element, str | os.PathLike):
                    return os.fspath(cast("os.PathLike[str]", element))
                return image_digest(read_image(element, where=describe(self, row)))
        except UnreadableImageError:
            return None


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


def split_sample(sample: object) -> tuple[Any, Any]:
    """Take image and label out of a row of a torch data set.

    Parameters
    ----------
    sample : object
        An image; a tuple (image, label), with more behind, such as an index, or before the image; or a mapping with
        "image" and "label", or the names that Hugging Face models use, "pixel_values" and "labels".

    Returns
    -------
    image, label : object
        The label is `NO_LABEL` if there is none.

    Raises
    ------
    InputError
        If it is not clear which value of a mapping is meant.

    Examples
    --------
    >>> split_sample(("1.png", 2, 17)), split_sample({"image": "1.png", "label": 2})
    (('1.png', 2), ('1.png', 2))
    """
    if isinstance(sample, Mapping) and not is_image(sample):
        row = cast("Mapping[str, Any]", sample)
        image = [name for name in row if name in _IMAGE_KEYS] or [name for name in row if _is_pixels(row[name])]
        label = [name for name in row if name in LABEL_NAMES] or [name for name in row if name in _LABEL_KEYS]
        return row[_only_key("image", image, row)], row[_only_key("label", label, row)] if label else NO_LABEL
    if isinstance(sample, tuple | list):
        values = cast("Sequence[Any]", sample)
        if len(values) > 1:
            # Of two the first is the image, whatever it is; an index or a name may stand before the image and label.
            first = next((place for place, value in enumerate(values[:-1]) if _is_pixels(value)), 0)
            return values[first], values[first + 1] if first + 1 < len(values) else NO_LABEL
    return sample, NO_LABEL


def _is_pixels(value: object) -> bool:
    return is_image(value) or getattr(value, "ndim", 0) >= 2


def _only_key(kind: str, found: list[str], row: Mapping[str, Any]) -> str:
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"Expected rows with one {kind}, but got {', '.join(found) or 'none'} among {', '.join(map(str, row))}. Let "
        "the data set give pairs (image, label), or mappings with 'image' and 'label'."
    )


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
    """File of a value that is one, has one, or is a row (file, label)."""
    image = split_sample(value)[0]
    if isinstance(image, Mapping):
        image = cast("Mapping[str, object]", image).get("path")
    file = getattr(image, "filename", None) or image
    return os.fspath(file) if isinstance(file, str | Path) else None


def _file_or_bytes(value: Mapping[str, Any] | None) -> str | bytes | None:
    """Find what a stored image is read from; None if there is none."""
    if value is None:
        return None
    return value["bytes"] if value["bytes"] is not None else value["path"] or None


def _in_pieces(rows: range) -> Iterator[range]:
    return (rows[start : start + _ROWS_AHEAD] for start in range(0, len(rows), _ROWS_AHEAD))


def _stamp_all(images: Sequence[str | os.PathLike[str] | bytes | None]) -> Iterator[bytes]:
    """Digest each image's content, 16 bytes; files are read by a few threads."""
    with ThreadPoolExecutor(_READERS) as threads:
        for rows in _in_pieces(range(len(images))):
            yield from threads.map(_stamp, images[rows.start : rows.stop])


def _stamp(image: str | os.PathLike[str] | bytes | None) -> bytes:
    """Digest bytes, or those of a file; `UNREADABLE_DIGEST` where there are none to be read."""
    if isinstance(image, bytes):
        return xxhash.xxh3_128_digest(image)
    total = xxhash.xxh3_128()
    try:
        if image is None or not os.path.isfile(image):
            return UNREADABLE_DIGEST
        with open(image, "rb", buffering=0) as file:
            while piece := file.read(_BYTES_AT_ONCE):
                total.update(piece)
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return UNREADABLE_DIGEST
    return total.digest()


def _read_file(
    file: str | os.PathLike[str], stamp: bytes | None, *, where: str, mode: str | None = None
) -> Image.Image:
    """Decode a file; one whose content has another stamp than before, if there is one, cannot be read."""
    if stamp is None:
        return read_image(file, where=where, mode=mode)
    try:
        content = Path(file).read_bytes() if os.path.isfile(file) else b""
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        content = b""
    if content and _stamp(content) != stamp:
        raise UnreadableImageError(
            f"Cannot read {where}: its file has changed since the run began. Leave the images as they are, and run "
            "again."
        )
    try:
        return read_image(content, where=where, mode=mode)
    except UnreadableImageError:
        read_image(file, where=where, mode=mode)  # says it of the file
        raise


def _hash_all(*groups: Iterable[bytes]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for group in groups:
        for part in group:
            total.update(len(part).to_bytes(8, "little"))
            total.update(part)
    return total.hexdigest()
