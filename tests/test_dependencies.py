"""What is imported is declared: a package that only comes along with another one may be gone in its next release."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"deft_plugin", "deft_adapters", "deft_benchmarks"}
PACKAGES = ("deft_plugin", "adapters/deft_adapters", "benchmarks/deft_benchmarks")
SCRIPTS = ("benchmarks/verdicts.py", "benchmarks/make_demo_data.py", "docs")


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements):
    return {normalised(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 does not read TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def imported(root):
    """Top-level modules that a folder's or file's Python code imports, each with a file that does."""
    path = ROOT / root
    found = {}
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            else:
                continue
            found |= {name.split(".")[0]: str(file.relative_to(ROOT)) for name in names}
    return {name: file for name, file in found.items() if name not in OURS | sys.stdlib_module_names}


def undeclared(modules, declared):
    distributions = importlib.metadata.packages_distributions()
    return {
        module: file
        for module, file in modules.items()
        if not declared & {normalised(name) for name in distributions.get(module, [module])}
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_of_packages(package, project):
    extras = project["optional-dependencies"]
    declared = names_of(
        [*project["dependencies"], *extras["bench"], *extras["heif"], *extras["ray"], *extras["tensorboard"]]
    )
    assert undeclared(imported(package), declared) == {}


@pytest.mark.parametrize("place", [*SCRIPTS, "tests"])
def test_of_tests_and_scripts(place, project):
    extras = project["optional-dependencies"]
    declared = names_of([*project["dependencies"], *(name for extra in extras.values() for name in extra)])
    assert undeclared(imported(place), declared) == {}


def test_one_that_is_not_declared_is_found():
    assert undeclared({"numpy": "a.py", "PIL": "b.py"}, {"numpy"}) == {"PIL": "b.py"}
    assert undeclared({"no_such_module": "a.py"}, {"numpy"}) == {"no_such_module": "a.py"}
