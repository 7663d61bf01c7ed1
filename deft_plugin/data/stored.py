"""Hugging Face data sets on disk: Parquet files, and what ``Dataset.save_to_disk`` writes."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

_SPLIT_OF_FILE = re.compile(r"(train|test|validation|valid|val|dev)\b", re.ASCII)


def holds_dataset(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a Parquet file, a glob, or a folder with Parquet files or a saved data set."""
    folder = Path(path)
    if not folder.is_dir():
        return folder.suffix == ".parquet" or (not folder.exists() and glob.has_magic(os.fspath(path)))
    return _is_saved(folder) or any(folder.glob("*.parquet"))


def read_dataset(path: str | os.PathLike[str], *, split: str | None = None) -> Dataset:
    """Open a data set that is on disk.

    Parameters
    ----------
    path : path-like
        A Parquet file, a folder or a glob with Parquet files of one split, or a folder that
        ``Dataset.save_to_disk`` wrote.
    split : str, optional
        Which one, where `path` holds several; "all" for all of them together.

    Returns
    -------
    datasets.Dataset

    Raises
    ------
    InputError
        If there is no such file, several splits are mixed, or a file cannot be read.
    """
    import datasets

    folder = Path(path)
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        raise InputError(
            f"Expected one split, but {folder} holds several: {', '.join(splits)}. "
            f"Pass one of them: {folder / splits[0] if splits else folder}."
        )
    files = None if _is_saved(folder) else _parquet_files(path)
    try:
        if files is None:
            return datasets.Dataset.load_from_disk(os.fspath(folder))
        return datasets.Dataset.from_parquet([os.fspath(file) for file in files])
    except Exception as error:  # whatever Arrow and datasets raise on files that are cut off or of another kind
        raise InputError(
            f"Expected a data set that can be read, but {path} cannot: {type(error).__name__}: {error}."
        ) from error


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def _parquet_files(path: str | os.PathLike[str]) -> list[Path]:
    found = Path(path)
    if found.is_dir():
        files = sorted(found.glob("*.parquet"))
    else:
        files = [found] if found.exists() else sorted(map(Path, glob.glob(os.fspath(path), recursive=True)))
    if not files or any(file.suffix != ".parquet" for file in files):
        raise InputError(
            f"Expected Parquet files, but {path} gives {', '.join(file.name for file in files) or 'no file'}."
        )
    splits = {match.group() for file in files if (match := _SPLIT_OF_FILE.match(file.name))}
    if len(splits) > 1:
        raise InputError(
            f"Expected one split, but {path} has {', '.join(sorted(splits))}. "
            f"Pass one of them as a glob: '{files[0].parent / min(splits)}*.parquet'."
        )
    return files
