import json
import math
import re
from pathlib import Path

import pytest
from deft_benchmarks.matrix.metrics import DetectionMetrics
from deft_benchmarks.results import ComparisonResult, SelectorResult, results_table
from rich.console import Console

from deft_plugin.compute.files import write_json

ISSUE_KEYS = ["data", "num_examples", "num_classes", "noise_mode", "noise_ratio", "model", "seed", "seconds"]
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
]


def metrics(clean_f1: float, auroc: float | None = 0.9) -> DetectionMetrics:
    return DetectionMetrics(
        clean_precision=0.1234,
        clean_recall=1.0,
        clean_f1=clean_f1,
        noise_precision=0.2,
        noise_recall=0.3,
        noise_f1=0.4,
        auroc=auroc,
        auprc=0.98765,
    )


def comparison(*selectors: SelectorResult) -> ComparisonResult:
    return ComparisonResult(
        data="clothing_demo",
        num_examples=1400,
        num_classes=10,
        noise_mode="symmetric",
        noise_ratio=0.4,
        actual_noise_ratio=0.3579,
        model="bridge-lite0",
        seed=0,
        seconds=101.26,
        feature_seconds=80.5,
        selectors=selectors,
    )


def rendered(result: ComparisonResult, *, width: int = 100, styled: bool = False) -> str:
    console = Console(width=width, force_terminal=styled, color_system="standard" if styled else None)
    with console.capture() as capture:
        console.print(results_table(result))
    return capture.get()


def emphasised(result: ComparisonResult) -> list[list[str]]:
    """Find what is bold and green in each line that has any."""
    lines = rendered(result, styled=True).splitlines()
    return [found for line in lines if (found := re.findall(r"\x1b\[1;32m *(\S+?) *\x1b", line))]


BATCH_MEANS = ("batch_mean_clean_precision", "batch_mean_clean_recall")


@pytest.fixture
def two() -> ComparisonResult:
    return comparison(
        SelectorResult(name="deft", metrics=metrics(0.951), seconds=3.21),
        SelectorResult(
            name="confident_learning",
            metrics=metrics(0.92, auroc=None),
            seconds=12.0,
            note="told the true noise ratio",
            noise_ratio_used=0.36,
            noise_ratio_source="oracle",
        ),
    )


def test_json_has_the_agreed_keys(two: ComparisonResult):
    written = json.loads(json.dumps(two.to_json_dict(), allow_nan=False))
    assert set(ISSUE_KEYS) | {"selectors", "feature_seconds", "actual_noise_ratio"} == set(written)
    assert (written["data"], written["noise_mode"], written["seconds"]) == (
        "clothing_demo",
        "symmetric",
        101.26,
    )
    first, second = written["selectors"]
    extra = {"note", "noise_ratio_used", "noise_ratio_source", *BATCH_MEANS}
    assert set(first) == set(second) == set(SELECTOR_KEYS) | extra
    assert (first["name"], first["clean_f1"], first["seconds"]) == ("deft", 0.951, 3.21)
    assert second["auroc"] is None
    assert second["noise_ratio_source"] == "oracle"


def test_table_shows_scores_polarity_notes(two: ComparisonResult):
    text = rendered(two)
    deft = next(line for line in text.splitlines() if line.strip().startswith("deft"))
    assert deft.split() == ["deft", "12.3", "100.0", "95.1", "20.0", "30.0", "40.0", "0.900", "0.988", "3.2"]
    other = next(line for line in text.splitlines() if line.strip().startswith("confident_learning *"))
    assert other.split()[-3:] == ["-", "0.988", "12.0"]
    assert [word for word in text.split() if word in ("clean", "noise")].count("clean") == 3
    assert "* confident_learning: told the true noise ratio" in text
    assert "35.8 % wrong labels" in text


@pytest.mark.parametrize("width", [80, 100])
def test_table_fits_without_broken_cells(two: ComparisonResult, width: int):
    text = rendered(two, width=width)
    assert "…" not in text
    assert "confident_learning" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_best_score_of_each_column_is_emphasised(two: ComparisonResult):
    deft, other = emphasised(two)
    assert deft == ["12.3", "100.0", "95.1", "20.0", "30.0", "40.0", "0.900", "0.988"]
    assert other == ["12.3", "100.0", "20.0", "30.0", "40.0", "0.988"]  # ties, but not the lower F1, nor "-"


def test_one_selector_alone_is_not_the_best():
    alone = comparison(SelectorResult(name="deft", metrics=metrics(0.9), seconds=1.0))
    assert emphasised(alone) == []


def test_markup_in_names_is_shown_as_it_is():
    result = comparison(SelectorResult(name="[red]x[/red]", metrics=metrics(0.9), seconds=1.0, note="[bold]"))
    assert "[red]x[/red]" in rendered(result)
    assert "[bold]" in rendered(result)


def test_table_without_selectors_is_empty_but_drawn():
    assert "selector" in rendered(comparison())


def test_write_json_makes_folders_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "new" / "result.json"
    write_json(path, {"name": "naïve"})
    write_json(str(path), {"name": "naïve", "seed": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "naïve", "seed": 1}
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


def test_write_json_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "result.json"
    write_json(path, {"seed": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"auroc": math.nan})

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"seed": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"seed": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
