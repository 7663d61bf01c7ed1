"""Data sets in files: Parquet, Arrow, tables of paths, webdataset tar, and what ``Dataset.save_to_disk`` writes."""

from __future__ import annotations

import glob
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_plugin.data.columns import is_label_name, read_column
from deft_plugin.data.splits import choose_splits, split_of_file, usual_split
from deft_plugin.data.tables import TABLES, read_table, with_images
from deft_plugin.data.walk import OWN_FILES, is_image_file, some, walk
from deft_plugin.errors import InputError, as_text

if TYPE_CHECKING:
    from datasets import Dataset

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SPLIT_COLUMN = "split"


def holds_dataset(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a file of data or a glob, or a folder with such files or a saved data set."""
    folder = Path(path)
    if not folder.is_dir():
        return folder.suffix.lower() in _READERS or (not folder.exists() and glob.has_magic(os.fspath(path)))
    return _is_saved(folder) or bool(_files_in(folder))


def read_dataset(path: str | os.PathLike[str], *, split: str | None = None, image_column: str | None = None) -> Dataset:
    """Open a data set that is on disk.

    Parameters
    ----------
    path : path-like
        A file: Parquet, Arrow, a table of paths (CSV, TSV, JSON lines), or a webdataset tar; a folder or a glob of
        such files, a folder with ``metadata.csv`` or a snapshot of the hub, or what ``save_to_disk`` wrote.
    split : str, optional
        Which one, where `path` holds several; "all" for all of them together.
    image_column : str, optional
        Column of images, or of their paths.

    Returns
    -------
    datasets.Dataset
        With a column of images.

    Raises
    ------
    InputError
        If there is no such file, a file cannot be read, or several splits are there and none is chosen.
    """
    parts = _saved_parts(Path(path)) if _is_saved(Path(path)) else _parts_of_files(path, image_column)
    try:
        if set(parts) != {None}:
            names = [name for name in parts if name is not None]
            chosen: list[str | None] = [*choose_splits(names, split, path)]
            return _join({str(name): parts[name]() for name in chosen}, path)
        dataset = parts[None]()
        return _rows_of_split(dataset, split, path)
    except InputError:
        raise
    except Exception as error:  # whatever Arrow and datasets raise on files that are cut off or of another kind
        raise InputError(
            f"Expected a data set that can be read, but {path} cannot: {type(error).__name__}: {error}."
        ) from error


def _saved_parts(folder: Path) -> dict[str | None, Callable[[], Dataset]]:
    import datasets

    def load(part: Path) -> Callable[[], Dataset]:
        return lambda: datasets.Dataset.load_from_disk(os.fspath(part))

    if not (folder / "dataset_dict.json").is_file():
        return {None: load(folder)}
    try:
        names: list[str] = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"Expected a saved DatasetDict, but {folder}/dataset_dict.json is damaged: {error}."
        ) from error
    return {name: load(folder / name) for name in names}


def _parts_of_files(path: str | os.PathLike[str], image_column: str | None) -> dict[str | None, Callable[[], Dataset]]:
    files = _data_files(path)
    base = Path(path) if Path(path).is_dir() else Path(os.path.commonpath([file.parent for file in files]))
    of_split: dict[str | None, list[Path]] = {}
    for file in files:
        of_split.setdefault(split_of_file(file.relative_to(base).with_suffix("")), []).append(file)
    if None in of_split and len(of_split) > 1:
        for file in of_split.pop(None):
            of_split.setdefault(file.stem, []).append(file)

    def load(files: list[Path]) -> Callable[[], Dataset]:
        return lambda: _READERS[files[0].suffix.lower()](files, image_column)

    return {name: load(files) for name, files in of_split.items()}


def _rows_of_split(dataset: Dataset, split: str | None, path: object) -> Dataset:
    """Rows of a split, where a column tells it."""
    values: list[Any] = read_column(dataset, _SPLIT_COLUMN) if _SPLIT_COLUMN in dataset.features else []
    names = dict.fromkeys(value for value in values if isinstance(value, str))
    if len(names) < 2 and split is None:
        return dataset
    chosen = set(choose_splits(names, split, path))
    if chosen == set(names):
        return dataset
    return dataset.select([row for row, value in enumerate(values) if value in chosen])


def _join(parts: dict[str, Dataset], path: object) -> Dataset:
    import datasets

    (first, one), *others = parts.items()
    for name, other in others:
        if other.features != one.features:
            keys = {*one.features, *other.features}
            differ = sorted(key for key in keys if one.features.get(key) != other.features.get(key))
            raise InputError(
                f"Expected splits with the same columns and classes, but {', '.join(differ)} of {first} and {name} in "
                f"{path} differ: {[one.features.get(key) for key in differ]} and "
                f"{[other.features.get(key) for key in differ]}. Choose one split."
            )
    return datasets.concatenate_datasets(list(parts.values())) if others else one


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file()


def _data_files(path: str | os.PathLike[str]) -> list[Path]:
    found = Path(path)
    if found.is_dir():
        files = _files_in(found)
    else:
        files = [found] if found.exists() else sorted(map(Path, glob.glob(os.fspath(path), recursive=True)))
    if own := [file for file in files if file.name in OWN_FILES and _is_output(file)]:
        raise InputError(
            f"Expected data, but {own[0]} is what deft wrote of a detection. Pass the data that were judged; "
            "verdicts are read with Detection.load."
        )
    kinds = {file.suffix.lower() for file in files}
    if len(kinds) != 1 or not kinds <= set(_READERS):
        raise InputError(
            f"Expected files of one kind ({', '.join(_READERS)}), but {path} gives "
            f"{', '.join(file.name for file in files) or 'no file'}."
        )
    return files


def _is_output(file: Path) -> bool:
    return any((folder / "detection.json").is_file() for folder in (file.parent, file.parent / "detection"))


def _files_in(folder: Path) -> list[Path]:
    """Files of data in a folder: metadata of images first, then what a snapshot of the hub has."""
    inside = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    split_folders = [entry for entry in inside if usual_split(entry.name)]
    has_own = {entry.name for entry in folder.iterdir()} & OWN_FILES
    for holders in ([folder], split_folders):
        for name in _METADATA:
            files = [holder / name for holder in holders if (holder / name).is_file()]
            if files and all(map(_tells_labels, files)):
                return files
    for suffix in (".parquet", ".arrow", ".tar"):
        top = [file for file in sorted(folder.glob(f"*{suffix}")) if file.name not in (*has_own, *_METADATA)]
        if top and (not inside or (suffix == ".parquet" and any(map(_may_hold_images, top)))):
            return top
        for holders in ([folder / "data"], split_folders, [folder / "default"]):
            patterns = (f"*{suffix}", f"*/*{suffix}")
            for pattern in patterns:
                deeper = [file for holder in holders for file in sorted(holder.glob(pattern))]
                deeper = [file for file in deeper if file.name not in (*OWN_FILES, *_METADATA)]
                if deeper:
                    return deeper
    return []


def _tells_labels(metadata: Path) -> bool:
    """Beside class folders, metadata are read for labels only by a column that is named so."""
    folders = [entry for entry in metadata.parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return not folders or any(map(is_label_name, _column_names(metadata)))


def _column_names(file: Path) -> list[str]:
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(file).names if file.suffix == ".parquet" else read_table(file).column_names
    except OSError:
        return []


def _may_hold_images(file: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowInvalid):
        return True  # that it is damaged is said when it is read
    return any(pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0 for field in schema)


def _read_parquet(files: list[Path], image_column: str | None) -> Dataset:
    import datasets

    found: Any = datasets.Dataset.from_parquet([os.fspath(file) for file in files])
    return with_images(found, files[0].parent, image_column)


def _read_arrow(files: list[Path], image_column: str | None) -> Dataset:
    import datasets
    import pyarrow as pa

    def load(file: Path) -> Dataset:
        try:
            return datasets.Dataset.from_file(os.fspath(file))
        except pa.ArrowInvalid:  # a file with random access, as Feather is, instead of a stream
            return datasets.Dataset(pa.ipc.open_file(pa.memory_map(os.fspath(file))).read_all())

    return with_images(_join({file.name: load(file) for file in files}, files[0].parent), files[0].parent, image_column)


def _read_tables(files: list[Path], image_column: str | None) -> Dataset:
    tables = {file: with_images(read_table(file), file.parent, image_column) for file in files}
    for file in files:
        if file.name in _METADATA:
            _warn_of_others(file, tables[file])
    return _join({file.name: table for file, table in tables.items()}, files[0].parent)


def _warn_of_others(metadata: Path, dataset: Dataset) -> None:
    """Say which images and class folders do not count beside metadata."""
    images = [metadata.parent.joinpath(*parts) for parts in walk(metadata.parent).files if is_image_file(parts[-1])]
    folders = {image.parent for image in images} - {metadata.parent}
    if len(folders) > 1:
        warnings.warn(f"Labels are those of {metadata}; the names of the folders beside it say nothing.", stacklevel=5)
    column = next(name for name, feature in dataset.features.items() if hasattr(feature, "decode_example"))
    named = {os.path.normpath(value["path"]) for value in read_column(dataset, column) if value and value["path"]}
    if others := [image for image in images if os.path.normpath(image) not in named]:
        message = (
            f"{len(others)} images are not in {metadata} and are left out: {some([file.name for file in others])}."
        )
        warnings.warn(as_text(message), stacklevel=5)


def _read_tars(files: list[Path], image_column: str | None) -> Dataset:
    import datasets

    names = [os.fspath(file) for file in files]
    dataset: Any = datasets.load_dataset("webdataset", data_files={"train": names}, split="train")
    if "cls" not in dataset.features and "json" in dataset.features:
        dataset = dataset.flatten()
        dataset = dataset.rename_columns(
            {name: name.removeprefix("json.") for name in dataset.column_names if name.startswith("json.")}
        )
    return dataset.remove_columns([name for name in ("__key__", "__url__") if name in dataset.features])


_READERS: dict[str, Callable[[list[Path], str | None], Dataset]] = {
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".tar": _read_tars,
    **dict.fromkeys(TABLES, _read_tables),
}
