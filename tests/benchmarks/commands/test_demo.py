"""``deft demo``, with the fake model on some colours in the place of the photos."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pandas as pd
import pytest
from deft_benchmarks import demo_data
from deft_benchmarks.commands.demo import DEFAULT_SELECTORS

METRICS = (
    *("clean_precision", "clean_recall", "clean_f1", "noise_precision", "noise_recall", "noise_f1"),
    *("auroc", "auprc"),
)


@pytest.fixture
def demo(deft, colour_maker, monkeypatch, tmp_path):
    """Run ``deft demo`` in an empty folder."""
    colours = colour_maker(num_examples=150, noise_ratio=0.0)
    data = datasets.Dataset.from_dict(
        {"image": colours.images, "label": colours.truth},
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(colours.names))}
        ),
    )
    monkeypatch.setattr(demo_data, "load_clothing_demo", lambda: data)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return lambda *options: deft("demo", "--model", "fake", *options)


def test_table_and_json(demo, tmp_path):
    code, out, err = demo("--noise-ratio", 0.3, "--seed", 1, "--json", tmp_path / "new" / "x.json")
    assert code == 0, err
    assert "clothing_demo: 150 examples, 3 classes" in out
    assert "small_loss *" in out
    assert "* small_loss: told the true noise ratio" in out
    assert "Learn prompts" in err
    found = json.loads((tmp_path / "new" / "x.json").read_text())
    assert list(found) == [
        *("data", "num_examples", "num_classes", "noise_mode", "noise_ratio", "actual_noise_ratio"),
        *("model", "seed", "seconds", "feature_seconds", "selectors"),
    ]
    assert (found["data"], found["num_examples"], found["num_classes"]) == ("clothing_demo", 150, 3)
    assert (found["noise_mode"], found["noise_ratio"], found["model"], found["seed"]) == ("sym", 0.3, "fake", 1)
    assert [selector["name"] for selector in found["selectors"]] == list(DEFAULT_SELECTORS)
    for selector in found["selectors"]:
        assert list(selector) == [
            *("name", *METRICS, "seconds", "note", "noise_ratio_used", "noise_ratio_source"),
            *("batch_mean_clean_precision", "batch_mean_clean_recall"),
        ]
        assert all(0 <= selector[metric] <= 1 for metric in METRICS)
    assert found["seconds"] >= sum(selector["seconds"] for selector in found["selectors"])
    assert found["seconds"] >= found["feature_seconds"] > 0
    assert list(Path().iterdir()) == [], "no cell is written"


def test_output_is_of_the_first_selector(demo, tmp_path):
    code, out, err = demo("--selectors", "gmm,label_match", "--output", tmp_path / "out")
    assert code == 0, err
    assert out.count("wrote ") == 5
    detection = json.loads((tmp_path / "out" / "detection" / "detection.json").read_text())
    assert detection["method"] == "gmm"
    assert len(pd.read_csv(tmp_path / "out" / "issues.csv")) == 150


def test_selectors_are_shown_as_they_were_named(demo):
    """Though a variant runs last."""
    code, out, err = demo("--selectors", "deft_mixture,label_match")
    assert code == 0, err
    names = [line.split()[0] for line in out.splitlines() if line.strip().startswith(("deft_", "label_"))]
    assert names == ["deft_mixture", "label_match"]


def test_without_noise_the_first_selector_says_what_it_doubts(demo):
    code, out, err = demo("--selectors", "label_match", "--noise-ratio", 0)
    assert code == 0, err
    assert "No noise was put in: every label that is flagged counts as wrong here" in out
    assert "of 150 labels look wrong" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--selectors", "label_match,deft_faithful"), "deft: Expected a CLIP"),
        (("--noise-mode", "human"), "Expected human labels in clothing_demo"),
        (("--selectors", "gm"), "Did you mean 'gmm'"),
    ],
)
def test_what_fails_is_said_in_one_line(demo, options, words):
    code, out, err = demo(*options)
    assert (code, out) == (1, "")
    assert words in err
    assert "Traceback" not in err
