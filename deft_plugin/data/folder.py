"""A folder of class folders: which image files are in it, of which split."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NoReturn

from deft_plugin.data.splits import choose_splits, usual_split
from deft_plugin.data.walk import (
    HEIF_EXTENSIONS,
    Parts,
    Walk,
    is_image_file,
    open_heif,
    some,
    suffix_of,
    walk,
    warn_of_passed_over,
)
from deft_plugin.errors import InputError, as_text

_ADVICE = {
    ".zip": "Unpack it, and pass the folder.",
    ".gz": "Unpack it, and pass what is in it.",
    ".tgz": "Unpack it, and pass what is in it.",
    ".7z": "Unpack it, and pass the folder.",
    ".npz": "Pass its arrays: detect(arrays['images'], arrays['labels']).",
    ".npy": "Pass the array, and labels=...: detect(numpy.load(file), labels).",
    ".pt": "Pass the images and labels that are in it: detect(images, labels).",
    ".pkl": "Pass the images and labels that are in it: detect(images, labels).",
    ".xlsx": "Save the sheet as CSV, with columns file_name and label.",
    ".txt": "Write a CSV file with columns file_name and label.",
    ".xml": "Write a CSV file with columns file_name and label.",
    ".json": "Write a CSV file with columns file_name and label.",
}
_TO_PARQUET = (
    "Read it in Python and pass images and labels, detect(images, labels), or write it as Parquet with "
    "datasets.Dataset.from_dict(...).to_parquet(...)."
)
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_DATA = "a folder of class folders, a table of paths (CSV, TSV, JSONL), Parquet files, or a saved datasets.Dataset"


def find_files(root: Path, *, split: str | None = None) -> dict[str, list[Path]]:
    """List the images of each class folder, at any depth below it.

    What is no image, no regular file, a link that leads back, junk of systems or output of deft is left out with a
    warning; hidden files and folders are, in silence. One folder that holds all class folders is passed through.

    Parameters
    ----------
    root : Path
    split : str, optional
        Folder of one split, such as "train"; "all" for all of them together.

    Returns
    -------
    dict of str to list of Path
        Sorted by class name (that of the folder, made valid text), then by path. Each class has an image.

    Raises
    ------
    InputError
        If `root` is no folder of class folders, holds no image, or has images outside of the class folders; if it
        holds several splits and none is chosen, or not the one that is.

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
    _check_folder(root)
    found = walk(root)
    images = [parts for parts in found.files if is_image_file(parts[-1])]
    if not images:
        _refuse_no_images(root, found)
    base = _holder_of_classes(root, found, images)
    below = [parts[len(base) :] for parts in images]
    folder = root.joinpath(*base)
    _refuse_loose(folder, below)
    split_level, class_level = _levels(folder, below, is_chosen=split is not None)
    splits = set[str]() if split_level is None else {parts[split_level] for parts in below}
    chosen = choose_splits(splits, split, root)
    if chosen and split is None:
        warnings.warn(as_text(f"{root} is read as the split {chosen[0]!r}, the only one there."), stacklevel=3)
    classes: dict[str, list[Path]] = {}
    for name in chosen or [None]:
        of_split = [parts for parts in below if split_level is None or parts[split_level] == name]
        if split_level == 0:
            _refuse_loose(folder / str(name), [parts[1:] for parts in of_split])
        for parts in of_split:
            classes.setdefault(parts[class_level], []).append(folder.joinpath(*parts))
    if split_level is None:
        _pass_over_empty(base, found, classes)
    _warn(root, found)
    if len(classes) < 2 and (hint := _tables_hint(root, found)):
        raise InputError(f"Expected at least two classes, but got {', '.join(classes)} in {root}.{hint}")
    return _with_valid_names(classes)


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        problem = "is not one" if root.exists() else "does not exist"
        advice = _ADVICE.get(root.suffix.lower(), _TO_PARQUET) if root.exists() else ""
        raise InputError(f"Expected {_DATA}, but {root} {problem} (looked up from {Path.cwd()}). {advice}".rstrip())
    for folder in (root, root / "detection"):
        if all((folder / name).is_file() for name in ("detection.json", "verdicts.parquet")) and not any(
            entry.is_dir() and entry.name != "detection" for entry in root.iterdir()
        ):
            raise InputError(
                f"Expected {_DATA}, but {root} is what deft wrote of a detection. Pass the data that were judged; "
                f"the verdicts are read with Detection.load({str(folder)!r})."
            )


def _refuse_no_images(root: Path, found: Walk) -> NoReturn:
    top = [parts[0] for parts in found.folders if len(parts) == 1]
    if not top:
        raise InputError(
            f"Expected a folder of class folders (cat/1.jpg, dog/1.jpg), but {root} has no folder in it."
            f"{_tables_hint(root, found)}"
        )
    raise InputError(
        f"Expected images (.jpg, .png and others that Pillow opens) in the class folders, but {root} has "
        f"none in {some(top)}.{_heif_hint(found.files)}{_tables_hint(root, found)}"
    )


