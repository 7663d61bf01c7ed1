"""The matrix of cells, with the fake model of conftest.py."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from deft_benchmarks.matrix.cell_metrics import calibration_error, cell_metrics, noise_miss_rate_at_budget
from deft_benchmarks.matrix.cells import read_cells
from deft_benchmarks.matrix.metrics import detection_metrics
from deft_benchmarks.matrix.recipes import Recipe
from deft_benchmarks.matrix.runner import run_matrix
from deft_benchmarks.matrix.settings import MatrixSettings, Noise
from deft_benchmarks.noise.labels import symmetric
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_plugin import FinetuneSettings, Selection, judging
from deft_plugin.errors import InputError, UnknownNameError
from deft_plugin.plugins import load_plugins
from deft_plugin.runs import features
from deft_plugin.settings import RunSettings
from deft_plugin.types import SelectorTraits

SELECTORS = ("deft", "label_match", "gmm", "small_loss")


class Broken:
    def select(self, run):
        if run.seed == 1:
            raise RuntimeError("out of luck")
        n = len(run.labels)
        return Selection(is_clean=np.ones(n, bool), label_quality=np.ones(n), predicted_labels=run.labels)


@pytest.fixture
def run(fake_model, install, make_plugin, clean_folder, tmp_path):
    def register_selectors(register):
        register("broken", Broken, summary="fails for seed 1", traits=SelectorTraits(consumes=("features",)))

    install(broken=make_plugin(register_selectors=register_selectors))

    def go(recipes=None, *, model="fake", **changes):
        chosen = {"selectors": SELECTORS, "noises": [Noise(mode="sym", ratio=0.3)], "seeds": [0], **changes}
        settings = RunSettings(model=model, device="cpu")
        matrix = MatrixSettings(run=settings, results=tmp_path / "results", **chosen)
        told = []
        recipes = recipes or [Recipe(name="colours", files=str(clean_folder))]
        cells = run_matrix(recipes, matrix, load_plugins(), report=lambda cell, is_old: told.append((cell, is_old)))
        return cells, told

    return go


def test_a_cell_for_each_selector_noise_and_seed(run, tmp_path):
    noises = [Noise.parse(text) for text in ("sym:0.3", "idn:0.3", "asym:0.2")]
    cells, told = run(noises=noises, seeds=[0, 1])
    assert len(cells) == 4 * 3 * 2
    assert [cell for cell, _ in told] == cells
    assert read_cells([tmp_path / "results"]) == sorted(
        cells, key=lambda cell: (cell.setting.replace(" ", "-"), cell.seed, cell.selector)
    )
    for cell in cells:
        assert cell.error is None
        assert cell.metrics["clean_f1"] > 0.5
        assert cell.seconds >= 0
        assert cell.peak_memory_mb > 10
        assert cell.versions["torch"]
        assert re.fullmatch(r".*\w.*, [1-9]\d* cores", cell.machine)
        assert (cell.num_examples, cell.num_classes, cell.model, cell.tuning) == (150, 3, "fake", "frozen")
    assert {cell.noise: cell.noise_details for cell in cells}["idn"]["matrix_shape"] == [3, 3072, 3]
    assert {cell.selector for cell in cells if cell.is_told_noise_ratio} == {"small_loss"}


def test_selectors_of_a_block_see_the_same_labels(run, tmp_path):
    cells, _ = run(seeds=[0, 1])
    hashes = {}
    for cell in cells:
        hashes.setdefault(cell.block, set()).add(cell.labels_hash)
    assert all(len(found) == 1 for found in hashes.values())
    assert len(set.union(*hashes.values())) == 2
    saved = np.load(next((tmp_path / "results").rglob("seed-1/labels.npz")))["given_labels"]
    truth = np.repeat(np.arange(3), 50)  # a folder's rows are by class
    np.testing.assert_array_equal(saved, symmetric(truth, num_classes=3, noise_ratio=0.3, seed=1))


def test_what_is_there_is_not_run_again(run, monkeypatch):
    first, _ = run()
    monkeypatch.setattr(judging, "judge", None)
    monkeypatch.setattr("deft_benchmarks.matrix.blocks.judge", None)
    again, told = run()
    assert again == first
    assert all(is_old for _, is_old in told)


def test_one_more_selector_costs_itself_alone(run):
    run(selectors=SELECTORS[:2])
    _, told = run()
    assert [is_old for _, is_old in told] == [True, True, False, False]
    _, told = run(force=True)
    assert not any(is_old for _, is_old in told)


def test_the_faithful_protocol_on_a_clip(run, clean_folder, tiny_model_folder):
    training = FinetuneSettings(epochs=1, batch_size=50, n_ctx=2)
    recipe = Recipe(name="colours", files=str(clean_folder), training=training)
    cells, _ = run([recipe], selectors=("label_match", "deft_faithful"), model=str(tiny_model_folder))
    other, faithful = cells
    assert (faithful.error, faithful.variant_of, faithful.details["tuning"]) == (None, "deft", "vpt_deep")
    assert faithful.details["batch_size"] == 50
    for name in ("precision", "recall"):
        means = faithful.metrics[f"batch_mean_clean_{name}"]
        assert means == pytest.approx(faithful.metrics[f"clean_{name}"], abs=0.2)
        assert f"batch_mean_clean_{name}" not in other.metrics


def test_one_pass_of_the_encoder_for_all_cells(run, fake_model, monkeypatch):
    passes = []
    compute = features.compute_image_features
    monkeypatch.setattr(features, "compute_image_features", lambda *a, **k: passes.append(1) or compute(*a, **k))
    cells, _ = run(seeds=[0, 1, 2], noises=[Noise(mode="sym", ratio=0.2), Noise(mode="idn", ratio=0.3)])
    assert len(passes) == 1
    assert {cell.encoder_passes for cell in cells} == {1}
    assert len(fake_model) == 1


def test_a_cell_that_fails_does_not_stop_the_others(run):
    cells, _ = run(selectors=("broken", "label_match"), seeds=[0, 1, 2])
    assert [cell.error is None for cell in cells] == [True, True, False, True, True, True]
    failed = cells[2]
    assert "out of luck" in failed.error
    assert failed.metrics == {}
    _, told = run(selectors=("broken", "label_match"), seeds=[0, 1, 2])
    assert [is_old for _, is_old in told] == [True, True, True, False, True, True], "what failed is tried again"


def test_a_cell_is_what_the_selector_gives_alone(run, clean_folder, fake_model):
    from deft_plugin import detect

    cells, _ = run(selectors=("label_match", "deft"))
    names = tuple(sorted(path.name for path in clean_folder.iterdir()))
    truth = np.repeat(np.arange(3), 50)
    given_labels = symmetric(truth, num_classes=3, noise_ratio=0.3, seed=0)
    images = [str(file) for name in names for file in sorted((clean_folder / name).iterdir())]
    for cell in cells:
        alone = detect(images, given_labels, class_names=names, model="fake", device="cpu", method=cell.selector)
        expected = cell_metrics(~alone.is_label_issue, alone.label_quality, given_labels == truth)
        assert cell.metrics == pytest.approx(expected)


def test_a_class_that_loses_its_last_example(run, install, make_plugin):
    """Such a run shares nothing with the others, and knows the classes that are left."""

    def register_noise_models(register):
        def drop_last(labels, *, num_classes, noise_ratio, seed):
            return np.where(labels == num_classes - 1, 0, labels)

        register("drop_last", lambda: drop_last, summary="no example of the last class")

    install(gone=make_plugin(register_noise_models=register_noise_models))
    cells, _ = run(
        noises=[Noise(mode="drop_last", ratio=0.3), Noise(mode="sym", ratio=0.3)], selectors=("label_match",)
    )
    assert [cell.error for cell in cells] == [None, None]
    assert cells[0].num_classes == 3
    assert cells[0].actual_noise_ratio == pytest.approx(1 / 3)


def test_per_class(run):
    cells, _ = run(selectors=("label_match",), per_class=True)
    assert set(cells[0].per_class) == {"red", "green", "blue"}
    assert all("noise_recall" in scores for scores in cells[0].per_class.values())


def test_human_labels_are_skipped_where_there_are_none(run):
    cells, _ = run(noises=[Noise(mode="human"), Noise(mode="sym", ratio=0.3)])
    assert {cell.noise for cell in cells} == {"sym"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"selectors": ("smal_loss",)}, "Did you mean 'small_loss'"),
        ({"noises": [Noise(mode="idm", ratio=0.1)]}, "'idn'"),
    ],
)
def test_unknown_names_stop_before_anything_is_run(run, changes, words, fake_model):
    with pytest.raises(UnknownNameError, match=words):
        run(**changes)
    assert fake_model == []


@pytest.mark.parametrize("text", ["sym", "human:0.4", "sym:much", ""])
def test_bad_noises(text):
    with pytest.raises(InputError, match="Expected a noise"):
        Noise.parse(text)


def test_a_damaged_cell(run, tmp_path):
    run(selectors=("label_match",))
    file = next((tmp_path / "results").rglob("label_match.json"))
    file.write_text("{")
    with pytest.raises(InputError, match=r"label_match\.json to be a cell"):
        run(selectors=("label_match",))
    content = {"schema_version": 99}
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="of version 1, but it has 99"):
        run(selectors=("label_match",))


class TestMetrics:
    @settings(deadline=None)
    @given(rows=st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=1))
    def test_miss_rate_is_the_mean_over_all_orders_of_ties(self, rows):
        quality, right = np.array([q for q, _ in rows]), np.array([r for _, r in rows])
        found = noise_miss_rate_at_budget(quality, right)
        budget = int((~right).sum())
        if budget == 0:
            assert found is None
            return
        rng, rates = np.random.default_rng(0), []
        for _ in range(300):
            order = np.lexsort((rng.random(len(rows)), quality))[:budget]
            rates.append(right[order].sum() / budget)
        assert found == pytest.approx(np.mean(rates), abs=0.12)

    def test_calibration_against_a_loop(self):
        rng = np.random.default_rng(0)
        quality, right = rng.random(500), rng.random(500) < 0.5
        total = 0.0
        for low in range(15):
            rows = [k for k in range(500) if low / 15 <= quality[k] < (low + 1) / 15]
            if rows:
                total += len(rows) / 500 * abs(np.mean(quality[rows]) - np.mean(right[rows]))
        assert calibration_error(quality, right) == pytest.approx(total)

    def test_all_metrics(self):
        rng = np.random.default_rng(0)
        quality, right = rng.random(50), rng.random(50) < 0.5
        found = cell_metrics(quality > 0.5, quality, right)
        assert found["auroc"] == detection_metrics(quality > 0.5, quality, right).auroc
        assert len(found) == 10
