"""Applying the decisions of a person to a detection."""

from __future__ import annotations

import csv
import io
import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_plugin.errors import InputError
from deft_plugin.results.detection import Detection
from deft_plugin.results.spreadsheets import guarded

NAMES = ("cat", "dog", 'a "fish", fried\nor; not')
COLUMNS = ("row", "image_digest", "given_label", "decision", "new_label")


def make_detection(**changes) -> Detection:
    digests = np.arange(6 * 16, dtype=np.uint8).reshape(6, 16)
    digests[4] = 0
    values = {
        "method": "deft",
        "label_quality": np.array([0.9, 0.4, 0.1, 0.4, 0.0, 0.2]),
        "is_label_issue": np.array([False, True, True, True, True, True]),
        "predicted_labels": np.array([0, 2, 1, 0, -1, 1]),
        "given_labels": np.array([0, 1, 2, 2, 1, 0]),
        "class_names": NAMES,
        "image_digests": digests,
        "is_image_issue": np.array([False, False, False, False, True, False]),
    }
    return Detection(**{**values, **changes})


def entry(row, decision, new_label="", **changes):
    detection = make_detection()
    known = detection.image_digests[row].tobytes().hex() if row < 6 and row != 4 else ""
    given_label = NAMES[detection.given_labels[row]] if row < 6 else "cat"
    return {
        "row": row,
        "image_digest": known,
        "given_label": given_label,
        "decision": decision,
        "new_label": new_label,
        **changes,
    }


