"""The matrix of cells, with the fake model of conftest.py."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from deft_benchmarks.matrix.cell_metrics import calibration_error, cell_metrics, noise_miss_rate_at_budget
from deft_benchmarks.matrix.cells import Cell, cell_file, read_cell, read_cells, write_cell
from deft_benchmarks.matrix.metrics import detection_metrics
from deft_benchmarks.matrix.recipes import Recipe
from deft_benchmarks.matrix.runner import run_matrix
from deft_benchmarks.matrix.settings import MatrixSettings, Noise
from deft_benchmarks.noise.labels import symmetric
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deft_plugin import FinetuneSettings, Selection, judging
from deft_plugin.errors import InputError, UnknownNameError
from deft_plugin.plugins import load_plugins
from deft_plugin.runs import features
from deft_plugin.settings import FrozenSettings, RunSettings
from deft_plugin.types import SelectorTraits

SELECTORS = ("deft", "label_match", "gmm", "small_loss")
RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


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


@pytest.mark.parametrize(
    "text", ["sym", "human:0.4", "sym:much", "", "sym:nan", "sym:inf", "sym:1", "sym:-0.1", "sym:"]
)
def test_bad_noises(text):
    with pytest.raises(InputError, match=r"Expected (a noise|noise_ratio in \[0, 1\))"):
        Noise.parse(text)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"schema_version": 99}', "[" * 100_000, "\0"])
def test_a_damaged_cell_is_run_anew_and_left_out_of_tables(run, tmp_path, content):
    first, _ = run(selectors=("label_match", "gmm"))
    file = next((tmp_path / "results").rglob("label_match.json"))
    file.write_text(content)
    with pytest.warns(UserWarning, match=r"label_match\.json to be a cell .* It is left out") as warned:
        assert [cell.selector for cell in read_cells([tmp_path / "results"])] == ["gmm"]
    assert "\n" not in str(warned[0].message)
    with pytest.warns(UserWarning, match=r"label_match\.json to be a cell .* kept beside the new one"):
        again, told = run(selectors=("label_match", "gmm"))
    assert {cell.selector: is_old for cell, is_old in told} == {"label_match": False, "gmm": True}
    assert {cell.fingerprint for cell in again} == {cell.fingerprint for cell in first}
    assert file.with_name("label_match.json.kept-1").read_text() == content


FIELDS = sorted(field.name for field in dataclasses.fields(Cell) if field.name not in ("noise_details", "details"))


@pytest.mark.parametrize("name", FIELDS)
def test_a_cell_with_a_field_of_another_type(make_cell, tmp_path, name):
    write_cell(tmp_path / "x.json", make_cell())
    content = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps({**content, name: [{}]}))
    with pytest.raises(InputError, match=r"x\.json.* but (got|it has) \[\{\}\]"):
        read_cell(tmp_path / "x.json")


class TestOtherData:
    """Cells are found by names; whether they are of these data their fingerprint says."""

    def test_another_image(self, run, clean_folder, tmp_path):
        (first,), _ = run(selectors=("label_match",))
        file = next((clean_folder / "red").iterdir())
        Image.new("RGB", (8, 8), (1, 2, 3)).save(file)
        self.expect_anew(run, tmp_path, first)

    def test_another_label(self, run, clean_folder, tmp_path):
        (first,), _ = run(selectors=("label_match",))
        file = next((clean_folder / "red").iterdir())
        file.rename(clean_folder / "blue" / file.name)
        self.expect_anew(run, tmp_path, first)

    def test_another_class_name(self, run, clean_folder, tmp_path):
        (first,), _ = run(selectors=("label_match",))
        (clean_folder / "red").rename(clean_folder / "reddish")
        self.expect_anew(run, tmp_path, first)

    def test_another_noise_of_the_same_name(self, run, install, make_plugin, tmp_path):
        rows = [3]

        def change(labels, **_):
            return np.where(np.arange(len(labels)) < rows[0], 2, labels)

        install(odd=make_plugin(register_noise_models=lambda register: register("odd", lambda: change)))
        (first,), _ = run(selectors=("label_match",), noises=[Noise(mode="odd", ratio=0.1)])
        rows[0] = 4
        self.expect_anew(run, tmp_path, first, noises=[Noise(mode="odd", ratio=0.1)])

    def test_other_settings_of_the_selector(self, run, monkeypatch, tmp_path):
        (first,), _ = run(selectors=("deft",))
        monkeypatch.setattr(
            FrozenSettings.__init__, "__kwdefaults__", {**FrozenSettings.__init__.__kwdefaults__, "sharpening": 2.0}
        )
        self.expect_anew(run, tmp_path, first)

    def test_another_backbone_of_the_same_name(self, run, fake_backbone, monkeypatch, tmp_path):
        (first,), _ = run(selectors=("label_match",))
        made = fake_backbone.__init__

        def make(self, name="fake"):
            made(self, name)
            self.fingerprint = "trained further"

        monkeypatch.setattr(fake_backbone, "__init__", make)
        self.expect_anew(run, tmp_path, first)

    def test_another_training(self, run, clean_folder, tmp_path):
        (first,), _ = run(selectors=("label_match",))
        recipe = Recipe(name="colours", files=str(clean_folder), training=FinetuneSettings(epochs=3))
        self.expect_anew(run, tmp_path, first, recipes=[recipe])

    def test_a_cell_from_before_there_were_fingerprints(self, run, tmp_path):
        (first,), _ = run(selectors=("label_match",))
        file = next((tmp_path / "results").rglob("label_match.json"))
        content = json.loads(file.read_text())
        del content["fingerprint"]
        file.write_text(json.dumps(content))
        assert read_cells([tmp_path / "results"]) == [dataclasses.replace(first, fingerprint=None)]
        with pytest.warns(UserWarning, match="does not say by a fingerprint of which data it is"):
            (second,), ((_, is_old),) = run(selectors=("label_match",))
        assert (second.fingerprint, is_old) == (first.fingerprint, False)
        assert json.loads(file.with_name(f"{file.name}.kept-1").read_text()) == content

    def test_metrics_of_classes_that_are_asked_for_later(self, run):
        run(selectors=("label_match",))
        (cell,), ((_, is_old),) = run(selectors=("label_match",), per_class=True)
        assert cell.per_class
        assert not is_old

    def test_cells_of_other_labels_are_not_compared(self, make_cell, tmp_path):
        write_cell(tmp_path / "a.json", make_cell("deft"))
        write_cell(tmp_path / "b.json", make_cell("gmm", labels_hash="1" * 64))
        with pytest.raises(InputError, match=r"of one block to be of the same labels, but .*a\.json and .*b\.json"):
            read_cells([tmp_path])

    def expect_anew(self, run, tmp_path, first, **changes):
        """Nothing that was computed is lost, also not by --force; what is there now is taken the next time."""
        file = next((tmp_path / "results").rglob(f"{first.selector}.json"))
        before = file.read_bytes()
        with pytest.warns(UserWarning, match="is of other data, labels or settings. It is kept beside"):
            (second,), ((_, is_old),) = run(selectors=(first.selector,), **changes)
        assert not is_old
        assert second.fingerprint != first.fingerprint
        assert read_cell(file) == second
        assert file.with_name(f"{file.name}.kept-1").read_bytes() == before
        assert read_cells([tmp_path / "results"]) == [second]
        _, ((_, is_old),) = run(selectors=(first.selector,), **changes)
        assert is_old
        file.write_bytes(before)
        run(selectors=(first.selector,), force=True, **changes)
        assert file.with_name(f"{file.name}.kept-2").read_bytes() == before


def test_cells_of_the_repository_are_read_and_at_their_place():
    """They have no fingerprint, and their paths follow from their names as they did."""
    files = sorted(RESULTS.rglob("seed-1/*.json"))[::7]
    cells = [read_cell(file) for file in files]
    assert len(files) > 30
    for file, cell in zip(files, cells, strict=True):
        assert cell.fingerprint is None
        names = {"data": cell.data, "model": cell.model, "tuning": "auto", "setting": cell.setting}
        assert cell_file(RESULTS, **names, seed=1, selector=cell.selector) == file


NAMES = [
    "../../out",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/../../b",
    "a\\b",
    "a\nb",
    "\0",
    "x" * 5000,
    "名" * 300,
    ".hidden",
    "\ud800",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_no_name_leaves_the_results(tmp_path, name):
    """Of data, a model, a noise or a selector; a file of that name can be written."""
    names = {"data": "d", "model": "m", "setting": "sym 0.4", "selector": "gmm"}
    for which in names:
        file = cell_file(tmp_path, **{**names, which: name}, tuning="auto", seed=0)
        assert file.resolve().is_relative_to(tmp_path.resolve())
        assert len(file.relative_to(tmp_path).parts) == 5
        assert not any(part.startswith(".") for part in file.relative_to(tmp_path).parts)
        file.parent.mkdir(parents=True)
        file.write_text("x")
        file.unlink()


def test_two_data_sets_of_one_name(run, clean_folder, fake_model):
    recipes = [Recipe(name=name, files=str(clean_folder)) for name in ("A b", "a-b")]
    with pytest.raises(InputError, match="Expected data sets of different names, but got 'A b', 'a-b'"):
        run(recipes)
    assert fake_model == []


def test_data_that_are_missing_stop_before_anything_is_run(run, clean_folder, fake_model):
    recipes = [Recipe(name="a", files=str(clean_folder)), Recipe(name="b", files="nowhere.parquet")]
    with pytest.raises(InputError, match="Expected the data of b"):
        run(recipes)
    assert fake_model == []


def test_results_that_cannot_be_written(run, tmp_path, fake_model):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(InputError, match="Expected --results to be a folder that can be written"):
        run()
    assert fake_model == []


def test_a_disk_that_is_full(run, monkeypatch):
    def write(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deft_benchmarks.matrix.cells.write_json", write)
    with pytest.raises(InputError, match=r"Expected to write .*No space left on device"):
        run(selectors=("label_match",))


def test_what_a_selector_tells_that_no_json_can_be(run, install, make_plugin):
    class Odd:
        def select(self, run):
            n = len(run.labels)
            details = {"loss": float("nan")}
            return Selection(
                is_clean=np.ones(n, bool), label_quality=np.ones(n), predicted_labels=run.labels, details=details
            )

    install(odd=make_plugin(register_selectors=lambda register: register("odd", Odd)))
    cells, _ = run(selectors=("odd", "label_match"))
    assert [cell.error is None for cell in cells] == [False, True]


def test_two_runs_at_a_time(run, tmp_path):
    """One writes what the other has written in the meantime: the same."""
    cells, _ = run(selectors=("label_match",))
    file = next((tmp_path / "results").rglob("*.json"))
    write_cell(file, cells[0])
    assert read_cell(file) == cells[0]
    assert [each.name for each in file.parent.iterdir() if "kept" in each.name] == []


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
