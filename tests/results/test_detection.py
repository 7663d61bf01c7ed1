from __future__ import annotations

import dataclasses
import errno
import json
import math

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_plugin.errors import InputError, OutputError
from deft_plugin.results import storage as detection_files
from deft_plugin.results.detection import Detection

NAMES = ("cat", "dog", "fish")


def make_detection(**changes) -> Detection:
    digests = np.arange(5 * 16, dtype=np.uint8).reshape(5, 16)
    digests[4] = 0
    values = {
        "method": "deft",
        "label_quality": np.array([0.9, 0.4, 0.1, 0.4, 0.0]),
        "is_label_issue": np.array([False, True, True, True, True]),
        "predicted_labels": np.array([0, 2, 1, 0, -1]),
        "given_labels": np.array([0, 1, 2, 2, 1]),
        "class_names": NAMES,
        "image_digests": digests,
        "is_image_issue": np.array([False, False, False, False, True]),
        "image_column": "image",
        "label_column": "label",
        "settings": {"model": "ViT-B-16/openai", "seed": 0, "layers": [1, 2]},
        "details": {"noise_ratio": 0.4, "known": False, "note": None, "größe": "ß"},
    }
    return Detection(**{**values, **changes})


def test_issues_are_ranked_worst_first_and_ties_by_row():
    assert make_detection().ranked_issue_indices().tolist() == [4, 2, 1, 3]
    none = make_detection().is_label_issue & False
    clean = {"is_label_issue": none, "is_image_issue": none, "predicted_labels": np.zeros(5, int)}
    assert make_detection(**clean).ranked_issue_indices().tolist() == []


def test_frame_has_cleanlabs_columns_and_class_names():
    expected = pd.DataFrame(
        {
            "is_label_issue": [False, True, True, True, True],
            "label_quality": [0.9, 0.4, 0.1, 0.4, 0.0],
            "given_label": ["cat", "dog", "fish", "fish", "dog"],
            "predicted_label": ["cat", "fish", "dog", "cat", None],
            "is_image_issue": [False, False, False, False, True],
        }
    )
    frame = make_detection().to_frame()
    pd.testing.assert_frame_equal(frame, expected, check_dtype=False)
    assert frame["predicted_label"].isna().tolist() == [False] * 4 + [True]


def test_labels_of_the_frame_are_strings_and_not_objects_of_unknown_kind():
    assert pd.api.types.infer_dtype(make_detection().to_frame()["given_label"]) == "string"


def test_repr_is_short():
    assert repr(make_detection()) == "Detection(method='deft', 4 label issues in 5 examples)"


CHANGES = {
    "label_quality": np.array([0.9, 0.4, 0.1, 0.5, 0.0]),
    "is_label_issue": np.array([True] * 5),
    "predicted_labels": np.array([0, 2, 1, 1, -1]),
    "given_labels": np.array([0, 1, 2, 2, 2]),
    "class_names": ("cat", "dog", "bird"),
    "image_digests": None,
    "image_column": None,
    "settings": {},
    "details": {"noise_ratio": 0.5},
    "method": "gmm",
}


@pytest.mark.parametrize("name", CHANGES)
def test_detections_differ_if_any_field_does(name):
    assert make_detection() == make_detection()
    assert make_detection() != make_detection(**{name: CHANGES[name]})
    assert make_detection() != "deft"


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_detection().method = "gmm"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label_quality": np.zeros(4)}, r"label_quality of shape \(5,\), float, but 'deft' gave \(4,\)"),
        ({"label_quality": np.array([0.1, 0.1, 0.1, 1.1, 0])}, r"label_quality in \[0, 1\].* 1\.1"),
        ({"label_quality": np.array([0.1, np.nan, 0.1, 0.1, 0])}, "nan"),
        ({"is_label_issue": np.ones(5, int)}, "is_label_issue .*bool.*int64"),
        ({"predicted_labels": np.array([0, 1, 2, 3, -1])}, "predicted_labels in -1 … 2"),
        ({"predicted_labels": np.array([0.0, 1, 2, 1, -1])}, "predicted_labels .*int.*float64"),
        ({"given_labels": np.array([0, 1, 2, -1, 0])}, "given_labels in 0 … 2"),
        ({"given_labels": np.zeros((5, 1), int)}, r"given_labels of shape \(5,\)"),
        ({"class_names": ("cat", "cat")}, "once"),
        ({"image_digests": np.zeros((5, 15), np.uint8)}, r"image_digests of shape \(5, 16\)"),
        ({"image_digests": np.zeros((5, 16), np.int64)}, "uint8"),
        ({"settings": {"model": object()}}, "settings of 'deft' to be JSON values, but got object"),
        # An unreadable image is always an issue, of quality 0, without a prediction; no other row is without.
        ({"is_label_issue": np.zeros(5, bool)}, "could not be read"),
        ({"label_quality": np.full(5, 0.5)}, "could not be read"),
        ({"predicted_labels": np.zeros(5, int)}, "could not be read"),
        ({"predicted_labels": np.full(5, -1)}, "could not be read"),
    ],
)
def test_values_that_no_detector_may_give(changes, words):
    with pytest.raises(InputError, match=words):
        make_detection(**changes)