def as_csv(entries, delimiter=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(entries)
    return text.getvalue()


@pytest.fixture(params=["csv", "json"])
def write(request, tmp_path):
    """Write entries as CSV or as JSON."""

    def run(*entries):
        file = tmp_path / f"review.{request.param}"
        file.write_bytes((as_csv(entries) if request.param == "csv" else json.dumps(entries)).encode())
        return file

    return run


def test_decisions(write):
    entries = [
        entry(1, "keep"),
        entry(2, "relabel", "cat"),
        entry(4, "drop"),
        entry(0, "drop"),
        entry(5, "relabel", NAMES[2]),
    ]
    before = make_detection()
    reviewed = before.apply_review(write(*entries))
    assert reviewed.decisions.tolist() == ["drop", "keep", "relabel", "none", "drop", "relabel"]
    assert reviewed.is_label_issue.tolist() == [True, False, True, True, True, True]
    assert reviewed.predicted_labels.tolist() == [0, 2, 0, 0, -1, 2]
    assert reviewed.reviewed_labels().tolist() == [-1, 1, 0, 2, -1, 2]
    assert reviewed.reviewed_labels().dtype == np.int64
    np.testing.assert_array_equal(reviewed.label_quality, before.label_quality)
    assert before == make_detection(), "the detection itself is never changed"
    assert before.decisions is None
    assert reviewed != before


def test_without_a_review_labels_are_the_given_ones():
    assert make_detection().reviewed_labels().tolist() == [0, 1, 2, 2, 1, 0]


def test_a_review_without_decisions(write, tmp_path):
    reviewed = make_detection().apply_review(write())
    assert reviewed.decisions.tolist() == ["none"] * 6
    assert reviewed.is_label_issue.tolist() == make_detection().is_label_issue.tolist()


def test_a_second_review_on_top_of_the_first(write):
    first = make_detection().apply_review(write(entry(1, "keep"), entry(2, "relabel", "cat"), entry(3, "drop")))
    second = first.apply_review(write(entry(2, "keep"), entry(1, "relabel", "cat")))
    assert second.decisions.tolist() == ["none", "relabel", "keep", "drop", "none", "none"]
    assert second.is_label_issue.tolist() == [False, True, False, True, True, True]
    assert second.reviewed_labels().tolist() == [0, 0, 2, -1, 1, 0]


def test_the_clean_mask_follows_the_review(write):
    reviewed = make_detection().apply_review(write(entry(1, "keep"), entry(0, "drop")))
    assert repr(reviewed.clean_mask) == "CleanMask(1 of 6 rows clean, 3 classes)"


def test_frame_has_a_decision_only_after_a_review(write):
    assert "decision" not in make_detection().to_frame()
    frame = make_detection().apply_review(write(entry(1, "keep"))).to_frame()
    assert frame["decision"].tolist() == ["none", "keep", "none", "none", "none", "none"]


def test_it_is_saved_and_loaded(write, tmp_path):
    reviewed = make_detection().apply_review(write(entry(1, "keep"), entry(2, "relabel", "cat")))
    reviewed.save(tmp_path / "d")
    loaded = Detection.load(tmp_path / "d")
    assert loaded == reviewed
    assert loaded.decisions.dtype == reviewed.decisions.dtype
    assert pd.read_parquet(tmp_path / "d" / "verdicts.parquet")["decisions"].tolist() == reviewed.decisions.tolist()
    assert pickle.loads(pickle.dumps(reviewed)) == reviewed


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_a_spreadsheet_writes(tmp_path, delimiter):
    file = tmp_path / "review.txt"
    file.write_bytes(b"\xef\xbb\xbf" + as_csv([entry(2, "keep"), entry(1, "relabel", NAMES[2])], delimiter).encode())
    assert make_detection().apply_review(file).reviewed_labels().tolist() == [0, 2, 2, 2, 1, 0]


ODD = (
    "=sum(A1)",
    "'=sum(A1)",
    "-5",
    "+1",
    "@home",
    "\ttab",
    "''-",
    "'quoted",
    "007",
    "None",
    "TRUE",
    "a,b",
    " blank ",
    "cr\n",
)


def odd_detection(**changes):
    size = len(ODD)
    values = {
        "label_quality": np.zeros(size),
        "is_label_issue": np.ones(size, bool),
        "predicted_labels": np.arange(size),
        "given_labels": np.arange(size),
        "class_names": ODD,
        "image_digests": None,
        "is_image_issue": np.zeros(size, bool),
    }
    return make_detection(**{**values, **changes})


def odd_entries(write=guarded):
    size = len(ODD)
    return [
        {
            "row": row,
            "image_digest": "",
            "given_label": write(ODD[row]),
            "decision": "relabel",
            "new_label": write(ODD[(row + 1) % size]),
        }
        for row in range(size)
    ]


def test_names_that_look_like_formulas_come_back(tmp_path):
    assert not any(guarded(name)[0] in "=+-@\t\r" for name in ODD)
    (tmp_path / "r.csv").write_bytes(as_csv(odd_entries()).encode())
    (tmp_path / "r.json").write_text(json.dumps(odd_entries(str)))
    expected = [(row + 1) % len(ODD) for row in range(len(ODD))]
    for name in ("r.csv", "r.json"):
        assert odd_detection().apply_review(tmp_path / name).reviewed_labels().tolist() == expected


def saved_again(text):
    """What spreadsheets make of a review."""
    lines = list(csv.reader(io.StringIO(text, newline="")))
    yield "a byte order mark and UTF-16", text.encode("utf-16")
    yield "big-endian", b"\xfe\xff" + text.encode("utf-16-be")
    yield "Windows line ends, also in names", text.replace("\r\n", "\n").replace("\n", "\r\n").encode()
    yield "empty lines at the end", (text + ",,,,\r\n\r\n,,,,\r\n").encode()
    yield "numbers with decimals", re.sub(r"^([0-9]+),", r"\1.0,", text, flags=re.MULTILINE).encode()
    yield "a note on what parts fields", b"sep=,\r\n" + text.encode()
    for note, rows in (
        ("columns in another order", [line[::-1] for line in lines]),
        ("one column more", [[*line, "note"] for line in lines]),
        ("empty fields more", [line if number == 0 else [*line, "", ""] for number, line in enumerate(lines)]),
        ("capital letters", [[column.upper() for column in lines[0]], *lines[1:]]),
        ("decisions with capitals", [lines[0], *([*line[:3], line[3].title() + " ", line[4]] for line in lines[1:])]),
        ("blanks around names", [lines[0], *([*line[:4], line[4].strip()] for line in lines[1:])]),
    ):
        file = io.StringIO()
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
        yield note, file.getvalue().encode()


def test_reviews_that_a_spreadsheet_has_saved_again_come_in(tmp_path):
    entries = [entry(1, "keep"), entry(2, "relabel", "cat"), entry(5, "relabel", NAMES[2]), entry(4, "drop")]
    expected = make_detection()
    (tmp_path / "r.json").write_text(json.dumps(entries))
    expected = expected.apply_review(tmp_path / "r.json")
    for note, content in saved_again(as_csv(entries)):
        (tmp_path / "r.csv").write_bytes(content)
        assert make_detection().apply_review(tmp_path / "r.csv") == expected, note


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"row": "1,000"}, "number of a row, but .* has '1,000'"),
        ({"row": "1.5"}, r"number of a row, but .* has '1\.5'"),
        ({"row": "1E+01"}, "number of a row"),
        ({"image_digest": "1.23457E+31"}, "digest of 32 letters and digits, but .*1"),
        ({"given_label": "7"}, "given label '007' for row 8, but .* has '7'"),
        ({"new_label": "7"}, "Unknown class '7'"),
    ],
)
def test_what_a_spreadsheet_has_changed_beyond_repair(tmp_path, changes, words):
    one = {**odd_entries()[8], **changes}
    if "new_label" in changes:
        one = {**odd_entries()[9], **changes}
    (tmp_path / "r.csv").write_text(as_csv([one]))
    with pytest.raises(InputError, match=rf"(?s){words}.*If a spreadsheet has changed it, export the review again"):
        odd_detection().apply_review(tmp_path / "r.csv")


