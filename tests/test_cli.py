"""``deft``, called as from a shell: through `main`, with arguments in ``sys.argv``."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import warnings

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deft_plugin import Detection
from deft_plugin.cli import main


class Done:
    def __init__(self, exit_code, shown):
        self.exit_code, self.out, self.err = exit_code, shown.out, shown.err


@pytest.fixture
def deft(monkeypatch, capsys):
    """Run ``deft`` with these arguments."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["deft", *map(str, arguments)])
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main sets its own
        with pytest.raises(SystemExit) as caught:
            main()
        return Done(caught.value.code or 0, capsys.readouterr())

    return run


@pytest.fixture
def detect(deft, fake_model, colour_folder):
    """Run ``deft detect`` with the fake model on the folder of colours."""
    return lambda *options, path=colour_folder: deft("detect", path, "--model", "fake", *options)


def test_deft_is_the_default(detect, tmp_path):
    done = detect("--json", tmp_path / "x.json")
    assert done.exit_code == 0
    assert "Learn prompts" in done.err
    assert json.loads((tmp_path / "x.json").read_text())["method"] == "deft"


def test_a_table_of_wrong_labels(detect, colour_folder, monkeypatch):
    monkeypatch.chdir(colour_folder.parent)  # a short path is not folded
    done = detect("--method", "label_match", "--show", 3, path=colour_folder.name)
    assert done.exit_code == 0
    assert "24 of 120 labels look wrong" in done.out
    assert done.out.count(".png") == 3
    assert "and 21 more" in done.out
    assert "Image features" in done.err
    assert "Traceback" not in done.err


def test_output(detect, colours, tmp_path):
    done = detect("--method", "label_match", "--output", tmp_path / "out")
    assert done.exit_code == 0
    assert done.out.count("wrote ") == 5
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("issues.parquet", "issues.csv", "contact_sheet.png", "report.html", "detection")
    }
    frame = pd.read_parquet(tmp_path / "out" / "issues.parquet")
    pd.testing.assert_frame_equal(frame, pd.read_csv(tmp_path / "out" / "issues.csv"))
    assert frame["label_quality"].is_monotonic_increasing
    files = frame["image"].str.extract(r"(\d+)\.png")[0].astype(int)
    np.testing.assert_array_equal(frame["is_label_issue"], colours.is_wrong[files])
    with Image.open(tmp_path / "out" / "contact_sheet.png") as picture:
        picture.load()
        assert picture.format == "PNG"
    detection = Detection.load(tmp_path / "out" / "detection")
    assert detection.is_label_issue.sum() == frame["is_label_issue"].sum() == 24
    assert detection.settings["model"] == "fake"


@pytest.fixture
def saved(detect, tmp_path):
    """The folder of a detection of the folder of colours."""
    assert detect("--method", "label_match", "--output", tmp_path / "out").exit_code == 0
    return tmp_path / "out" / "detection"


def test_report(deft, saved, colour_folder, tmp_path):
    page = tmp_path / "new" / "page.html"
    done = deft("report", saved, colour_folder, "--output", page)
    assert done.exit_code == 0
    assert done.out == f"wrote {page}\n"
    assert page.read_bytes() == (saved.parent / "report.html").read_bytes()
    done = deft("report", saved, colour_folder, "--output", page, "--title", "Colours & more", "--max-images", 3)
    assert done.exit_code == 0
    shown = page.read_text(encoding="utf-8")
    assert "<h1>Colours &amp; more</h1>" in shown
    assert "the worst 3 of 24" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "{}/file"], "file is a file and no folder"),
        (["--output", "{}/file/x"], "file is a file and no folder"),
        (["--output", "{}/taken"], "issues.csv is a folder"),
        (["--output", "{}/foreign"], "detection has other files (notes.txt)"),
        (["--json", "{}/taken"], "taken is a folder"),
        (["--json", "{}/file/x.json"], "file is a file and no folder"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(detect, fake_model, tmp_path, options, words):
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "issues.csv").mkdir(parents=True)
    (tmp_path / "foreign" / "detection").mkdir(parents=True)
    (tmp_path / "foreign" / "detection" / "notes.txt").touch()
    done = detect("--method", "label_match", *(option.format(tmp_path) for option in options))
    assert (done.exit_code, done.out) == (1, "")
    assert words in done.err
    assert fake_model == [], "no model was loaded"


def test_a_report_that_cannot_be_written_is_said_before_the_data_are_read(deft, saved, tmp_path):
    done = deft("report", saved, tmp_path / "nowhere", "--output", tmp_path)
    assert done.exit_code == 1
    assert "is a folder" in done.err


