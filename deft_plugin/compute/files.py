"""Files that are written as a whole, or not at all, and the question beforehand whether they can be."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import uuid
from collections.abc import Generator
from pathlib import Path

from deft_plugin.errors import OutputError

_PROBE = bytes(2**16)


def write_json(path: str | os.PathLike[str], obj: object) -> None:
    """Write JSON so that a reader finds the old file or the whole new one, never a part; folders are made.

    Parameters
    ----------
    path : path
    obj : object
        Of JSON values.

    Raises
    ------
    TypeError, ValueError
        If `obj` has something that JSON has not, such as NaN; a file that was there stays as it is.
    OutputError
        If it cannot be written.
    """
    write_text(path, to_json(obj, allow_nan=False) + "\n")


def to_json(obj: object, *, allow_nan: bool = True) -> str:
    r"""Make JSON text that is UTF-8 whatever names are in it: lone surrogates, which UTF-8 has not, are escaped.

    Parameters
    ----------
    obj : object
        Of JSON values.
    allow_nan : bool
        Whether numbers may be NaN or infinite, which JSON has not, but Python reads.

    Examples
    --------
    >>> to_json("café \udce9")
    '"café \\udce9"'
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=allow_nan)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file so that a reader finds the old one or the whole new one, never a part; folders are made.

    Parameters
    ----------
    path : path
    text : str

    Raises
    ------
    OutputError
        If it cannot be written; a file that was there stays as it is.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file as `write_text` does.

    Parameters
    ----------
    path : path
        A link is followed. A device or a pipe, such as /dev/stdout, is written to as it is.
    content : bytes

    Raises
    ------
    OutputError
    """
    with saying_what_cannot_be_written(path):
        if _is_stream(path):
            with open(path, "wb") as stream:
                stream.write(content)
            return
        with new_file(path) as new:
            new.write_bytes(content)


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Generator[Path]:
    """Give a place to write a file at; when all of it is on the disk, it takes the place of `path`, a link followed.

    Parameters
    ----------
    path : path
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_folder_beside(target) as folder:
        new = folder / target.name
        yield new
        with new.open("rb") as written:
            os.fsync(written.fileno())
        new.replace(target)


@contextlib.contextmanager
def saying_what_cannot_be_written(path: str | os.PathLike[str]) -> Generator[None, None, None]:
    """Turn whatever the system says into an `OutputError` that names the path.

    Parameters
    ----------
    path : path
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"Expected to write {path}, but: {error.strerror or error}. Free some space, or give another place."
        ) from error


@contextlib.contextmanager
def new_folder_beside(target: Path) -> Generator[Path, None, None]:
    """Make a hidden folder beside a file or folder that is to be replaced; it is gone afterwards.

    What a process left that was killed is removed, too: a folder that nobody holds any more.

    Parameters
    ----------
    target : Path
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.new"):
        with _held(left) as is_free:
            if is_free:
                shutil.rmtree(left, ignore_errors=True)
    new = target.parent / f".{target.name}.{uuid.uuid4().hex}.new"
    new.mkdir()
    try:
        with _held(new):
            yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)  # gone already, if it has taken the place of a folder


@contextlib.contextmanager
def _held(folder: Path) -> Generator[bool, None, None]:
    """Hold a folder for as long as this process lives; gives whether nobody else did."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows has no such locks: what is left there stays
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def check_file_can_be_written(path: str | os.PathLike[str]) -> None:
    """Find out before the work whether a file can be written afterwards. Nothing is left of the question.

    Parameters
    ----------
    path : path

    Raises
    ------
    OutputError
        If a folder is in its place, a file is in the place of a folder above it, or the disk is full or read-only.
    """
    if os.path.isdir(path):
        raise OutputError(f"Expected a file to write, but {path} is a folder. Name a file in it, or move it away.")
    if not _is_stream(path):
        _check_folder(path, Path(os.path.realpath(path)).parent)


def _is_stream(path: str | os.PathLike[str]) -> bool:
    """Tell a device or a pipe, such as /dev/stdout, from a file that can be replaced."""
    is_other = os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
    return is_other or os.fspath(path).startswith(("/dev/", "/proc/"))


def check_folder_can_be_written(path: str | os.PathLike[str]) -> None:
    """Find out before the work whether files can be written into a folder afterwards, which need not be there yet.

    Parameters
    ----------
    path : path

    Raises
    ------
    OutputError
    """
    _check_folder(path, Path(os.path.realpath(path)))


def _check_folder(path: str | os.PathLike[str], folder: Path) -> None:
    with saying_what_cannot_be_written(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.stat(path)  # a name that is too long, a link that leads to itself
    there = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    if not there.is_dir():
        raise OutputError(f"Expected to write {path}, but {there} is a file and no folder. Give another place.")
    with saying_what_cannot_be_written(path):
        probe = there / f".deft.{uuid.uuid4().hex}.probe"
        try:
            probe.write_bytes(_PROBE)
        finally:
            probe.unlink(missing_ok=True)
