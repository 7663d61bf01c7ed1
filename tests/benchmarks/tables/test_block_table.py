"""The table and the JSON of one block."""

from __future__ import annotations

import json
import re

import pytest
from deft_benchmarks.tables.block_summary import block_summary
from deft_benchmarks.tables.block_table import block_table
from rich.console import Console

TIMES = {"seconds": 101.26, "feature_seconds": 80.5}
SELECTOR_KEYS = [
    "name",
    "clean_precision",
    "clean_recall",
    "clean_f1",
    "noise_precision",
    "noise_recall",
    "noise_f1",
    "auroc",
    "auprc",
    "seconds",
    "note",
    "noise_ratio_used",
    "noise_ratio_source",
    "batch_mean_clean_precision",
    "batch_mean_clean_recall",
]


@pytest.fixture(scope="session")
def scored(make_cell):
    """Builder of a cell of the demo by two of its scores; others may be given."""

    def build(selector, clean_f1, auroc=0.9, *, scores=None, **changes):
        metrics = {
            "clean_precision": 0.1234,
            "clean_recall": 1.0,
            "clean_f1": clean_f1,
            "noise_precision": 0.2,
            "noise_recall": 0.3,
            "noise_f1": 0.4,
            "auroc": auroc,
            "auprc": 0.98765,
            "calibration_error": 0.1,
        }
        block = {"data": "clothing_demo", "num_examples": 1400, "num_classes": 10, "actual_noise_ratio": 0.3579}
        return make_cell(selector, metrics={**metrics, **(scores or {})}, **block, **changes)

    return build


@pytest.fixture
def two(scored):
    oracle = {"noise_ratio_used": 0.36, "noise_ratio_source": "oracle"}
    return [
        scored("deft", 0.951, seconds=3.21),
        scored("confident_learning", 0.92, auroc=None, seconds=12.0, is_told_noise_ratio=True, details=oracle),
    ]


def rendered(cells, *, width=100, styled=False):
    console = Console(width=width, force_terminal=styled, color_system="standard" if styled else None)
    with console.capture() as capture:
        console.print(block_table(cells, **TIMES))
    return capture.get()


def emphasised(cells):
    """Find what is bold and green in each line that has any."""
    lines = rendered(cells, styled=True).splitlines()
    return [found for line in lines if (found := re.findall(r"\x1b\[1;32m *(\S+?) *\x1b", line))]


def test_json_has_the_agreed_keys(two):
    written = json.loads(json.dumps(block_summary(two, **TIMES), allow_nan=False))
    first, second = written.pop("selectors")
    assert written == {
        "data": "clothing_demo",
        "num_examples": 1400,
        "num_classes": 10,
        "noise_mode": "sym",
        "noise_ratio": 0.4,
        "actual_noise_ratio": 0.3579,
        "model": "bridge-lite0",
        "seed": 0,
        **TIMES,
    }
    assert list(first) == list(second) == SELECTOR_KEYS
    assert (first["name"], first["clean_f1"], first["seconds"], first["note"]) == ("deft", 0.951, 3.21, "")
    assert first["noise_ratio_used"] is first["batch_mean_clean_recall"] is second["auroc"] is None
    assert (second["noise_ratio_used"], second["noise_ratio_source"]) == (0.36, "oracle")
    assert second["note"] == "told the true noise ratio"


def test_means_over_mini_batches_are_noted(scored):
    means = {"batch_mean_clean_precision": 0.5, "batch_mean_clean_recall": 0.75}
    cells = [scored("deft", 0.9, scores=means, is_told_noise_ratio=True)]
    (found,) = block_summary(cells, **TIMES)["selectors"]
    assert {name: found[name] for name in means} == means
    assert found["note"] == "told the true noise ratio; clean P 50.0, R 75.0 as means over mini-batches"
    assert f"* deft: {found['note']}" in " ".join(rendered(cells).split())


def test_table_shows_scores_polarity_notes(two):
    text = rendered(two)
    deft = next(line for line in text.splitlines() if line.strip().startswith("deft"))
    assert deft.split() == ["deft", "12.3", "100.0", "95.1", "20.0", "30.0", "40.0", "0.900", "0.988", "3.2"]
    other = next(line for line in text.splitlines() if line.strip().startswith("confident_learning *"))
    assert other.split()[-3:] == ["-", "0.988", "12.0"]
    assert [word for word in text.split() if word in ("clean", "noise")].count("clean") == 3
    assert "* confident_learning: told the true noise ratio" in text
    assert "35.8 % wrong labels" in text
    assert "Features 80.5 s, shared by all; in all 101.3 s." in text


@pytest.mark.parametrize("width", [80, 100])
def test_table_fits_without_broken_cells(two, width):
    text = rendered(two, width=width)
    assert "…" not in text
    assert "confident_learning" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_best_score_of_each_column_is_emphasised(two):
    deft, other = emphasised(two)
    assert deft == ["12.3", "100.0", "95.1", "20.0", "30.0", "40.0", "0.900", "0.988"]
    assert other == ["12.3", "100.0", "20.0", "30.0", "40.0", "0.988"]  # ties, but not the lower F1, nor "-"


def test_one_selector_alone_is_not_the_best(scored):
    assert emphasised([scored("deft", 0.9)]) == []


def test_markup_in_names_is_shown_as_it_is(scored):
    text = rendered([scored("[red]x[/red]", 0.9, is_told_noise_ratio=True)])
    assert "[red]x[/red] *" in text
    assert "* [red]x[/red]: told" in text