def test_what_fails_after_the_work_leaves_the_detection(detect, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deft_plugin.report.page.write_page", fail)
    done = detect("--method", "label_match", "--output", "out")
    assert done.exit_code == 1
    assert "No space left on device The detection is saved in out/detection" in done.err
    assert Detection.load("out/detection").is_label_issue.sum() == 24


def test_tables_that_cannot_be_shown_lose_no_file(detect, tmp_path, monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("deft_plugin.report.terminal.print_issues", closed)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    done = detect("--method", "label_match", "--output", tmp_path / "out", "--json", tmp_path / "x.json")
    assert (done.exit_code, "Traceback" in done.err) == (141, False)
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert (tmp_path / "x.json").is_file()


def test_nothing_raw_reaches_the_terminal(detect, colour_folder, deft):
    (colour_folder / "green").rename(colour_folder / "gr\x1b[31m\u202e\neen")
    done = detect("--method", "label_match")
    assert done.exit_code == 0
    assert "gr\\x1b[31m\\u202e\\neen" in done.out.replace("\n", "").replace(" ", "")
    done = deft("detect", "no\x1b[31mwhere\x07")
    for raw in ("\x1b[31m", "\u202e", "\x07"):
        assert raw not in done.err + done.out
    assert "no\\x1b[31mwhere\\x07" in done.err


def test_report_is_written_here_unless_told_otherwise(deft, saved, colour_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert deft("report", saved, colour_folder).out == "wrote report.html\n"
    assert (tmp_path / "report.html").is_file()


def test_report_of_what_it_cannot_be_of(deft, saved, colour_folder, tmp_path):
    done = deft("report", tmp_path / "nowhere", colour_folder)
    assert done.exit_code == 1
    assert "nowhere has no detection.json" in done.err
    file = min((colour_folder / "green").iterdir())
    done = deft("report", saved, tmp_path / "nowhere", "--output", tmp_path / "page.html")
    assert done.exit_code == 1
    file.unlink()
    done = deft("report", saved, colour_folder, "--output", tmp_path / "page.html")
    assert done.exit_code == 1
    assert "there are 119 rows instead of 120" in done.err
    assert not (tmp_path / "page.html").exists()
    assert deft("report", saved, colour_folder, "--max-images", 0).exit_code == 2


@pytest.fixture
def cifar(colours, tmp_path):
    """As CIFAR-100 is stored: two columns of labels, images as bytes and path, no names."""
    images = []
    for image in colours.images:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    columns = {"img": images, "fine_label": colours.labels, "coarse_label": colours.labels // 2}
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "cifar.parquet")
    return tmp_path / "cifar.parquet"


@pytest.mark.parametrize("kind", ["list", "lines", "JSON"])
def test_columns_and_class_names(deft, detect, cifar, colours, tmp_path, kind):
    names = ",".join(colours.names)
    if kind != "list":
        names = tmp_path / "names"
        lines = "\ufeff" + "\r\n".join(colours.names) + "\n"
        names.write_text(lines if kind == "lines" else json.dumps(colours.names), encoding="utf-8")
    options = ["--image-column", "img", "--label-column", "fine_label", "--class-names", names]
    done = detect(*options, "--method", "label_match", "--output", tmp_path / "out", path=cifar)
    assert done.exit_code == 0, done.err
    detection = Detection.load(tmp_path / "out" / "detection")
    assert detection.class_names == colours.names
    np.testing.assert_array_equal(detection.given_labels, colours.labels)
    page = tmp_path / "page.html"
    for more in (options, []):
        assert deft("report", tmp_path / "out" / "detection", cifar, *more, "--output", page).exit_code == 0
        assert page.read_bytes() == (tmp_path / "out" / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "'fine_label', 'coarse_label' in .*--label-column"),
        (["--label-column", "fine"], "'fine', but got"),
        (["--label-column", "fine_label", "--image-column", "fine_label"], "but got 'fine_label'. Known: img"),
        (["--label-column", "fine_label", "--class-names", "names.txt"], "'names.txt' is no file"),
        (["--label-column", "fine_label", "--class-names", "a,b"], "2 classes in class_names"),
        (["--label-column", "fine_label", "--class-names", "a,,b"], r"class_names\[1\] is ''"),
        (["--label-column", "fine_label", "--id-column", "coarse_label"], "ids that are there once"),
    ],
)
def test_columns_that_are_not_clear(detect, cifar, options, words):
    done = detect(*options, "--method", "gmm", path=cifar)
    assert done.exit_code == 1
    assert re.search(words, done.err), done.err


def test_json(detect, tmp_path):
    done = detect("--method", "small_loss", "--noise-ratio", 0.25, "--seed", 3, "--json", tmp_path / "new" / "x.json")
    assert done.exit_code == 0
    found = json.loads((tmp_path / "new" / "x.json").read_text())
    assert found.pop("seconds") > 0
    assert found == {
        "data": "photos",
        "num_examples": 120,
        "num_classes": 3,
        "method": "small_loss",
        "model": "fake",
        "seed": 3,
        "num_label_issues": 30,
        "num_image_issues": 0,
        "details": {"noise_ratio_used": 0.25, "noise_ratio_source": "given"},
    }


def test_cache_dir(detect, fake_model, tmp_path):
    for _ in range(2):
        assert detect("--method", "label_match", "--cache-dir", tmp_path / "cache").exit_code == 0
    assert len(fake_model[0].encoded_batches) == 2
    assert fake_model[1].encoded_batches == []
    assert list((tmp_path / "cache").rglob("features.npy"))


def test_an_unreadable_image(detect, colour_folder):
    file = min((colour_folder / "green").iterdir())
    file.write_bytes(b"")
    done = detect("--method", "label_match")
    assert done.exit_code == 1
    assert f"green/{file.name}" in done.err
    done = detect("--method", "label_match", "--on-bad-image", "flag")
    assert done.exit_code == 0
    assert "1 images cannot be read" in done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "dfet"], "Unknown selector 'dfet'. Did you mean 'deft'?"),
        (["--model", "bridge-lite"], "Unknown backbone 'bridge-lite'. Did you mean 'bridge-lite0'?"),
        (["--model", "ViT-B-61/openai"], "Unknown open_clip architecture 'ViT-B-61'"),
        (["--tuning", "frosen"], "Unknown tuning 'frosen'. Did you mean 'frozen'?"),
        (["--noise-ratio", "40"], "Expected noise_ratio in [0, 1)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(detect, options, words):
    done = detect(*options)
    assert done.exit_code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("deft: ")]
    assert line.startswith(f"deft: {words}")
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_path_that_does_not_exist(deft, tmp_path):
    done = deft("detect", tmp_path / "nowhere")
    assert done.exit_code == 1
    assert done.err.startswith("deft: Expected")
    assert "nowhere" in done.err


