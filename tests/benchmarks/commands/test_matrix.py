"""``deft bench run``, ``list`` and ``table``, as from a shell."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from deft_plugin.plugins import load_plugins


@pytest.fixture
def results(deft, colour_folder, tmp_path):
    folder = tmp_path / "results"
    options = ("--selectors", "label_match,gmm,small_loss", "--seeds", "0,1", "--noise", "sym:0.3,asym:0.2")
    code, out, err = deft("bench", "run", colour_folder, *options, "--model", "fake", "--results", folder)
    assert code == 0, err
    return folder, out


def test_run_and_run_again(results, deft, colour_folder):
    folder, out = results
    assert out.count("photos") >= 12
    assert "small_loss *" in out
    assert "mean ranks: 2 settings" in out
    assert len(list(folder.rglob("*.json"))) == 12
    options = ("--selectors", "label_match", "--noise", "sym:0.3", "--model", "fake", "--results", folder)
    _, again, _ = deft("bench", "run", colour_folder, *options)
    assert again.count("(was there)") == 1


def test_without_names_all_that_the_model_can_run(deft, colour_folder, tmp_path):
    _, out, _ = deft("bench", "run", colour_folder, "--model", "fake", "--noise", "sym:0.3", "--results", tmp_path)
    assert "deft_faithful is left out: it needs a CLIP, and fake is none" in out
    cells = {file.stem: json.loads(file.read_text()) for file in tmp_path.rglob("*.json")}
    names = {entry.name for entry in load_plugins().selectors}
    assert set(cells) == names - {"deft_faithful"}
    assert not any(cell["error"] for cell in cells.values())
    variants = {name for name, cell in cells.items() if cell["variant_of"] == "deft"}
    assert variants == {"deft_mixture", "deft_posterior", "deft_in_sample"}
    assert set(cells["deft"]["order"][-3:]) == variants  # what they share is deft's time


def test_what_another_tuning_leaves_out(deft, colour_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "deft_benchmarks.matrix.runner.run_matrix", lambda _recipes, matrix, _plugins, report: told.append(matrix)
    )
    monkeypatch.setattr("deft_benchmarks.commands.matrix.print_tables", lambda *_args, **_settings: None)
    told = []
    _, out, _ = deft("bench", "run", colour_folder, "--model", "fake", "--tuning", "lora", "--results", tmp_path)
    assert "deft_posterior is left out: it needs --tuning frozen" in out
    assert {"deft", "deft_mixture", "gmm"} < set(told[0].selectors)
    assert {"deft_posterior", "deft_in_sample", "deft_faithful"}.isdisjoint(told[0].selectors)


def test_one_that_the_model_cannot_run_fails_by_name(deft, colour_folder, tmp_path):
    options = ("--model", "fake", "--selectors", "deft_faithful", "--results", tmp_path)
    _, out, _ = deft("bench", "run", colour_folder, *options)
    assert "failed: deft_plugin.errors.InputError: Expected a CLIP" in out


def test_list(results, deft):
    code, out, _ = deft("bench", "list", results[0])
    assert code == 0
    assert len(out.splitlines()) == 12


def test_table(results, deft, tmp_path):
    published = tmp_path / "published.csv"
    name = "/".join((results[0].parent / "photos").parts[-2:])
    published.write_text(f"dataset,noise,selector,clean_precision,clean_recall\n{name},sym 0.3,gmm,90,80\n")
    options = ("--published", published, "--markdown", "--metric", "clean_f1", "--csv", tmp_path / "all.csv")
    code, out, _ = deft("bench", "table", results[0], *options)
    assert code == 0
    assert "(84.7)" in out
    assert "in brackets the paper's, with CLIP ViT-B/16" in out
    frame = pd.read_csv(tmp_path / "all.csv")
    assert len(frame) == 6
    assert frame["published_clean_f1"].notna().sum() == 1


def test_names_that_are_not_known(deft, colour_folder):
    code, _, err = deft("bench", "run", colour_folder, "--noise", "symm:0.4", "--model", "fake")
    assert code == 1
    assert "Did you mean 'sym'" in err
    code, _, err = deft("bench", "run", "nowhere.json")
    assert code == 1
    assert "to be a recipe" in err