def test_numpy_values_in_details_are_kept_as_json():
    details = {"ratio": np.float32(0.5), "count": np.int64(3), "found": np.bool_(True), "means": np.arange(2)}
    kept = make_detection(details=details).details
    assert kept == {"ratio": 0.5, "count": 3, "found": True, "means": [0, 1]}
    assert json.loads(json.dumps(kept)) == kept


def test_mask_needs_images():
    with pytest.raises(InputError, match=r"pred_probs alone.* ~detection.is_label_issue"):
        _ = make_detection(image_digests=None).clean_mask


def test_mask_is_of_the_verdicts():
    mask = make_detection().clean_mask
    assert repr(mask) == "CleanMask(1 of 5 rows clean, 3 classes)"
    state = mask.__getstate__()
    assert (state["image_column"], state["label_column"], state["id_column"]) == ("image", "label", None)


# On disk


@pytest.mark.parametrize("changes", [{}, {"image_digests": None}, {"image_column": None, "settings": {}}])
def test_saved_and_loaded_is_the_same(tmp_path, changes):
    detection = make_detection(**changes)
    detection.save(tmp_path / "runs" / "first")
    assert Detection.load(tmp_path / "runs" / "first") == detection
    names = {file.name for file in (tmp_path / "runs").rglob("*")}
    assert names == {"first", "verdicts.parquet", "detection.json"}


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_verdict_survives_saving(tmp_path_factory, data):
    size = data.draw(st.integers(1, 6))
    vector = lambda values: np.array(data.draw(st.lists(values, min_size=size, max_size=size)))  # noqa: E731
    detection = make_detection(
        label_quality=vector(st.floats(0, 1)),
        is_label_issue=vector(st.booleans()),
        predicted_labels=vector(st.integers(0, 2)),
        given_labels=vector(st.integers(0, 2)),
        is_image_issue=np.zeros(size, bool),
        image_digests=vector(st.lists(st.integers(0, 255), min_size=16, max_size=16)).astype(np.uint8),
    )
    folder = tmp_path_factory.mktemp("detection")
    detection.save(folder)
    assert Detection.load(folder) == detection


def test_other_tools_can_read_the_files(tmp_path):
    make_detection().save(tmp_path / "d")
    frame = pd.read_parquet(tmp_path / "d" / "verdicts.parquet")
    assert frame["label_quality"].tolist() == [0.9, 0.4, 0.1, 0.4, 0.0]
    rest = json.loads((tmp_path / "d" / "detection.json").read_text(encoding="utf-8"))
    assert rest["class_names"] == list(NAMES)
    assert rest["settings"]["model"] == "ViT-B-16/openai"


def test_an_earlier_detection_is_replaced(tmp_path):
    make_detection().save(tmp_path / "d")
    newer = make_detection(method="gmm", image_digests=None)
    newer.save(tmp_path / "d")
    assert Detection.load(tmp_path / "d") == newer
    assert [file.name for file in tmp_path.iterdir()] == ["d"]


def test_a_link_is_followed(tmp_path):
    for target in ("real", "new/missing"):
        (tmp_path / "link").symlink_to(target)
        for method in ("gmm", "deft"):
            make_detection(method=method).save(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert Detection.load(tmp_path / "link") == Detection.load(tmp_path / target) == make_detection()
        (tmp_path / "link").unlink()
    assert {path.name for path in tmp_path.iterdir()} == {"real", "new"}


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    make_detection().save(tmp_path / "d")
    monkeypatch.chdir(tmp_path / "d")
    for folder in (".", "", tmp_path / "d", "../d"):
        with pytest.raises(InputError, match=r"the current folder.*such as .*detection"):
            make_detection(method="gmm").save(folder)
    assert Detection.load(".") == make_detection()
    make_detection(method="gmm").save("../e")
    assert Detection.load(tmp_path / "e").method == "gmm"


def test_class_names_that_are_not_utf8(tmp_path):
    detection = make_detection(class_names=("caf\udce9", "dog", "fish"))
    detection.save(tmp_path / "d")
    assert Detection.load(tmp_path / "d") == detection


def test_other_folders_and_files_are_not_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"precious")
    make_detection().save(tmp_path / "mixed")
    (tmp_path / "mixed" / "notes.txt").write_text("precious")
    for folder, name in (("photos", "cat.jpg"), ("mixed", "notes.txt")):
        with pytest.raises(InputError, match=f"other files .{name}"):
            make_detection(method="gmm").save(tmp_path / folder)
        assert b"precious" in (tmp_path / folder / name).read_bytes()
    with pytest.raises(InputError, match="is a file"):
        make_detection().save(tmp_path / "photos" / "cat.jpg")
    assert Detection.load(tmp_path / "mixed").method == "deft"


