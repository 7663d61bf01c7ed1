"""Each import contract of pyproject.toml fails when it is broken, and holds for the code as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="import-linter comes with the dev extra")

ROOT = Path(__file__).parents[1]
PACKAGES = ("deft_plugin", "adapters/deft_adapters", "benchmarks/deft_benchmarks")
BREAKS = {
    "benchmarks use adapters use the core, never back": [
        ("deft_plugin/compute/files.py", "import deft_adapters"),
        ("deft_adapters/torch_data.py", "import deft_benchmarks"),
    ],
    "the rooms of the core, from the doors down": [
        ("deft_plugin/data/labels.py", "from deft_plugin.runs import run"),
        ("deft_plugin/compute/files.py", "from deft_plugin.data import images"),
        ("deft_plugin/errors.py", "from deft_plugin import settings"),
        ("deft_plugin/training/loop.py", "def later():\n    from deft_plugin.deft import step"),
    ],
    "the host imports types and errors only": [("deft_plugin/plugins.py", "from deft_plugin import settings")],
    "no circle of modules": [("deft_plugin/data/images.py", "def later():\n    from deft_plugin.data import reading")],
    "adapters and benchmarks use the faces of rooms, no file behind them": [
        ("deft_adapters/torch_data.py", "from deft_plugin.results import detection"),
        ("deft_benchmarks/demo_data.py", "from deft_plugin.data.reading import read_image_data"),
    ],
}
CASES = [(contract, file, line) for contract, breaks in BREAKS.items() for file, line in breaks]


@pytest.fixture(scope="module")
def lint(tmp_path_factory):
    """Run import-linter on a copy of the packages; gives its exit status and what it says."""
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, root / Path(package).name, ignore=shutil.ignore_patterns("*.parquet", "__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", root)

    def run():
        code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
        done = subprocess.run(
            [sys.executable, "-c", code, "--no-cache"],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    return root, run


def test_they_hold(lint):
    status, said = lint[1]()
    assert status == 0, said
    assert all(f"{contract} KEPT" in said for contract in BREAKS)


@pytest.mark.parametrize(("contract", "file", "line"), CASES)
def test_broken(lint, contract, file, line):
    root, run = lint
    text = (root / file).read_text(encoding="utf-8")
    try:
        (root / file).write_text(f"{text}\n{line}\n", encoding="utf-8")
        status, said = run()
    finally:
        (root / file).write_text(text, encoding="utf-8")
    assert status != 0
    assert f"{contract} BROKEN" in said
