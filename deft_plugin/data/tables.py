"""Tables of paths and labels: CSV, TSV, JSON lines, and any data set that has paths where images are expected."""

from __future__ import annotations

import csv
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_plugin.data.columns import holds_images, read_column
from deft_plugin.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset

PATH_NAMES = (
    "file_name",
    "path",
    "image",
    "filepath",
    "filename",
    "file_path",
    "image_path",
    "img",
    "file",
    "img_path",
)
"""Names that a column of paths has by convention."""

_ROWS_TO_TRY = 1000


def read_table(file: Path) -> Dataset:
    """Read a table into memory, in its order; text stays as it is written, but columns of numbers become numbers.

    Parameters
    ----------
    file : Path
        CSV, TSV, JSON lines, or a JSON list of objects, in UTF-8.

    Raises
    ------
    InputError
        If the file cannot be read as such; names the line.
    """
    import datasets
    import pyarrow as pa

    try:
        columns = TABLES[file.suffix.lower()](file)
    except UnicodeDecodeError as error:
        raise InputError(
            f"Expected a table in UTF-8, but {file} is not ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error
    if not columns or not any(columns.values()):
        raise InputError(f"Expected a table with a line of column names and a row for each image, but {file} is empty.")
    return datasets.Dataset(pa.table({name: _as_arrow(values, name, file) for name, values in columns.items()}))


def _as_arrow(values: list[Any], name: str, file: Path) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise InputError(
            f"Expected values of one kind in each column, but {name!r} of {file} has {kinds}. Write all of them "
            "as text, or all as numbers."
        ) from error


def with_images(dataset: Dataset, folder: Path, column: str | None = None) -> Dataset:
    """Turn the column of paths into images, if the data set has no images.

    Parameters
    ----------
    dataset : datasets.Dataset
    folder : Path
        That relative paths start from.
    column : str, optional
        The one that is meant; else it is found by its name, and by what exists.

    Raises
    ------
    InputError
        If no column, or several, have paths of files that exist; if one leads to what is no regular file.
    """
    import datasets

    images = [name for name, feature in dataset.features.items() if holds_images(feature)]
    if column in images or (column is None and images):
        return dataset
    texts = {
        name: read_column(dataset, name)
        for name, feature in dataset.features.items()
        if getattr(feature, "dtype", None) in ("string", "large_string")
    }
    if column is not None and column not in texts:
        raise InputError(
            f"Expected image_column to be a column of images or paths, but got {column!r}. "
            f"{did_you_mean(column, [*images, *texts])}"
        )
    column = column or _find_path_column(texts, folder)
    paths = [None if value is None else os.path.join(folder, value) for value in texts[column]]
    _check_paths(paths, column, folder)
    order = dataset.column_names
    rest = dataset.remove_columns([column])
    try:
        joined = rest.add_column(column, paths) if rest.column_names else datasets.Dataset.from_dict({column: paths})
    except UnicodeEncodeError as error:
        raise InputError(
            f"Expected a table in a folder whose name is UTF-8, but {folder!r} is not. Rename the folder, or pass the "
            "paths as data, with labels=..."
        ) from error
    return joined.select_columns(order).cast_column(column, datasets.Image())


def _find_path_column(texts: dict[str, list[str | None]], folder: Path) -> str:
    leading = [name for name, values in texts.items() if _any_is_file(values, folder)]
    by_name = [name for wanted in PATH_NAMES for name in leading if name.lower() == wanted]
    found = by_name[:1] or leading
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"Expected one column of paths, but {', '.join(map(repr, found))} all have some. Name the one of the "
            "images with image_column='...' (--image-column)."
        )
    example = next((values[0] for name, values in texts.items() if name.lower() in PATH_NAMES and values), None)
    shown = f", such as {example!r}" if example else ""
    raise InputError(
        f"Expected a column of paths to images, but of {', '.join(map(repr, texts)) or 'no column of text'} none has "
        f"files that exist{shown} (looked up from {folder}). Give the table a first line of column names such as "
        "file_name,label, and paths that are relative to its folder; images on the web must be downloaded first."
    )


