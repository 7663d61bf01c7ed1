"""Means, ranks and tables of synthetic cells, against plain counts and scipy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from deft_benchmarks.matrix.cells import Cell, cell_file, read_cell, read_cells, write_cell
from deft_benchmarks.tables.layout import overview, score_tables, variant_tables
from deft_benchmarks.tables.lines import mean_of, summarise
from deft_benchmarks.tables.published import read_published
from deft_benchmarks.tables.ranks import rank_selectors
from deft_benchmarks.tables.writing import markdown, ranking_rows, table_text, to_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deft_plugin.errors import InputError


@pytest.fixture(scope="session")
def scored(make_cell):
    """Builder of a cell by its clean F1, from which the other scores follow; without one the cell has failed."""

    def build(selector="deft", *, f1: float | None = 0.9, **changes):
        metrics = {} if f1 is None else {"clean_f1": f1, "auroc": f1, "calibration_error": 1 - f1}
        return make_cell(selector, metrics=metrics, error="RuntimeError: x" if f1 is None else None, **changes)

    return build


@pytest.fixture(scope="session")
def matrix(scored):
    """Cells of {selector: [[score of each seed] of each setting]}."""
    return lambda scores: [
        scored(name, ratio=round(0.1 * (k + 1), 1), seed=seed, f1=f1)
        for name, settings_ in scores.items()
        for k, seeds in enumerate(settings_)
        for seed, f1 in enumerate(seeds)
    ]


class TestCells:
    def test_written_and_read(self, tmp_path, scored):
        cell = scored(per_class={"cat": {"auroc": None}}, details={"a": [1]})
        write_cell(tmp_path / "x" / "deft.json", cell)
        assert read_cell(tmp_path / "x" / "deft.json") == cell
        assert read_cells([tmp_path]) == [cell]

    def test_paths_differ(self):
        common = {"data": "A/B", "model": "m", "tuning": "auto", "setting": "sym 0.4", "seed": 0, "selector": "gmm"}
        from pathlib import Path

        changes = ({}, {"data": "A"}, {"model": "n"}, {"tuning": "lora"}, {"setting": "idn 0.4"}, {"seed": 1})
        assert len({cell_file(Path(), **{**common, **change}) for change in changes}) == len(changes)
        assert "/B" not in str(cell_file(Path("r"), **common))

    def test_nothing_there(self, tmp_path):
        with pytest.raises(InputError, match="Expected results of deft bench run"):
            read_cells([tmp_path])


class TestMeans:
    @given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
    def test_interval_is_that_of_scipy(self, values):
        found = mean_of(values)
        assert found.value == pytest.approx(np.mean(values))
        error = stats.sem(values)
        if error > 1e-9:
            low, _ = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
            assert found.half_width == pytest.approx(found.value - low)

    def test_one_seed_has_no_interval(self):
        assert mean_of([0.5]).half_width is None


class TestRanks:
    @settings(deadline=None)
    @given(
        table=st.lists(st.lists(st.sampled_from([0.1, 0.5, 0.6, 0.9]), min_size=3, max_size=3), min_size=2, max_size=6)
    )
    def test_against_a_loop(self, matrix, table):
        names = ("a", "b", "c")
        cells = matrix({name: [[row[k]] for row in table] for k, name in enumerate(names)})
        found = rank_selectors(cells, "clean_f1")
        ranks = {name: [] for name in names}
        for row in table:
            for k, name in enumerate(names):
                better = sum(other > row[k] for other in row)
                same = sum(other == row[k] for other in row)
                ranks[name].append(better + (same + 1) / 2)
        assert dict(zip(found.selectors, found.mean_ranks, strict=True)) == pytest.approx(
            {name: np.mean(values) for name, values in ranks.items()}
        )
        assert list(found.mean_ranks) == sorted(found.mean_ranks)
        wins = {name: sum(row[k] == max(row) for row in table) for k, name in enumerate(names)}
        assert dict(zip(found.selectors, found.wins, strict=True)) == wins

    def test_critical_difference_of_demsar(self, scored):
        """Section 3.2.2: 4 classifiers, 14 data sets, alpha 0.05: CD = 2.569 sqrt(4 * 5 / (6 * 14)) = 1.25."""
        rng = np.random.default_rng(0)
        cells = [scored(name, data=f"d{k}", f1=float(rng.random())) for name in "abcd" for k in range(14)]
        assert rank_selectors(cells, "clean_f1").critical_difference == pytest.approx(1.25, abs=0.005)

    def test_seeds_are_averaged_first(self, matrix):
        cells = matrix({"a": [[0.9, 0.1]], "b": [[0.6, 0.6]], "c": [[0.2, 0.2]]})
        found = rank_selectors(cells, "clean_f1")
        assert found.num_blocks == 1
        assert found.selectors == ("b", "a", "c")
        assert (found.wins, found.wins_of_seeds, found.num_blocks_of_seeds) == ((1, 0, 0), (1, 1, 0), 2)
        assert found.p_value is None

    def test_settings_that_are_not_whole_are_left_out(self, scored, matrix):
        cells = matrix({"a": [[0.9], [0.8]], "b": [[0.6], [0.5]]})[:-1]
        assert rank_selectors(cells, "clean_f1").num_blocks == 1
        assert rank_selectors([scored(f1=None)], "clean_f1").num_blocks == 0

    def test_oracles_variants_and_failures_are_not_ranked(self, scored, matrix):
        cells = matrix(
            {"a": [[0.9], [0.8]], "b": [[0.6], [0.5]], "small_loss": [[0.95], [0.95]], "c": [[None], [None]]}
        )
        cells += [scored("a_too", ratio=ratio, f1=0.99, variant_of="a") for ratio in (0.1, 0.2)]
        found = rank_selectors(cells, "clean_f1")
        assert (found.selectors, found.wins, found.num_blocks) == (("a", "b"), (2, 0), 2)
        assert found.left_out == ("a_too", "c", "small_loss")
        assert ranking_rows(found)[2].endswith("have failed: a_too, c, small_loss.")

    def test_lower_is_better(self, matrix):
        cells = matrix({"a": [[0.9], [0.8]], "b": [[0.6], [0.5]]})
        assert rank_selectors(cells, "calibration_error", lower_is_better=True).selectors == ("a", "b")


def wide_table(lines, metric):
    """All tables as one, with a row for each setting."""
    rows = []
    for data, (_, *settings_), of_selectors in map(table_text, score_tables(lines, metric)):
        rows += [[data, name, *(row[k + 1] for row in of_selectors)] for k, name in enumerate(settings_)]
    return ["data", "noise", *(row[0] for row in of_selectors)], rows


class TestTables:
    def test_the_best_is_bold_and_the_published_stands_beside(self, tmp_path, scored):
        file = tmp_path / "published.csv"
        file.write_text("dataset,noise,selector,clean_precision,clean_recall\nCIFAR-100,sym 0.4,deft,98.75,97.91\n")
        cells = [scored("deft", seed=seed, f1=f1) for seed, f1 in enumerate((0.94, 0.96))]
        cells += [scored("gmm", seed=seed, f1=0.93) for seed in (0, 1)]
        cells += [scored("small_loss", seed=0, f1=0.92), scored("small_loss", seed=1, f1=None)]
        headers, rows = wide_table(summarise(cells, read_published(file)), "clean_f1")
        assert headers == ["data", "noise", "deft", "gmm", "small_loss *"]
        assert rows == [["CIFAR-100", "sym 0.4", "**95.0** ± 12.7 (98.3)", "93.0 ± 0.0", "92.0 !"]]
        assert markdown(headers, rows).splitlines()[1] == "| --- | --- | --- | --- | --- |"

    def test_settings_in_order_and_gaps(self, scored):
        cells = [scored(noise="human", ratio=0.402), scored(ratio=0.2), scored("gmm", ratio=0.6, f1=None)]
        _, rows = wide_table(summarise(cells), "auroc")
        assert [row[1] for row in rows] == ["sym 0.2", "sym 0.6", "human"]
        assert rows[1][2:] in (["", "failed"], ["failed", ""])

    def test_lower_is_better(self, scored):
        _, rows = wide_table(summarise([scored("a", f1=0.9), scored("b", f1=0.7)]), "calibration_error")
        assert rows[0][2:] == ["**0.100**", "0.300"]

    def test_overview_averages_over_ratios_and_not_over_noise(self, scored):
        cells = [scored(ratio=ratio, f1=f1) for ratio, f1 in ((0.2, 0.9), (0.4, 0.8))]
        cells += [scored(noise="idn", ratio=0.2, f1=0.6), scored(data="photos", noise="human", f1=0.5)]
        cells += [scored("gmm", ratio=ratio, f1=f1) for ratio, f1 in ((0.2, 0.7), (0.4, None))]
        cells += [scored("deft_too", ratio=0.2, f1=0.99, variant_of="deft")]
        heading, headers, rows = table_text(overview(summarise(cells), "clean_f1"))
        assert heading == "mean over ratios"
        assert headers == ["selector", "CIFAR-100 idn", "CIFAR-100 sym", "photos human"]
        assert rows == [["deft", "**60.0**", "**85.0**", "**50.0**"], ["gmm", "", "failed", ""]]
        _, _, rows = table_text(overview(summarise([one for one in cells if one.error is None]), "clean_f1"))
        assert rows[1] == ["gmm", "", "-", ""]  # one ratio is missing: no mean beside means of two

    def test_variants_stand_beside_what_they_change_and_the_best_of_the_others(self, scored):
        cells = [scored(name, f1=f1) for name, f1 in {"deft": 0.8, "gmm": 0.85, "aum": 0.7, "small_loss": 0.9}.items()]
        cells += [scored("deft_too", f1=0.87, variant_of="deft")]
        (table,) = variant_tables(summarise(cells), "clean_f1")
        heading, headers, rows = table_text(table)
        assert (heading, headers) == ("variants of deft", ["selector", "CIFAR-100 sym"])
        assert rows == [["deft_too", "**87.0**"], ["deft", "80.0"], ["best of the others", "85.0"]]
        (table,) = variant_tables(summarise(cells), "calibration_error")
        assert table_text(table)[2][-1] == ["best of the others", "0.150"]
        assert "deft_too" not in [row[0] for row in table_text(score_tables(summarise(cells), "clean_f1")[0])[2]]
        assert variant_tables(summarise(cells[:-1]), "clean_f1") == []

    def test_frame(self, scored):
        frame = to_frame(summarise([scored(seed=seed, f1=0.9 + seed / 100) for seed in range(3)]))
        row = frame.iloc[0]
        assert (row["data"], row["noise"], row["selector"], row["seeds"], row["errors"]) == (
            *("CIFAR-100", "sym 0.4", "deft"),
            *(3, 0),
        )
        assert row["clean_f1"] == pytest.approx(0.91)

    def test_ranking_says_what_is_not_told_apart(self, matrix):
        cells = matrix({name: [[f1], [f1 - 0.1]] for name, f1 in {"a": 0.9, "b": 0.8, "c": 0.7}.items()})
        _, rows, note = ranking_rows(rank_selectors(cells, "clean_f1"))
        assert rows[0] == ["a", "1.00", "2 of 2", "2 of 2"]
        assert "Friedman" in note
        assert "not told apart" in note

    def test_bad_published_figures(self, tmp_path):
        (tmp_path / "x.csv").write_text("a,b\n1,2\n")
        with pytest.raises(InputError, match="published figures"):
            read_published(tmp_path / "x.csv")

    def test_schema_has_every_field(self):
        assert {field.name for field in dataclasses.fields(Cell)} >= {"labels_hash", "git_commit", "encoder_passes"}
