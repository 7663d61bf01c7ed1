"""Files of the feature cache: three arrays and their checksums, joined of parts.

The checksums are written last, and say that the arrays are whole. An array that does not match, cut off or of another
shape, is as good as none.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import xxhash

from deft_plugin.compute.files import new_file, write_json
from deft_plugin.data.digests import DIGEST_SIZE

CHECKSUMS = "checksums.json"


class FeatureFiles:
    """One entry of the cache.

    Parameters
    ----------
    folder : Path
    num_rows : int
        N.
    feature_dim : int
        D.
    """

    def __init__(self, folder: Path, num_rows: int, feature_dim: int) -> None:
        self._folder, self._parts, self._num_rows = folder, folder / "parts", num_rows
        self._kinds: dict[str, tuple[type[Any], tuple[int, ...]]] = {
            "features": (np.float16, (feature_dim,)),
            "digests": (np.uint8, (DIGEST_SIZE,)),
            "is_readable": (np.bool_, ()),
        }

    def open(self) -> dict[str, np.ndarray]:
        """Map the arrays into memory; who writes into them gets a copy of the page."""
        return {name: np.load(self._file(name), mmap_mode="c", allow_pickle=False) for name in self._kinds}

    def read(self) -> dict[str, np.ndarray] | None:
        """Give the arrays if all are there and whole; what is damaged is removed, and said.

        Warns
        -----
        UserWarning
        """
        if not os.path.lexists(self._folder) or self._is_unfinished():
            return None
        try:
            known = json.loads((self._folder / CHECKSUMS).read_text(encoding="utf-8"))
            arrays = self.open()
            for name, array in arrays.items():
                dtype, shape = self._kinds[name]
                if array.dtype != dtype or array.shape != (self._num_rows, *shape) or _checksum([array]) != known[name]:
                    raise ValueError(f"{name}.npy is not what was written")
        except (PermissionError, MemoryError):
            raise
        except Exception as error:  # numpy and json raise nearly anything on damaged files
            if len(reason := f"{type(error).__name__}: {error}") > 200:
                reason = f"{reason[:200]}…"
            _say_damaged(self._folder, reason)
            _remove(self._folder)
            return None
        return arrays

    def has_part(self, rows: range) -> bool:
        """Tell whether a part is there and whole; one that is damaged is removed, and said.

        Warns
        -----
        UserWarning
        """
        file = self._part(rows)
        if not os.path.lexists(file):
            return False
        try:
            self._read_part(rows)
        except (PermissionError, MemoryError):
            raise
        except Exception as error:  # zipfile and numpy raise nearly anything on damaged files
            _say_damaged(file, f"{type(error).__name__}: {error}")
            _remove(file)
            return False
        return True

    def write_part(self, rows: range, arrays: dict[str, np.ndarray]) -> None:
        """Keep a part of a pass."""
        if os.path.lexists(self._parts) and not self._parts.is_dir():
            _say_damaged(self._parts, "it is no folder")
            _remove(self._parts)
        self._parts.mkdir(parents=True, exist_ok=True)
        with _whole(self._part(rows)) as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    def join(self, parts: Sequence[range]) -> None:
        """Join the parts into the arrays."""
        self._write({name: self._blocks(parts, name) for name in self._kinds})
        shutil.rmtree(self._parts, ignore_errors=True)

    def replace(self, rows: np.ndarray, found: dict[str, np.ndarray]) -> None:
        """Write the arrays anew, with other values in some rows (n,)."""
        arrays = self.open()
        for name, array in arrays.items():
            array[rows] = found[name]
        self._write({name: [array] for name, array in arrays.items()})

    def _write(self, arrays: dict[str, Iterable[np.ndarray]]) -> None:
        checksums: dict[str, str] = {}
        # Not through a memory map: a full disk would end the process (SIGBUS) instead of being an error.
        with contextlib.ExitStack() as files:
            for name, blocks in arrays.items():
                dtype, shape = self._kinds[name]
                stream = files.enter_context(_whole(self._file(name)))
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (self._num_rows, *shape)}
                np.lib.format.write_array_header_1_0(stream, header)
                checksums[name] = _checksum(blocks, stream)
        write_json(self._folder / CHECKSUMS, checksums)

    def _blocks(self, parts: Sequence[range], name: str) -> Iterator[np.ndarray]:
        return (self._read_part(rows)[name] for rows in parts)

    def _read_part(self, rows: range) -> dict[str, np.ndarray]:
        with self._part(rows).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            part = {name: file[name] for name in self._kinds}
        for name, (dtype, shape) in self._kinds.items():
            if part[name].dtype != dtype or part[name].shape != (len(rows), *shape):
                raise ValueError(f"{name} is {part[name].dtype} of shape {part[name].shape}")
        if not np.isfinite(part["features"]).all():
            raise ValueError("features are not finite")
        return part

    def _is_unfinished(self) -> bool:
        """Tell whether a pass was killed before its parts were joined."""
        if not self._folder.is_dir() or os.path.lexists(self._folder / CHECKSUMS):
            return False
        return os.path.lexists(self._parts) or not any(os.path.lexists(self._file(name)) for name in self._kinds)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.npy"

    def _part(self, rows: range) -> Path:
        return self._parts / f"{rows.start:010d}.npz"


@contextlib.contextmanager
def _whole(file: Path) -> Generator[IO[bytes]]:
    """Write a file that takes its name when all of it is on the disk, also of a folder that is in its place."""
    with new_file(file) as new:
        with new.open("wb") as stream:
            yield stream
        if file.is_dir():
            _remove(file)


def _checksum(blocks: Iterable[np.ndarray], stream: IO[bytes] | None = None) -> str:
    """Digest the bytes of an array that comes in blocks, and write them, too."""
    total = xxhash.xxh3_128()
    for block in blocks:
        content = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
        total.update(content)
        if stream:
            stream.write(content)
    return total.hexdigest()


def _say_damaged(path: Path, reason: str) -> None:
    warnings.warn(f"{path} in the feature cache is damaged ({reason}); it is computed anew.", stacklevel=2)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
