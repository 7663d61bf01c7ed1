"""What is quick must stay quick: heavy libraries are imported when they are used."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path

import deft_adapters
import deft_benchmarks
import pytest

import deft_plugin

HEAVY = (
    *("torch", "open_clip", "transformers", "timm", "datasets", "sklearn", "pandas", "cleanlab", "peft", "scipy"),
    *("jinja2", "matplotlib"),
)
PACKAGES = (deft_plugin, deft_adapters, deft_benchmarks)
MODULES = sorted(
    module.name for package in PACKAGES for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)

RUN = """
import json, runpy, sys
sys.argv = ["deft", *sys.argv[1:]]
try:
    runpy.run_module("deft_plugin", run_name="__main__")
finally:
    print(json.dumps(sorted(name for name in sys.modules if "." not in name)), file=sys.stderr)
"""


def imported(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout, set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["detect", "plugins", "demo", "bench"]),
        (["plugins"], ["small_loss", "bridge-lite0", "clothing_demo", "sym"]),
        (["detect", "--help"], ["--output"]),
        (["report", "--help"], ["--output"]),
        (["demo", "--help"], ["--noise-ratio"]),
    ],
    ids=" ".join,
)
def test_help_and_plugins_import_nothing_heavy(arguments, words):
    output, modules = imported(RUN, *arguments)
    assert all(word in output for word in words)
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize("argument", ["--help", "plugins"])
def test_they_answer_at_once(argument):
    """Half a second is asked for; a busy machine is granted four times that."""

    def seconds():
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "deft_plugin", argument], capture_output=True, check=True, timeout=60)
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 2


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, json, deft_plugin; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    _, modules = imported(code)
    assert modules.isdisjoint({*HEAVY, "numpy", "PIL"})


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    if name.endswith("__main__"):
        pytest.skip("runs the command line")
    importlib.import_module(name)


def test_there_are_modules_to_import():
    assert {
        "deft_plugin.api",
        "deft_plugin.backbones.bridge",
        "deft_adapters.selectors.gmm",
        "deft_benchmarks.noise.labels",
    } <= set(MODULES)


@pytest.mark.parametrize("name", deft_plugin.__all__)
def test_public_names_resolve(name):
    assert getattr(deft_plugin, name) is not None
    assert name in dir(deft_plugin)


def test_public_names_are_what_they_say():
    from deft_plugin.api import detect
    from deft_plugin.results.detection import Detection

    assert deft_plugin.detect is detect
    assert deft_plugin.Detection is Detection


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No deft_plugin attribute detekt"):
        _ = deft_plugin.detekt
    with pytest.raises(ImportError):
        exec("from deft_plugin import detekt")


def test_names_of_peft_are_left_to_peft():
    """`DeftConfig` and `PeftType.DEFT` are of another method."""
    for package in PACKAGES:
        for file in Path(package.__path__[0]).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            words = {word for node in ast.walk(tree) for word in _names_in(node)}
            assert not {word for word in words if re.fullmatch(r"DeftConfig|DEFT", word)}, file


def _names_in(node):
    return [value for value in (getattr(node, key, None) for key in ("id", "name", "attr")) if isinstance(value, str)]
