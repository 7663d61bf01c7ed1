"""DeFT in cleanlab's Datalab, with the fake model of conftest.py."""

from __future__ import annotations

import dataclasses
import types

import datasets
import numpy as np
import pandas as pd
import pytest
from cleanlab import Datalab
from deft_adapters.datalab import DeftIssueManager

import deft_plugin

pytestmark = pytest.mark.usefixtures("fake_model")

SETTINGS = {"model": "fake", "method": "label_match"}


def hf(colours, names=None):
    names = names or list(colours.names)
    labels = [names.index(colours.names[label]) for label in colours.labels]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=names))
    return datasets.Dataset.from_dict({"image": colours.images, "label": labels}, features=features)


@pytest.fixture
def lab(colours):
    found = Datalab(hf(colours), label_name="label", verbosity=0)
    found.find_issues(issue_types={"deft": dict(SETTINGS)})
    return found


def test_columns(lab, colours):
    issues = lab.get_issues("deft")
    assert list(issues.columns) == ["is_deft_issue", "deft_score"]
    np.testing.assert_array_equal(issues["is_deft_issue"], colours.is_wrong)
    expected = deft_plugin.detect(hf(colours), **SETTINGS)
    np.testing.assert_array_equal(issues["deft_score"], expected.label_quality)


def test_deft_itself(colours):
    found = Datalab(hf(colours), label_name="label", verbosity=0)
    found.find_issues(issue_types={"deft": {"model": "fake", "seed": 1}})
    expected = deft_plugin.detect(hf(colours), model="fake", seed=1)
    np.testing.assert_array_equal(found.get_issues("deft")["is_deft_issue"], expected.is_label_issue)
    assert found.get_info("deft")["method"] == "deft"


def test_summary(lab, colours):
    summary = lab.get_issue_summary("deft")
    assert summary["num_issues"][0] == colours.is_wrong.sum()
    assert 0 <= summary["score"][0] <= 1
    assert summary["score"][0] == pytest.approx(lab.get_issues("deft")["deft_score"].mean())


def test_info(lab, colours):
    info, scores = lab.get_info("deft"), lab.get_issues("deft")["deft_score"].to_numpy()
    assert info["given_label"] == [colours.names[label] for label in colours.labels]
    assert info["predicted_label"] == [colours.names[label] for label in colours.truth]
    for index, name in enumerate(colours.names):
        rows = colours.labels == index
        assert info["num_examples_of_class"][name] == rows.sum()
        assert info["num_issues_of_class"][name] == (rows & colours.is_wrong).sum()
        assert info["thresholds"][name] == scores[rows & colours.is_wrong].max()


def test_a_class_without_issues(colours):
    detection = deft_plugin.detect(hf(colours), **SETTINGS)
    none = dataclasses.replace(detection, is_label_issue=np.zeros(120, bool))
    found = Datalab(hf(colours), label_name="label", verbosity=0)
    found.find_issues(issue_types={"deft": {"detection": none}})
    assert set(found.get_info("deft")["thresholds"].values()) == {None}


def test_report(lab, capsys, colours):
    lab.report(num_examples=3)
    shown = capsys.readouterr().out
    assert " deft issues " in shown
    assert f"Number of examples with this issue: {colours.is_wrong.sum()}" in shown
    assert "Overall dataset quality in terms of this issue" in shown
    assert "given_label" in shown
    assert "predicted_label" in shown
    worst = lab.get_issues("deft")["deft_score"].sort_values(kind="stable").index[0]
    assert f"\n{worst} " in shown


@pytest.mark.parametrize("verbosity", [1, 2, 3, 4])
def test_report_says_more(colours, capsys, verbosity):
    found = Datalab(hf(colours), label_name="label", verbosity=verbosity)
    found.find_issues(issue_types={"deft": dict(SETTINGS)})
    found.report()
    shown = capsys.readouterr().out
    assert "Finding deft issues" in shown
    assert ("thresholds" in shown) == (verbosity >= 3)


def test_saved_and_loaded(lab, colours, tmp_path, capsys):
    lab.save(str(tmp_path / "lab"))
    loaded = Datalab.load(str(tmp_path / "lab"))
    pd.testing.assert_frame_equal(loaded.get_issues("deft"), lab.get_issues("deft"))
    assert loaded.get_info("deft") == lab.get_info("deft")
    loaded.report()
    assert " deft issues " in capsys.readouterr().out


