"""A plugin in a distribution of its own, installed by pip, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "docs" / "examples" / "deft_dots"


@pytest.fixture(scope="module")
def deft(tmp_path_factory):
    """Run ``deft`` with the plugin installed; its wheel is written by hand, so that no build tool is fetched."""
    root = tmp_path_factory.mktemp("outside")
    wheel, info = root / "deft_dots-1.0-py3-none-any.whl", "deft_dots-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(SOURCE / "deft_dots.py", "deft_dots.py")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: deft-dots\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/entry_points.txt", "[deft_plugin]\ndots = deft_dots\n")
        archive.writestr(f"{info}/RECORD", "")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", root / "site"]
    subprocess.run([*command, wheel], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(root / "site"), "DEFT_CACHE_DIR": str(root / "cache")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def run(*arguments):
        command = [sys.executable, "-m", "deft_plugin", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    return run


def test_it_is_listed(deft):
    done = deft("plugins")
    assert done.returncode == 0, done.stderr
    assert "plugin dots  (deft_dots)" in done.stdout
    assert "nearest class mean equals the label  [dots]" in done.stdout
    assert "60 pictures, red or blue  [dots]" in done.stdout


def test_it_is_compared(deft, tiny_model_folder, tmp_path):
    options = ("--selectors", "nearest_mean,deft", "--noise", "sym_others:0.2", "--model", tiny_model_folder)
    done = deft("bench", "run", "dots", *options, "--results", tmp_path / "results", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    cell = json.loads(next((tmp_path / "results").rglob("nearest_mean.json")).read_text())
    assert (cell["data"], cell["num_examples"], cell["error"]) == ("dots", 60, None)
    assert cell["consumes"] == ["features"]
    assert cell["metrics"]["auroc"] > 0.9
    assert "nearest_mean" in done.stdout


def test_the_readme_shows_as_much():
    readme = (SOURCE.parents[2] / "README.md").read_text(encoding="utf-8")
    assert "register_selectors(register)" in readme
    assert "traits = SelectorTraits(" in readme
    assert 'dots = "deft_dots"' in (SOURCE / "pyproject.toml").read_text(encoding="utf-8")