def test_letters_of_an_old_windows(tmp_path):
    (tmp_path / "r.csv").write_bytes(as_csv([entry(1, "keep")]).encode() + "é".encode("cp1252"))
    with pytest.raises(InputError, match="save it as 'CSV UTF-8'"):
        make_detection().apply_review(tmp_path / "r.csv")


def test_digests_are_compared_where_both_have_them(write):
    file = write(entry(1, "keep", image_digest=""))
    assert make_detection().apply_review(file).decisions[1] == "keep"
    file = write(entry(1, "keep"))
    assert make_detection(image_digests=None).apply_review(file).decisions[1] == "keep"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry(1, "kep")], "Unknown decision 'kep' in .*Did you mean 'keep'"),
        ([entry(1, "none")], "Unknown decision 'none' in .*Known: drop, keep, relabel"),
        ([entry(6, "keep")], r"rows in 0 … 5, but .* has 6\. .* other data"),
        ([{**entry(1, "keep"), "row": -1}], "-1"),
        ([{**entry(1, "keep"), "row": "one"}], "number of a row, but .* has 'one'"),
        ([{**entry(1, "keep"), "row": "1" * 5000}], "number of a row"),
        ([{**entry(1, "keep"), "row": "²"}], "number of a row, but .* has '²'"),
        ([entry(1, "keep", given_label="cat")], "given label 'dog' for row 1, but .* has 'cat'.* other data"),
        ([entry(1, "keep", image_digest="00" * 16)], "image of row 1 that was judged, but .* another one"),
        ([entry(1, "relabel", "bird")], r"Unknown class 'bird' in .*Known: a \"fish\""),
        ([entry(1, "relabel")], "new label for row 1, but .* has none"),
        ([entry(1, "relabel", "dog")], "relabels row 1 to 'dog', which it has. Decide 'keep'"),
        ([entry(1, "drop", "cat")], "new label for 'relabel' only, but .* has 'cat' and says 'drop'"),
        ([entry(1, "keep"), entry(2, "keep"), entry(1, "drop")], "row 1 is in .* and in .* Remove one"),
        ([entry(4, "keep")], "row 4 to be dropped, since its image could not be read.* says 'keep'. Drop it, or mend"),
        ([entry(4, "relabel", "cat")], "row 4 to be dropped.* says 'relabel'"),
    ],
)
def test_a_review_that_cannot_be_is_refused(write, entries, words):
    file = write(*entries)
    with pytest.raises(InputError, match=words) as caught:
        make_detection().apply_review(file)
    assert file.name in str(caught.value)
    assert ("line " in str(caught.value)) == (file.suffix == ".csv")