def test_a_ready_detection(lab, colours):
    detection = deft_plugin.detect(hf(colours), **SETTINGS)
    found = Datalab(hf(colours), label_name="label", verbosity=0)
    found.find_issues(issue_types={"deft": {"detection": detection}})
    pd.testing.assert_frame_equal(found.get_issues("deft"), lab.get_issues("deft"))


def test_classes_are_in_the_order_of_the_class_label(colours):
    names = ["red", "blue", "green"]  # not alphabetical, and not that of `colours`
    found = Datalab(hf(colours, names), label_name="label", verbosity=0)
    found.find_issues(issue_types={"deft": dict(SETTINGS)})
    info = found.get_info("deft")
    assert info["class_names"] == names
    assert info["given_label"] == [colours.names[label] for label in colours.labels]
    np.testing.assert_array_equal(found.get_issues("deft")["is_deft_issue"], colours.is_wrong)


def test_labels_as_strings_in_a_dict(colours):
    data = {"image": colours.images, "colour": [colours.names[label] for label in colours.labels]}
    found = Datalab(data, label_name="colour", verbosity=0)
    found.find_issues(issue_types={"deft": dict(SETTINGS)})
    np.testing.assert_array_equal(found.get_issues("deft")["is_deft_issue"], colours.is_wrong)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of pandas, by cleanlab
def test_beside_cleanlabs_own_issues(colours):
    """With an image_key, cleanlab uses its image checks, and columns of all kinds stand side by side."""
    found = Datalab(hf(colours), label_name="label", image_key="image", verbosity=0)
    probs = np.full((120, 3), 0.1)
    probs[range(120), colours.truth] = 0.8
    found.find_issues(pred_probs=probs, issue_types={"deft": dict(SETTINGS), "label": {}})
    assert {"is_deft_issue", "deft_score", "is_label_issue", "label_score"} <= set(found.get_issues().columns)
    assert (found.get_issues("label")["is_label_issue"] == found.get_issues("deft")["is_deft_issue"]).mean() > 0.9
    assert list(found.get_issues("deft").columns) == ["is_deft_issue", "deft_score"]


def test_two_image_columns(colours):
    data = hf(colours)
    features = datasets.Features({**data.features, "other": datasets.Image()})
    columns = {"image": colours.images, "label": colours.labels, "other": colours.images[::-1]}
    data = datasets.Dataset.from_dict(columns, features=features)
    found = Datalab(data, label_name="label", verbosity=0)
    found.find_issues(issue_types={"deft": {**SETTINGS, "image_key": "image"}})
    np.testing.assert_array_equal(found.get_issues("deft")["is_deft_issue"], colours.is_wrong)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "nothing"}, "Unknown"),
        ({"detection": "other rows"}, "120 rows of this Datalab, but it has 60"),
        ({"detection": "other labels"}, "row 0 has 'red' here and 'green' there"),
        ({"detection": "other images"}, "row 5 has another image"),
        ({"detection": "same", "seed": 1}, "a detection or settings, but got both: seed"),
    ],
)
def test_errors_are_printed_by_datalab(colours, capsys, settings, words):
    others = {"other rows": hf(colours).select(range(60)), "same": hf(colours)}
    changed = hf(colours)
    others["other labels"] = changed.remove_columns("label").add_column(
        "label", [(label + 1) % 3 for label in changed["label"]], feature=changed.features["label"]
    )
    images = list(colours.images)
    same = np.flatnonzero(colours.labels == colours.labels[5])[-1]
    images[5], images[same] = images[same], images[5]
    others["other images"] = hf(types.SimpleNamespace(images=images, names=colours.names, labels=colours.labels))
    if "detection" in settings:
        settings = {**settings, "detection": deft_plugin.detect(others[settings["detection"]], **SETTINGS)}
    found = Datalab(hf(colours), label_name="label", verbosity=0)
    found.find_issues(issue_types={"deft": settings})
    assert words in capsys.readouterr().out
    assert "is_deft_issue" not in found.issues.columns


def test_a_lab_without_labels(colours, capsys):
    found = Datalab({"image": colours.images}, verbosity=0)
    found.find_issues(issue_types={"deft": dict(SETTINGS)})
    assert "Expected a Datalab with labels" in capsys.readouterr().out


def test_name():
    assert DeftIssueManager.issue_name == "deft"
    assert "label" not in DeftIssueManager.issue_name, "Datalab finds columns by parts of their names"