def test_full_disk_leaves_the_earlier_detection(tmp_path, monkeypatch):
    def write_half(table, file):
        file.write(b"PAR1 half")
        raise OSError(errno.ENOSPC, "No space left on device")

    make_detection().save(tmp_path / "d")
    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", write_half)
        for folder in ("d", "new"):
            with pytest.raises(OSError, match="No space left"):
                make_detection(method="gmm").save(tmp_path / folder)
    assert Detection.load(tmp_path / "d") == make_detection()
    assert [file.name for file in tmp_path.iterdir()] == ["d"], "half a file was left behind"


@pytest.mark.parametrize(("killed_at", "left"), [(1, "deft"), (2, "deft"), (3, "deft"), (4, "gmm"), (5, "gmm")])
def test_a_save_that_is_killed_leaves_the_earlier_or_the_new_detection(tmp_path, monkeypatch, killed_at, left):
    class Killed(BaseException):
        pass

    steps = []

    def until_killed(step):
        def run(*arguments, **options):
            steps.append(step)
            if len(steps) >= killed_at:  # nothing runs any more, no cleanup either
                raise Killed
            return step(*arguments, **options)

        return run

    make_detection().save(tmp_path / "d")
    with monkeypatch.context() as patch:
        for module, name in ((detection_files.os, "replace"), (detection_files.shutil, "rmtree")):
            patch.setattr(module, name, until_killed(getattr(module, name)))
        with pytest.raises(Killed):
            make_detection(method="gmm").save(tmp_path / "d")
    assert Detection.load(tmp_path / "d") == make_detection(method=left)
    make_detection(method="gmm").save(tmp_path / "d")
    assert Detection.load(tmp_path / "d") == make_detection(method="gmm")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_failure_of_the_last_step_puts_the_earlier_detection_back(tmp_path, monkeypatch):
    real_replace = detection_files.os.replace

    def failing(source, target):
        if str(source).endswith(".new"):
            raise PermissionError("not now")
        real_replace(source, target)

    make_detection().save(tmp_path / "d")
    monkeypatch.setattr(detection_files.os, "replace", failing)
    with pytest.raises(OutputError, match=r"to write .*, but: not now\. .* give another place"):
        make_detection(method="gmm").save(tmp_path / "d")
    assert (tmp_path / "d" / "detection.json").is_file()
    assert Detection.load(tmp_path / "d") == make_detection()


def remove(file):
    file.unlink()


def truncate(file):
    file.write_bytes(file.read_bytes()[:-20])


def drop_column(file):
    pq.write_table(pq.read_table(file).drop_columns(["label_quality"]), file)


def make_quality_high(file):
    table = pq.read_table(file)
    pq.write_table(table.set_column(1, "label_quality", [[2.0] * 5]), file)


def replace(old, new):
    def change(file):
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("detection.json", remove, r"has no detection\.json\."),
        ("verdicts.parquet", remove, r"has no verdicts\.parquet\."),
        ("detection.json", truncate, "is damaged: JSONDecodeError"),
        ("detection.json", replace('"method"', '"methods"'), "is damaged: KeyError: 'method'"),
        ("detection.json", replace('"format_version": 1', '"format_version": 99'), "has format 99. Update"),
        ("detection.json", replace('"fish"', '"dog"'), "is damaged: .*once"),
        ("verdicts.parquet", truncate, "is damaged: Arrow"),
        ("verdicts.parquet", drop_column, "is damaged: KeyError.*label_quality"),
        ("verdicts.parquet", make_quality_high, r"is damaged: .*in \[0, 1\]"),
    ],
)
def test_damaged_detections_are_named(tmp_path, file, damage, words):
    make_detection().save(tmp_path / "d")
    damage(tmp_path / "d" / file)
    with pytest.raises(InputError, match=words):
        Detection.load(tmp_path / "d")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere has no detection\.json: there is no such folder"):
        Detection.load(tmp_path / "nowhere")


def test_numbers_that_json_has_not_are_kept(tmp_path):
    """What a selector reports must not lose its verdicts."""
    found = make_detection(details={"ratio": math.inf})
    found.save(tmp_path / "d")
    assert Detection.load(tmp_path / "d") == found


def test_decisions_that_are_no_array():
    with pytest.raises(InputError, match="Expected decisions of shape"):
        make_detection(decisions=[None, []])
