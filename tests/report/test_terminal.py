"""What a user is shown of a detection."""

from __future__ import annotations

import errno
import io
import json
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deft_plugin.compute.files import write_json
from deft_plugin.report.terminal import issues_frame, print_issues, summary, write_report
from deft_plugin.results.detection import Detection

NAMES = ("cat", "[dog]", "fish")


class Photos:
    """Five images, of which the last cannot be read."""

    def __len__(self):
        return 5

    def load(self, row):
        return Image.new("RGB", (8, 8), (40 * row, 0, 0))

    def path(self, row):
        return f"[x]/{row}.png"

    def fingerprint(self):
        return "photos"


def make_detection(**changes):
    values = {
        "method": "deft",
        "label_quality": np.array([0.9, 0.4, 0.1, 0.4, 0.0]),
        "is_label_issue": np.array([False, True, True, True, True]),
        "predicted_labels": np.array([0, 2, 1, 0, -1]),
        "given_labels": np.array([0, 1, 2, 2, 1]),
        "class_names": NAMES,
        "image_digests": np.ones((5, 16), np.uint8),
        "is_image_issue": np.array([False, False, False, False, True]),
        "settings": {"model": "fake", "seed": 7, "seconds": 1.25},
        "details": {"tuning": "frozen"},
    }
    return Detection(**{**values, **changes})


def test_classes_that_are_too_small_are_said(capsys):
    small = make_detection(details={"classes_too_small_to_judge": ["[dog]", "fish"]})
    print_issues(small, Photos())
    assert "2 classes are too small to be judged" in capsys.readouterr().out
    print_issues(make_detection(), Photos())
    assert "too small" not in capsys.readouterr().out


class TestFrame:
    def test_all_rows_worst_first(self):
        frame = issues_frame(make_detection(), Photos())
        assert frame["row"].tolist() == [4, 2, 1, 3, 0]  # of equal ones, the first row first
        assert frame["label_quality"].tolist() == [0.0, 0.1, 0.4, 0.4, 0.9]
        assert frame["image"].tolist() == [f"[x]/{row}.png" for row in (4, 2, 1, 3, 0)]
        assert frame["is_label_issue"].tolist() == [True, True, True, True, False]

    def test_columns_are_cleanlabs_and_two_more(self):
        frame = issues_frame(make_detection(), Photos())
        assert list(frame) == [
            "row",
            "image",
            "is_label_issue",
            "label_quality",
            "given_label",
            "predicted_label",
            "is_image_issue",
        ]
        worst = frame.iloc[1]
        assert (worst["given_label"], worst["predicted_label"]) == ("fish", "[dog]")


class TestSummary:
    def test_what_was_judged_and_found(self):
        assert summary(make_detection(), data="photos") == {
            "data": "photos",
            "num_examples": 5,
            "num_classes": 3,
            "method": "deft",
            "model": "fake",
            "seed": 7,
            "seconds": 1.25,
            "num_label_issues": 4,
            "num_image_issues": 1,
            "details": {"tuning": "frozen"},
        }

    def test_without_a_model(self):
        settings = {"seed": 0, "seconds": 0.5}
        assert summary(make_detection(settings=settings), data="x")["model"] is None

    def test_it_is_json(self):
        found = summary(make_detection(), data="photos")
        assert json.loads(json.dumps(found, allow_nan=False)) == found


