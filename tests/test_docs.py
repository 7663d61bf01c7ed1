"""What the pages for contributors say of the code is so."""

from __future__ import annotations

import inspect
import re
import types
from pathlib import Path

import pytest

from deft_plugin import hookspecs
from deft_plugin.plugins import build_plugin_manager

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/glossary.md", "docs/policy.md")
PLACES = ("adapters/", "benchmarks/", "deft_plugin/", "docs/", "tests/", ".ci/")
TO_COME = {"adapters/deft_adapters/learners/"}
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SKETCHES = re.findall(r"```python\n(.*?)```", CONTRIBUTING, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([^`\s]+)`", text) if name.startswith(PLACES)}
    assert {name for name in named - TO_COME if not (ROOT / name).exists()} == set()
    links = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "//" not in target}
    assert {link for link in links if not ((ROOT / page).parent / link).exists()} == set()


@pytest.mark.parametrize("number", range(len(SKETCHES)))
def test_sketches_fit_the_hooks(number):
    module = types.ModuleType("sketch")
    exec(compile(SKETCHES[number], f"sketch {number} of CONTRIBUTING.md", "exec"), module.__dict__)
    manager = build_plugin_manager()
    manager.register(module)
    manager.check_pending()
    assert manager.get_hookcallers(module)


def test_all_hooks_are_explained():
    functions = inspect.getmembers(hookspecs, inspect.isfunction)
    hooks = [name for name, _ in functions if name.startswith(("register_", "deft_"))]
    assert len(hooks) >= 6
    assert [name for name in hooks if name not in CONTRIBUTING] == []


def test_each_word_has_a_file():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    entries = [entry for entry in text.split("\n\n") if entry.startswith("**")]
    assert len(entries) > 40
    assert [entry for entry in entries if "/" not in entry] == []


def test_the_architecture_names_every_room_and_door():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "deft_plugin").glob("*/__init__.pyi")}
    doors = {path.stem for path in (ROOT / "deft_plugin").glob("*.py") if not path.stem.startswith("__")}
    assert len(rooms) >= 9
    assert {name for name in rooms | doors if f"`{name}`" not in text} == set()
