"""A person's decisions on what a detector found, read from the file that the page of a report exports."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deft_plugin.errors import InputError, did_you_mean
from deft_plugin.results.spreadsheets import unguarded

if TYPE_CHECKING:
    from deft_plugin.results.detection import Detection

UNDECIDED = "none"
KEEP, RELABEL, DROP = DECISIONS = ("keep", "relabel", "drop")
COLUMNS = ("row", "image_digest", "given_label", "decision", "new_label")

_SPREADSHEET = (
    "If a spreadsheet has changed it, export the review again, as JSON, or import it with all columns as text."
)

DROPPED = -1
"""Reviewed label of a row that is dropped."""


def apply_review(detection: Detection, file: str | os.PathLike[str]) -> Detection:
    """Apply decisions; see `deft_plugin.results.detection.Detection.apply_review`."""
    earlier = detection.decisions
    decisions = np.full(len(detection), UNDECIDED, dtype="<U7") if earlier is None else earlier.copy()
    is_label_issue, predicted_labels = detection.is_label_issue.copy(), detection.predicted_labels.copy()
    places: dict[int, str] = {}
    for place, entry in _read_entries(Path(file)):
        row = _row(detection, place, entry)
        if row in places:
            raise InputError(
                f"Expected one decision for a row, but row {row} is in {places[row]} and in {place}. Remove one."
            )
        places[row] = place
        _check_same_row(detection, place, row, entry)
        decisions[row] = decision = _decision(detection, place, row, entry)
        is_label_issue[row] = decision != KEEP
        if (new_label := _new_label(detection, place, row, entry, decision)) is not None:
            predicted_labels[row] = new_label
    return replace(detection, decisions=decisions, is_label_issue=is_label_issue, predicted_labels=predicted_labels)


def reviewed_labels(detection: Detection) -> np.ndarray:
    """Labels (N,) after the review; see `deft_plugin.results.detection.Detection.reviewed_labels`."""
    labels = detection.given_labels.copy()
    if detection.decisions is not None:
        relabelled = detection.decisions == RELABEL
        labels[relabelled] = detection.predicted_labels[relabelled]
        labels[detection.decisions == DROP] = DROPPED
    return labels


def check_decisions(decisions: Any, is_label_issue: np.ndarray, is_image_issue: np.ndarray) -> np.ndarray:
    """Check decisions (N,) against the verdicts that they go with.

    Raises
    ------
    InputError
        If the shape or a decision is not one that can be, or a verdict says otherwise.
    """
    try:
        values = np.asarray(decisions)
    except ValueError as error:
        raise InputError(f"Expected decisions of shape {is_label_issue.shape}, str, but: {error}.") from error
    if values.shape != is_label_issue.shape or values.dtype.kind not in "UOT":
        raise InputError(
            f"Expected decisions of shape {is_label_issue.shape}, str, but got {values.shape}, {values.dtype}."
        )
    for decision in set(values.tolist()):
        if decision not in (UNDECIDED, *DECISIONS):
            raise InputError(f"Unknown decision {decision!r}. {did_you_mean(str(decision), (UNDECIDED, *DECISIONS))}")
    kept, changed = values == KEEP, (values == RELABEL) | (values == DROP)
    if (kept & is_label_issue).any() or (changed & ~is_label_issue).any():
        raise InputError("Expected rows to keep to be no label issues, and rows to relabel or drop to be some.")
    if (is_image_issue & (values == RELABEL)).any():
        raise InputError("Expected no new label for an image that could not be read. Drop it.")
    return values.astype("<U7")


def _read_entries(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give each entry with the name of its place: "line 3 of review.csv"."""
    try:
        content = file.read_bytes()
        is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if is_utf_16 else "utf-8-sig")  # spreadsheets put a mark in front
    except UnicodeDecodeError as error:
        raise InputError(
            f"Expected a CSV or JSON file that the page of a report exported, but {file} cannot be read: {error}. If a "
            "spreadsheet has saved it, save it as 'CSV UTF-8'."
        ) from error
    except OSError as error:
        raise InputError(
            f"Expected a CSV or JSON file that the page of a report exported, but {file} cannot be read: {error}."
        ) from error
    read = _read_json if text.lstrip().startswith(("[", "{")) else _read_csv
    return read(file.name, text)


def _read_json(name: str, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        entries: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"Expected JSON, but {name} is damaged: {error}. Export it again.") from error
    if not isinstance(entries, list):
        raise InputError(f"Expected {name} to be a list of objects with {_named(COLUMNS)}, but it is one object.")
    for number, entry in enumerate(cast("list[Any]", entries), start=1):
        place = f"entry {number} of {name}"
        if not isinstance(entry, dict):
            raise InputError(f"Expected an object with {_named(COLUMNS)}, but {place} is {entry!r}.")
        _check_columns(place, cast("dict[str, Any]", entry))
        yield place, cast("dict[str, Any]", entry)