def test_a_folder_without_images(detect, tmp_path):
    (tmp_path / "empty").mkdir()
    done = detect(path=tmp_path / "empty")
    assert done.exit_code == 1
    assert done.err.startswith("deft: Expected a folder of class folders")


def test_plugins(deft, fake_model):
    done = deft("plugins")
    assert done.exit_code == 0
    for words in ("plugin fake  (plugin_of_a_test)", "plugin core  (deft_plugin.builtin)", "sees colours  [fake]"):
        assert words in done.out
    sections = [line for line in done.out.splitlines() if line and line[0] != " " and not line.startswith("plugin ")]
    assert sections == ["selectors", "backbones", "data sets", "noise models"]


def test_a_broken_plugin_is_named_and_the_rest_works(deft, install):
    def fail():
        raise ImportError("no flux")

    install(broken=fail)
    with pytest.warns(RuntimeWarning, match="'broken' failed and is left out: ImportError: no flux"):
        done = deft("plugins")
    assert done.exit_code == 0
    assert "small_loss" in done.out


def test_a_name_registered_twice(deft, install, make_plugin):
    install(rival=make_plugin(register_selectors=lambda register: register("deft", object)))
    done = deft("plugins")
    assert done.exit_code == 1
    assert "'deft' is registered by plugin 'core' and by plugin 'rival'" in done.err


def test_help_and_version(deft):
    done = deft("--help")
    assert done.exit_code == 0
    assert all(command in done.out for command in ("detect", "report", "plugins", "demo", "bench"))
    assert deft("--version").out.startswith("deft, version ")


def test_with_the_embedded_model(deft, colour_folder, tmp_path):
    """The default model and method, on 120 images of 8 pixels."""
    done = deft("detect", colour_folder, "--cache-dir", tmp_path / "cache", "--json", tmp_path / "x.json")
    assert done.exit_code == 0
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["model"], found["method"], found["num_examples"]) == ("bridge-lite0", "deft", 120)
    assert "labels look wrong" in done.out


def test_plugins_say_what_is_worth_knowing(deft):
    lines = {line.split()[0]: line for line in deft("plugins").out.splitlines() if line.startswith("  ")}
    assert lines["small_loss"].endswith("; told the noise ratio  [adapters]")
    assert lines["confident_learning"].endswith("; needs no images  [adapters]")
    assert lines["deft_faithful"].endswith("; variant of deft, needs a backbone with a cone  [adapters]")
    assert lines["deft_in_sample"].endswith("; variant of deft, needs frozen tuning  [adapters]")
    assert lines["idn"].endswith("; needs pixels  [benchmarks]")
    assert lines["gmm"].endswith("(DivideMix)  [adapters]")