def _holder_of_classes(root: Path, found: Walk, images: list[Parts]) -> Parts:
    """Go down to the folder that holds the class folders, or the splits."""
    base: Parts = ()
    with_files = {parts[0] for files in (found.files, *found.passed_over.values()) for parts in files}
    if any(parts[0] not in with_files for parts in found.folders):
        return base  # an empty class is a class all the same
    below = images
    while True:
        loose, inside = _group(below)
        if loose:
            return ()  # one class, with its images
        if len(inside) > 1 or usual_split(next(iter(inside))):
            break
        ((name, below),) = inside.items()
        base = (*base, name)
    if base:
        folder = root.joinpath(*base)
        warnings.warn(as_text(f"The class folders are those in {folder}, the only folder with images."), stacklevel=4)
    return base


def _levels(base: Path, images: list[Parts], *, is_chosen: bool) -> tuple[int | None, int]:
    """At which depth below `base` the splits are, if there are any, and at which the classes."""
    _, below = _group(images)
    inner = {name: _group(files) for name, files in below.items()}
    named = [name for name in below if usual_split(name)]
    if len(named) == len(below):
        if bare := [name for name in named if not inner[name][1]]:
            raise InputError(
                f"Expected class folders in each split ({named[0]}/cat/1.jpg), but {base} has images directly in "
                f"{', '.join(bare)}. Move them into class folders, or pass a table of their labels (CSV with columns "
                "file_name and label)."
            )
        return 0, 1
    folders = {name: set(deeper) for name, (_, deeper) in inner.items()}
    if any(loose for loose, _ in inner.values()):
        _refuse_half_split(base, named, {name: folders[name] for name in named if not inner[name][0]})
        return None, 0
    deeper = set[str]().union(*folders.values())
    if len({usual_split(name) for name in deeper}) > 1 and all(map(usual_split, deeper)):
        return 1, 0
    common = set.intersection(*folders.values())
    if named and common:
        return 0, 1
    if len(folders) > 1 and len(common) > 1 and common == deeper:
        if is_chosen:
            return 0, 1
        warnings.warn(
            as_text(
                f"{some(list(folders))} in {base} hold the same folders ({some(sorted(common))}), and are read as "
                f"the classes. If they are splits, choose with split={next(iter(folders))!r} (--split), or 'all'."
            ),
            stacklevel=4,
        )
    _refuse_half_split(base, named, {name: folders[name] for name in named})
    return None, 0


def _refuse_half_split(base: Path, named: list[str], folders: dict[str, set[str]]) -> None:
    if len(folders) > 1 and set.intersection(*folders.values()):
        others = some(sorted(entry.name for entry in base.iterdir() if entry.is_dir() and entry.name not in named))
        raise InputError(
            f"Expected class folders or splits, but {base} has both: {', '.join(folders)} hold the same class folders, "
            f"and {others} do not. Move the others away, or pass one split by its path: {base / named[0]}."
        )


def _refuse_loose(folder: Path, images: list[Parts]) -> None:
    if names := [parts[0] for parts in images if len(parts) == 1]:
        raise InputError(
            f"Expected every image in a class folder, but {len(names)} are directly in {folder}: {some(names)}. "
            "Move each into the folder of its class (cat/1.jpg), or pass a table of their labels (CSV with columns "
            "file_name and label)."
        )


def _pass_over_empty(base: Parts, found: Walk, classes: Collection[str]) -> None:
    for parts in found.folders:
        if parts[:-1] == base and parts[-1] not in classes:
            found.pass_over(parts, "folders without an image")


def _warn(root: Path, found: Walk) -> None:
    warn_of_passed_over(root, found.passed_over)
    others = [parts for parts in found.files if not is_image_file(parts[-1])]
    if others:
        names = ["/".join(parts) for parts in sorted(others, key=lambda parts: (len(parts) > 1, parts))]
        message = f"{len(others)} files in {root} are no images by their names and are left out: {some(names)}."
        warnings.warn(as_text(message + _heif_hint(others)), stacklevel=4)


def _heif_hint(files: list[Parts]) -> str:
    names = [parts[-1] for parts in files if suffix_of(parts[-1]) in HEIF_EXTENSIONS]
    if not names or open_heif():
        return ""
    return f" {len(names)} HEIF photos ({names[0]}) are read with: pip install 'deft-plugin[heif]'."


def _tables_hint(root: Path, found: Walk) -> str:
    tables = [parts[0] for parts in found.files if len(parts) == 1 and suffix_of(parts[0]) in _TABLES]
    return f" If {tables[0]} says what the images show, pass it: {root / tables[0]}." if tables else ""


def _group(files: Iterable[Parts]) -> tuple[list[Parts], dict[str, list[Parts]]]:
    """Files that are in no folder, and those in each folder, without its name."""
    loose, below = list[Parts](), dict[str, list[Parts]]()
    for parts in files:
        if len(parts) == 1:
            loose.append(parts)
        else:
            below.setdefault(parts[0], []).append(parts[1:])
    return loose, below


def _with_valid_names(files_of_class: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Names as text, sorted; two never become one."""
    named: dict[str, list[Path]] = {}
    for name in sorted(files_of_class, key=lambda name: (as_text(name) != name, name)):
        text = as_text(name)
        while text in named:
            text += "'"
        named[text] = files_of_class[name]
    return dict(sorted(named.items()))
