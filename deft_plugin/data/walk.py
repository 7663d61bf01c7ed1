"""What lies in a folder: regular files, each real folder once, without the junk of systems and our own output."""

from __future__ import annotations

import os
import stat
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NoReturn, TypeAlias

from deft_plugin.errors import InputError, as_text

OWN_FILES = frozenset(
    ("contact_sheet.png", "detection.json", "issues.csv", "issues.parquet", "report.html", "verdicts.parquet")
)
"""What a detection and its report write."""

HEIF_EXTENSIONS = frozenset((".heic", ".heif", ".hif"))
_NO_PHOTOS = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))  # Pillow hands these to other programs
_LEFT_BY_SYSTEMS = frozenset(
    (
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "__macosx",
        "desktop.ini",
        "lost+found",
        "system volume information",
        "thumbs.db",
    )
)


Parts: TypeAlias = tuple[str, ...]
"""Where something is below a folder: the names on the way to it."""


@dataclass
class Walk:
    """What was found in a folder.

    Attributes
    ----------
    files : list of Parts
        Sorted.
    folders : list of Parts
        Those below it, sorted; also ones without files.
    passed_over : dict of str to list of Parts
        By the reason.
    """

    files: list[Parts] = field(default_factory=list[Parts])
    folders: list[Parts] = field(default_factory=list[Parts])
    passed_over: dict[str, list[Parts]] = field(default_factory=dict[str, list[Parts]])

    def pass_over(self, parts: Parts, reason: str) -> None:
        """Remember what is not read, and why."""
        self.passed_over.setdefault(reason, []).append(parts)


@cache
def image_extensions() -> frozenset[str]:
    """Suffixes of image files that Pillow opens here; with those of HEIF, if pillow-heif is installed."""
    from PIL import Image

    open_heif()
    Image.init()
    kinds = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in kinds if kind in (*Image.OPEN, "MPO") and kind not in _NO_PHOTOS)


@cache
def open_heif() -> bool:
    """Let Pillow open HEIF files in this process, if pillow-heif is installed; tell whether it is."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def is_image_file(name: str) -> bool:
    """Tell by its name whether a file is an image."""
    return suffix_of(name) in image_extensions()


def suffix_of(name: str) -> str:
    """Suffix of a file's name, in small letters."""
    return os.path.splitext(name)[1].lower()


def walk(root: Path) -> Walk:
    """List what lies in a folder, at any depth.

    Hidden files and folders are passed over in silence. Links to folders are followed where they lead to one that
    is not read already; a link to a file is a file.

    Parameters
    ----------
    root : Path

    Raises
    ------
    InputError
        If a folder cannot be read.
    """
    found, links, seen = Walk(), deque[Parts](), set[tuple[int, int]]()
    _walk_real(root, (), found, links, seen)
    while links:  # after all real folders, so that none is read by its link
        link = links.popleft()
        if _leads_back(root.joinpath(*link), seen):
            found.pass_over(link, "links to folders that are read already, or that hold them")
        else:
            found.folders.append(link)
            _walk_real(root, link, found, links, seen)
    found.files.sort()
    found.folders.sort()
    return found


def warn_of_passed_over(root: Path, passed_over: dict[str, list[Parts]]) -> None:
    """Say once what is not read, and why."""
    if passed_over:
        reasons = [f"{reason}: {some(list(map('/'.join, sorted(parts))))}" for reason, parts in passed_over.items()]
        warnings.warn(as_text(f"In {root} these are passed over: {'; '.join(reasons)}."), stacklevel=4)


def some(names: Sequence[str], limit: int = 5) -> str:
    """Join the first names."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


def _walk_real(root: Path, top: Parts, found: Walk, links: deque[Parts], seen: set[tuple[int, int]]) -> None:
    for parent, folders, files in os.walk(root.joinpath(*top), onerror=_raise):
        here = Path(parent).relative_to(root).parts
        seen.add(_identity(parent))
        kept: list[str] = []
        for name in folders:
            parts = (*here, name)
            if name.startswith("."):
                continue
            if name.lower() in _LEFT_BY_SYSTEMS or (name.startswith("_") and not here):
                found.pass_over(parts, "folders that other programs left, or that begin with _")
            elif os.path.islink(os.path.join(parent, name)):
                links.append(parts)
            else:
                kept.append(name)
                found.folders.append(parts)
        folders[:] = kept
        _add_files(parent, here, files, found)


def _add_files(folder: str, here: Parts, names: list[str], found: Walk) -> None:
    own = OWN_FILES.intersection(names)
    is_output = "contact_sheet.png" in own or len(own) > 1
    for name in names:
        if name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS:
            continue
        parts = (*here, name)
        if is_output and name in own:
            found.pass_over(parts, "output of deft")
        elif not _is_regular(os.path.join(folder, name)):
            found.pass_over(parts, "no regular files")
        else:
            found.files.append(parts)


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True  # a broken link is an image that cannot be read


def _leads_back(link: Path, seen: set[tuple[int, int]]) -> bool:
    above = Path(os.path.realpath(link.parent))
    return _identity(link) in seen or above.is_relative_to(os.path.realpath(link))


def _identity(folder: str | Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        _raise(error)
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> NoReturn:
    raise InputError(
        f"Expected a folder that can be read, but {error.filename} cannot: {type(error).__name__}: {error.strerror}. "
        "Change its permissions, or move it away."
    ) from error