@pytest.mark.parametrize("missing", COLUMNS)
def test_a_missing_column_is_named(write, missing, tmp_path):
    one = {column: value for column, value in entry(1, "keep").items() if column != missing}
    (tmp_path / "x.json").write_text(json.dumps([one]))
    (tmp_path / "x.csv").write_text(",".join(one) + "\n" + ",".join(map(str, one.values())))
    for file in (tmp_path / "x.json", tmp_path / "x.csv"):
        with pytest.raises(InputError, match=rf"x\.(csv|json) lacks {missing}\. Export it"):
            make_detection().apply_review(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "lacks row, image_digest, given_label, decision, new_label"),
        (b"\x89PNG\r\n\x1a\n\xff", "CSV or JSON file .* cannot be read"),
        (b'[{"row": 1', "Expected JSON, but review is damaged"),
        (b'{"row": 1}', "list of objects .* but it is one object"),
        (b"[1]", "object with row, .* entry 1 of review is 1"),
        (b"a,b\n1,2\n", "lacks row"),
        (as_csv([entry(1, "keep")]).strip().encode() + b",x", "Expected 5 fields, but line 2 of review has more"),
        (as_csv([entry(1, "keep")]).strip().encode() + b'"never closed', "Expected CSV, but review is damaged|Unknown"),
        (",".join(COLUMNS).encode() + b'\n"1,2', "Expected CSV, but review is damaged"),
    ],
)
def test_files_that_are_no_review(tmp_path, content, words):
    (tmp_path / "review").write_bytes(content)
    with pytest.raises(InputError, match=words):
        make_detection().apply_review(tmp_path / "review")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv cannot be read"):
        make_detection().apply_review(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("decisions", "words"),
    [
        (["none"] * 5, r"decisions of shape \(6,\), str, but got \(5,\)"),
        ([0] * 6, "int64"),
        (["none"] * 5 + ["kept"], "Unknown decision 'kept'. Did you mean 'keep'"),
        (["none", "keep", *["none"] * 4], "keep to be no label issues"),
        (["drop", *["none"] * 5], "relabel or drop to be some"),
        ([*["none"] * 4, "relabel", "none"], "no new label for an image that could not be read"),
    ],
)
def test_decisions_that_verdicts_contradict(decisions, words):
    with pytest.raises(InputError, match=words):
        make_detection(decisions=np.array(decisions))


@settings(max_examples=40, deadline=None)
@given(
    choices=st.dictionaries(
        st.sampled_from([0, 1, 2, 3, 5]),
        st.sampled_from(["keep", "relabel", "drop"]),
        max_size=5,
    ),
    shift=st.integers(1, 2),
)
def test_any_decisions_say_the_same_in_csv_and_json(tmp_path_factory, choices, shift):
    before, folder = make_detection(), tmp_path_factory.mktemp("review")
    new = {row: NAMES[(before.given_labels[row] + shift) % 3] for row in choices}
    entries = [entry(row, choice, new[row] if choice == "relabel" else "") for row, choice in choices.items()]
    (folder / "r.json").write_text(json.dumps(entries))
    (folder / "r.csv").write_bytes(as_csv(entries).encode())
    reviewed = before.apply_review(folder / "r.json")
    assert reviewed == before.apply_review(folder / "r.csv")
    for row in range(6):
        choice, label = choices.get(row), before.given_labels[row]
        expected = {"drop": -1, "relabel": (label + shift) % 3}.get(choice, label)
        assert reviewed.reviewed_labels()[row] == expected
        assert reviewed.is_label_issue[row] == (before.is_label_issue[row] if choice is None else choice != "keep")
