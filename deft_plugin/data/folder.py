"""A folder of class folders: which image files are in it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from deft_plugin.errors import InputError

IMAGE_EXTENSIONS = frozenset(
    (
        ".avif",
        ".bmp",
        ".gif",
        ".jpeg",
        ".jpg",
        ".jp2",
        ".pbm",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    )
)
_LEFT_BY_SYSTEMS = frozenset(("desktop.ini", "Thumbs.db"))


def find_files(root: Path, *, split: str | None = None) -> dict[str, list[Path]]:
    """List the images of each class folder, at any depth below it.

    Hidden files and folders are passed over; other files that are no images are left out with a warning.

    Parameters
    ----------
    root : Path
    split : str, optional
        Folder of one split, such as "train"; "all" for all of them together.

    Returns
    -------
    dict of str to list of Path
        Sorted by class name (that of the folder), then by path. A class may have no image.

    Raises
    ------
    InputError
        If `root` is no folder of class folders, holds no image, or has images outside of the class folders.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for file in ("dog/1.jpg", "cat/a/2.PNG", "cat/1.jpg"):
    ...     (root / file).parent.mkdir(parents=True, exist_ok=True)
    ...     (root / file).touch()
    >>> {name: [file.name for file in files] for name, files in find_files(root).items()}
    {'cat': ['1.jpg', '2.PNG'], 'dog': ['1.jpg']}
    """
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise InputError(
            f"Expected a folder of class folders, a Parquet file, or a saved datasets.Dataset, but {root} "
            f"{problem} (looked up from {Path.cwd()})."
        )
    entries = sorted(entry for entry in root.iterdir() if not _is_passed_over(entry.name))
    loose = [entry for entry in entries if not entry.is_dir()]
    _refuse_loose_images(root, [file for file in loose if _is_image_file(file)])
    found = {entry.name: sorted(_walk(entry)) for entry in entries if entry.is_dir()}
    if not found:
        raise InputError(f"Expected a folder of class folders (cat/1.jpg, dog/1.jpg), but {root} has no folder in it.")
    others = [file for files in (loose, *found.values()) for file in files if not _is_image_file(file)]
    images = {name: [file for file in files if _is_image_file(file)] for name, files in found.items()}
    if not any(images.values()):
        raise InputError(
            f"Expected images ({', '.join(sorted(IMAGE_EXTENSIONS))}) in the class folders, but {root} has "
            f"none in {_some(list(images))}."
        )
    if others:
        warnings.warn(
            f"{len(others)} files in {root} are no images by their names and are left out: "
            f"{_some([str(file.relative_to(root)) for file in others])}.",
            stacklevel=2,
        )
    return images


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _is_passed_over(name)]
        yield from (Path(parent, name) for name in files if not _is_passed_over(name))


def _refuse_loose_images(root: Path, files: list[Path]) -> None:
    if files:
        raise InputError(
            f"Expected every image in a class folder, but {len(files)} are directly in {root}: "
            f"{_some([file.name for file in files])}. Move each into the folder of its class (cat/1.jpg)."
        )


def _is_image_file(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_EXTENSIONS


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_BY_SYSTEMS


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