def _any_is_file(values: Iterable[str | None], folder: Path) -> bool:
    some = dict.fromkeys(value for value in values if value)
    return any(os.path.isfile(os.path.join(folder, value)) for value in list(some)[:_ROWS_TO_TRY] if "\0" not in value)


def _check_paths(paths: list[str | None], column: str, folder: Path) -> None:
    """Refuse what is no regular file, and could hang; one that is missing is an image that cannot be read."""
    some = None
    for row, path in enumerate(paths):
        if path is None:
            continue
        some = path
        if "\0" in path:
            raise InputError(f"Expected paths of image files, but {path!r} of row {row} in {column!r} cannot be one.")
        if os.path.exists(path) and not os.path.isfile(path):
            raise InputError(
                f"Expected paths of image files, but {path} of row {row} in {column!r} is no regular file."
            )
    if some is None or not any(path and os.path.isfile(path) for path in paths):
        raise InputError(
            f"Expected paths of image files in {column!r}, but none of {len(paths)} exists (looked up from {folder})"
            f"{f', such as {some}' if some else ''}. Paths are relative to the table's folder."
        )


def _read_csv(file: Path, *, delimiter: str) -> dict[str, list[Any]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        first = lines.readline()
        lines.seek(0)
        if delimiter not in first:  # some spreadsheets write semicolons
            delimiter = max(",;\t|", key=first.count) if any(map(first.count, ",;\t|")) else delimiter
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            rows: list[list[str]] = []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"Expected {len(header)} values in each line, as in the first, but line {reader.line_num} of "
                        f'{file} has {len(row)}. Put values with a "{delimiter}" in quotes.'
                    )
                rows.append(row)
        except csv.Error as error:
            raise InputError(
                f"Expected a table that can be read, but line {reader.line_num} of {file}: {error}."
            ) from error
    _check_header(header, file)
    return {name: _typed([row[index] for row in rows]) for index, name in enumerate(header)}


def _check_header(header: list[str], file: Path) -> None:
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise InputError(f"Expected names of columns in the first line, but {file} has {twice[0]!r} twice.")
    if any(name and os.path.isfile(file.parent / name) for name in header):
        raise InputError(
            f"Expected names of columns in the first line, but that of {file} names a file. Put a line such as "
            "file_name,label above it."
        )


def _typed(values: list[str]) -> list[Any]:
    """Numbers, if all that is there is written as numbers are; so that 007 stays text. Nothing is None."""
    there = {value for value in values if value != ""}
    for kind in (int, float):
        if there and all(_is_written_as(kind, value) for value in there):
            return [kind(value) if value != "" else None for value in values]
    return [value if value != "" else None for value in values]


def _is_written_as(kind: Callable[[str], float], value: str) -> bool:
    try:
        number = kind(value)
    except ValueError:
        return False
    return abs(number) < 2**63 and value in (str(number), str(number).removesuffix(".0"))


def _read_json_lines(file: Path) -> dict[str, list[Any]]:
    rows: list[Any] = []
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                rows.append(_parse(line, f"line {number} of {file}"))
    return _by_column(rows, file)


def _read_json(file: Path) -> dict[str, list[Any]]:
    parsed = _parse(file.read_text(encoding="utf-8-sig"), str(file))
    if not isinstance(parsed, list):
        raise InputError(
            f"Expected a JSON list of objects such as {{'file_name': 'cat/1.jpg', 'label': 'cat'}}, but {file} is a "
            f"{type(parsed).__name__}. Write a CSV file with columns file_name and label; of annotations with "
            "several objects in an image, crop them first."
        )
    return _by_column(parsed, file)  # pyright: ignore[reportUnknownArgumentType]


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"Expected JSON, but {where} is not: {error}.") from error


def _by_column(rows: list[Any], file: Path) -> dict[str, list[Any]]:
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"Expected an object in each row, but row {number} of {file} is {type(row).__name__}.")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_nothing_as_none(row.get(name)) for row in rows] for name in names}


def _nothing_as_none(value: Any) -> Any:
    return None if value == "" else value


TABLES: dict[str, Callable[[Path], dict[str, list[Any]]]] = {
    ".csv": functools.partial(_read_csv, delimiter=","),
    ".tsv": functools.partial(_read_csv, delimiter="\t"),
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
}
"""Readers of tables by suffix."""