def _read_csv(name: str, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = re.sub(r"\A\"?sep=.\"?\r?\n", "", text)  # a spreadsheet's note on what parts the fields
    try:
        header = text.partition("\n")[0]  # spreadsheets in some countries write ;
        delimiter = max(",;\t", key=lambda mark: sum(column in COLUMNS for column in _fields(header, mark)))
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        reader.fieldnames = _fields(header, delimiter)
        next(reader.reader, None)
        _check_columns(name, reader.fieldnames or ())
        for entry in reader:
            place = f"line {reader.line_num} of {name}"
            surplus: Any = entry.pop(None, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
            if surplus and any(surplus):
                raise InputError(
                    f"Expected {len(reader.fieldnames or ())} fields, but {place} has more. Put names with "
                    f"{delimiter!r} in quotes."
                )
            if any(entry.values()):  # else a line that a spreadsheet has left empty
                yield place, {column: unguarded(value or "") for column, value in entry.items()}
    except csv.Error as error:
        raise InputError(f"Expected CSV, but {name} is damaged: {error}. Export it again.") from error


def _fields(header: str, delimiter: str) -> list[str]:
    return [column.strip().lower() for column in next(csv.reader([header.strip("\r")], delimiter=delimiter), [])]


def _check_columns(place: str, found: Any) -> None:
    if missing := [column for column in COLUMNS if column not in found]:
        raise InputError(
            f"Expected a review with {_named(COLUMNS)}, but {place} lacks {_named(missing)}. Export it from the page "
            "of a report, as CSV or JSON."
        )


def _row(detection: Detection, place: str, entry: Mapping[str, Any]) -> int:
    value = entry["row"]
    if isinstance(value, str) and (number := re.fullmatch(r"\s*([0-9]{1,18})([.,]00?)?\s*", value)):
        value = int(number[1])  # 40.0 is what a spreadsheet may make of 40; 40,000 may be another number
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"Expected the number of a row, but {place} has {value!r}. {_SPREADSHEET}")
    if not 0 <= int(value) < len(detection):
        raise InputError(
            f"Expected rows in 0 … {len(detection) - 1}, but {place} has {value}. The review is of other data."
        )
    return value


def _check_same_row(detection: Detection, place: str, row: int, entry: Mapping[str, Any]) -> None:
    label = int(detection.given_labels[row])
    given = detection.class_names[label]
    if _find_class(entry["given_label"], detection.class_names) != label:
        raise InputError(
            f"Expected the given label {given!r} for row {row}, but {place} has {entry['given_label']!r}. The review "
            f"is of other data: apply it to the detection that its page was made of. {_SPREADSHEET}"
        )
    digest = str(entry["image_digest"] or "").strip().lower()
    if digest and not re.fullmatch("[0-9a-f]{32}", digest):
        raise InputError(f"Expected a digest of 32 letters and digits, but {place} has {digest!r}. {_SPREADSHEET}")
    if digest and detection.image_digests is not None and digest != detection.image_digests[row].tobytes().hex():
        raise InputError(
            f"Expected the image of row {row} that was judged, but {place} is of another one ({digest}). The review "
            "is of other data: apply it to the detection that its page was made of."
        )


def _decision(detection: Detection, place: str, row: int, entry: Mapping[str, Any]) -> str:
    decision = entry["decision"]
    decision = decision.strip().lower() if isinstance(decision, str) else decision
    if decision not in DECISIONS:
        raise InputError(f"Unknown decision {decision!r} in {place}. {did_you_mean(str(decision), DECISIONS)}")
    if detection.is_image_issue[row] and decision != DROP:
        raise InputError(
            f"Expected row {row} to be dropped, since its image could not be read and nobody can train on it, but "
            f"{place} says {decision!r}. Drop it, or mend the file and detect again."
        )
    return decision


def _new_label(detection: Detection, place: str, row: int, entry: Mapping[str, Any], decision: str) -> int | None:
    name, names = entry["new_label"] or "", detection.class_names
    if decision != RELABEL:
        if name:
            raise InputError(
                f"Expected a new label for 'relabel' only, but {place} has {name!r} and says {decision!r}. "
                "Empty new_label, or decide 'relabel'."
            )
        return None
    if not name:
        raise InputError(f"Expected a new label for row {row}, but {place} has none. Name one in new_label.")
    if (label := _find_class(name, names)) is None:
        raise InputError(f"Unknown class {name!r} in {place}. {did_you_mean(str(name), names)} {_SPREADSHEET}")
    if label == detection.given_labels[row]:
        raise InputError(
            f"Expected another label than the given one, but {place} relabels row {row} to {names[label]!r}, which it "
            "has. Decide 'keep' if it is right."
        )
    return label


def _find_class(name: Any, names: Sequence[str]) -> int | None:
    """Index of a class whose name went through a spreadsheet: line ends and blanks around it may be others.

    An apostrophe in front may be that of a review without guarded cells; see `deft_plugin.results.spreadsheets`.
    """
    for known in (name, f"'{name}"):
        if known in names:
            return names.index(known)
    alike = [index for index, known in enumerate(names) if _normal(known) == _normal(str(name))]
    return alike[0] if len(alike) == 1 else None


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\r\n", "\n").replace("\r", "\n").strip())


def _named(columns: Any) -> str:
    return ", ".join(columns)
