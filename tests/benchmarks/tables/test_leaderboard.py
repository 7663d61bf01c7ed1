"""The results that are committed: one matrix, run as a whole, and the tables that are made of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from deft_benchmarks.commands.bench import bench
from deft_benchmarks.matrix.cells import read_cells

from deft_plugin.plugins import load_plugins

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "benchmarks" / "results"
SIX = {
    f"{noise} {ratio}" for noise, ratios in {"sym": (0.2, 0.4, 0.6), "idn": (0.2, 0.3, 0.4)}.items() for ratio in ratios
}


@pytest.fixture(scope="module")
def cells():
    return read_cells([RESULTS])


def test_the_whole_matrix_is_there(cells):
    settings = {("clothing photos", one) for one in SIX} | {("Caltech-101", one) for one in SIX}
    settings |= {("CIFAR-100", one) for one in {*SIX, "human"}}
    names = {entry.name for entry in load_plugins().selectors} - {"deft_faithful"}  # it needs a CLIP
    expected = {(data, setting, seed, name) for data, setting in settings for seed in range(3) for name in names}
    assert Counter((*cell.block, cell.selector) for cell in cells) == Counter(expected)


def test_nothing_failed_and_nothing_was_computed_twice(cells):
    assert [cell for cell in cells if cell.error] == []
    assert all(cell.encoder_passes <= 1 for cell in cells)
    of_block = {}
    for cell in cells:
        of_block.setdefault(cell.block, set()).add((cell.labels_hash, cell.num_examples, cell.actual_noise_ratio))
    assert all(len(found) == 1 for found in of_block.values())


def test_it_was_one_code_and_one_machine(cells):
    assert {(cell.git_commit, cell.machine, str(cell.versions), cell.model_and_tuning) for cell in cells} == {
        (cells[0].git_commit, cells[0].machine, str(cells[0].versions), "bridge-lite0, frozen")
    }
    assert not cells[0].git_commit.endswith("+")


@pytest.mark.parametrize(
    ("file", "options"),
    [
        (ROOT / "README.md", ("--metric", "clean_f1", "--overview", "--markdown")),
        (RESULTS / "README.md", ("--markdown",)),
    ],
    ids=["overview", "all"],
)
def test_the_tables_are_what_the_command_prints(file, options):
    printed = CliRunner().invoke(bench, ["table", str(RESULTS), *options, "--markdown"], catch_exceptions=False).output
    assert f"<!-- tables -->\n{printed}\n<!-- end of tables -->" in file.read_text(encoding="utf-8")
