"""A detection on disk: a folder with a Parquet file of verdicts and a JSON file with the rest; no pickle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_plugin.compute.files import (
    check_folder_can_be_written,
    new_folder_beside,
    saying_what_cannot_be_written,
    to_json,
)
from deft_plugin.data.digests import DIGEST_SIZE
from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from deft_plugin.results.detection import Detection

VERDICTS_FILE = "verdicts.parquet"
DETECTION_FILE = "detection.json"
FORMAT_VERSION = 1

_ARRAYS = ("is_label_issue", "label_quality", "given_labels", "predicted_labels", "is_image_issue")
_DIGESTS = ("image_digests", "id_digests")
_SETTINGS = ("method", "class_names", "image_column", "label_column", "id_column", "settings", "details")


def save_detection(detection: Detection, folder: str | os.PathLike[str]) -> None:
    """Write a detection; see `deft_plugin.results.detection.Detection.save`."""
    target = check_can_be_saved(folder)
    with saying_what_cannot_be_written(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_folder_beside(target) as new:
            _write_verdicts(detection, new / VERDICTS_FILE)
            rest = {"format_version": FORMAT_VERSION, **{name: getattr(detection, name) for name in _SETTINGS}}
            (new / DETECTION_FILE).write_text(to_json(rest), encoding="utf-8")
            _put_in_place(new, target)


def check_can_be_saved(folder: str | os.PathLike[str]) -> Path:
    """Find out whether a detection can be saved there, before there is one.

    Parameters
    ----------
    folder : path

    Returns
    -------
    Path
        The folder itself, if `folder` is a link.

    Raises
    ------
    InputError
        If the folder cannot be written or replaced, or holds anything but a detection.
    """
    target = Path(os.path.realpath(folder))
    with saying_what_cannot_be_written(folder):
        _restore_previous(target)
        _refuse_foreign(folder, target)
        check_folder_can_be_written(target)
    return target


def load_detection(folder: str | os.PathLike[str], make: Callable[..., Detection]) -> Detection:
    """Read a detection; see `deft_plugin.results.detection.Detection.load`.

    Parameters
    ----------
    folder : path
    make : callable
        The class: it is handed its fields by name.
    """
    source = Path(folder)
    _restore_previous(Path(os.path.realpath(source)))
    for file in (source / DETECTION_FILE, source / VERDICTS_FILE):
        if not file.is_file():
            raise InputError(
                f"Expected a folder that Detection.save wrote, but {source} has no {file.name}"
                f"{'' if source.is_dir() else ': there is no such folder'}."
            )
    try:
        rest = json.loads((source / DETECTION_FILE).read_text(encoding="utf-8"))
        version = rest["format_version"]
        if version == FORMAT_VERSION:
            names = tuple(rest["class_names"])
            rest = {"id_column": None, **rest}  # older files have none
            settings = {name: rest[name] for name in _SETTINGS if name != "class_names"}
            return make(**settings, class_names=names, **_read_verdicts(source / VERDICTS_FILE))
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f"Expected a detection that can be read, but {source} is damaged: {type(error).__name__}: "
            f"{error}. Detect again."
        ) from error
    raise InputError(
        f"Expected a detection of format {FORMAT_VERSION}, but {source} has format {version}. Update deft-plugin."
    )


def _write_verdicts(detection: Detection, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(getattr(detection, name)) for name in _ARRAYS}
    for name in _DIGESTS:
        if (digests := getattr(detection, name)) is not None:
            columns[name] = pa.array(map(bytes, digests), type=pa.binary(DIGEST_SIZE))
    if detection.decisions is not None:
        columns["decisions"] = pa.array(detection.decisions.tolist(), type=pa.string())
    with file.open("wb") as stream:  # Arrow opens no path that is not UTF-8
        pq.write_table(pa.table(columns), stream)


def _read_verdicts(file: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    with file.open("rb") as stream:
        table = pq.read_table(stream)
    arrays: dict[str, Any] = {name: table.column(name).to_numpy() for name in _ARRAYS}
    for name in _DIGESTS:
        digests = table.column(name).to_pylist() if name in table.column_names else None
        arrays[name] = None if digests is None else np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_SIZE)
    arrays["decisions"] = table.column("decisions").to_numpy() if "decisions" in table.column_names else None
    return arrays


def _refuse_foreign(folder: str | os.PathLike[str], target: Path) -> None:
    """Never replace a folder that holds anything but a detection, or that somebody stands in."""
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"Expected a folder to save into, but {folder} is a file.")
    names = {entry.name for entry in target.iterdir()}
    if foreign := sorted(names - {VERDICTS_FILE, DETECTION_FILE, ".DS_Store"}):
        raise InputError(
            f"Expected an empty folder or an earlier detection to replace, but {folder} has other files "
            f"({', '.join(foreign[:5])}). Save into a folder of its own."
        )
    if target == Path(os.path.realpath(os.curdir)) or os.path.ismount(target):
        raise InputError(
            f"Expected a folder that can be replaced as a whole, but {folder} is the current folder, or one where a "
            f"disk is mounted. Save into a folder in it, such as {Path(folder) / 'detection'}."
        )


def _put_in_place(new: Path, target: Path) -> None:
    # A folder that is not empty cannot be replaced in one step. Whoever finds none between the two steps
    # below finds the previous one by its name, and puts it back.
    previous = _previous(target)
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.replace(target, previous)
    try:
        os.replace(new, target)
    except OSError:
        _restore_previous(target)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _restore_previous(target: Path) -> None:
    """Undo a save that was killed between its last two steps."""
    if _previous(target).is_dir() and not target.exists():
        os.replace(_previous(target), target)


def _previous(target: Path) -> Path:
    return target.parent / f".{target.name}.previous"