class TestPrinted:
    def test_counts_and_rows(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        print_issues(make_detection(), Photos())
        shown = capsys.readouterr().out
        assert "3 of 5 labels look wrong; 1 images cannot be read" in shown
        lines = [line for line in shown.splitlines() if ".png" in line]
        # A class name in brackets is no markup.
        assert [line.split() for line in lines] == [
            ["4", "[x]/4.png", "[dog]", "-", "0.000"],
            ["2", "[x]/2.png", "fish", "[dog]", "0.100"],
            ["1", "[x]/1.png", "[dog]", "fish", "0.400"],
            ["3", "[x]/3.png", "fish", "cat", "0.400"],
        ]
        assert "more" not in shown

    def test_a_limit(self, capsys):
        print_issues(make_detection(), Photos(), limit=1)
        shown = capsys.readouterr().out
        assert shown.count(".png") == 1
        assert "and 3 more; --output DIR" in shown

    def test_no_issue(self, capsys):
        fine = {"is_label_issue": np.zeros(5, bool), "is_image_issue": np.zeros(5, bool)}
        print_issues(make_detection(**fine, predicted_labels=np.zeros(5, int)), Photos())
        shown = capsys.readouterr().out
        assert "0 of 5 labels look wrong" in shown
        assert "cannot be read" not in shown


class TestFiles:
    def test_what_is_written(self, tmp_path):
        detection = make_detection()
        written = write_report(detection, Photos(), tmp_path / "a" / "b")
        names = ["issues.parquet", "issues.csv", "contact_sheet.png", "report.html", "detection"]
        assert [path.name for path in written] == names
        frame = issues_frame(detection, Photos()).reset_index(drop=True)
        pd.testing.assert_frame_equal(pd.read_parquet(written[0]), frame)
        assert pd.read_csv(written[1])["row"].tolist() == [4, 2, 1, 3, 0]
        with Image.open(written[2]) as picture:
            assert picture.size[0] > 100
        assert "Label issues found by deft" in written[3].read_text(encoding="utf-8")
        assert Detection.load(written[4]) == detection

    def test_spreadsheets_compute_no_cell(self, tmp_path):
        names = ("=1+1", "\tcat", "'quoted")
        write_report(make_detection(class_names=names), Photos(), tmp_path)
        frame = pd.read_csv(tmp_path / "issues.csv")
        assert set(frame["given_label"]) == {"'=1+1", "'\tcat", "'quoted"}
        assert set(pd.read_parquet(tmp_path / "issues.parquet")["given_label"]) == set(names)

    def test_a_failure_leaves_the_detection(self, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("deft_plugin.report.page.write_page", fail)
        with pytest.raises(OSError, match="No space"):
            write_report(make_detection(), Photos(), tmp_path)
        assert Detection.load(tmp_path / "detection") == make_detection()

    def test_a_second_time_into_the_same_folder(self, tmp_path):
        write_report(make_detection(), Photos(), tmp_path)
        write_report(make_detection(details={"tuning": "lora"}), Photos(), tmp_path)
        assert Detection.load(tmp_path / "detection").details == {"tuning": "lora"}

    def test_json_is_written_whole_or_not_at_all(self, tmp_path):
        file = tmp_path / "new" / "x.json"
        write_json(file, {"größe": 1})
        with pytest.raises(ValueError, match="JSON"):
            write_json(file, {"a": [1, float("nan")]})
        with pytest.raises(TypeError):
            write_json(file, {"a": object()})
        assert json.loads(file.read_text(encoding="utf-8")) == {"größe": 1}
        assert [path.name for path in file.parent.iterdir()] == ["x.json"]

    def test_a_full_disk_leaves_the_old_file_and_no_other(self, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        write_json(tmp_path / "x.json", 1)
        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="No space"):
            write_json(tmp_path / "x.json", 2)
        assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
        assert (tmp_path / "x.json").read_text() == "1\n"


def test_names_that_are_not_utf8_are_written_as_text(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Photos, "path", lambda _, row: f"caf\udce9/{row}.png")
    folder, detection = tmp_path / "p\udce9", make_detection()
    write_report(detection, Photos(), folder)
    assert pd.read_csv(io.StringIO((folder / "issues.csv").read_text(encoding="utf-8")))["image"][0] == "caf\\xe9/4.png"
    assert Detection.load(folder / "detection") == detection
    print_issues(detection, Photos())
    assert "caf\\xe9/4.png" in capsys.readouterr().out
    write_json(tmp_path / "a.json", summary(detection, data="p\udce9"))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["data"] == "p\\xe9"
