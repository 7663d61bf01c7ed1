"""The house: few flat files, small rooms, and public functions that say what they take."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [ROOT / name for name in ("deft_plugin", "adapters/deft_adapters", "benchmarks/deft_benchmarks")]
FOLDERS = sorted(
    {file.parent for root in [*PACKAGES, ROOT / "tests"] for file in root.rglob("*.py")},
    key=lambda path: path.as_posix(),
)


def test_the_doors_and_the_host_are_all_that_is_flat():
    assert len(list((ROOT / "deft_plugin").glob("*.py"))) <= 14


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_room_can_be_overlooked(folder):
    if folder.name == "selectors":
        pytest.skip("one paper, one file")
    assert len(list(folder.glob("*.py"))) <= 15


def public_names():
    """Files and names of the public face: what `deft_plugin` and its rooms offer, and the flat modules of adapters."""
    for stub in (ROOT / "deft_plugin").rglob("__init__.pyi"):
        for node in ast.parse(stub.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                file = stub.parent.joinpath(*node.module.removeprefix("deft_plugin.").split(".")).with_suffix(".py")
                yield from ((file, alias.name) for alias in node.names)
    for name in ("detect", "find_label_issues"):
        yield ROOT / "deft_plugin" / "api.py", name
    for file in (ROOT / "adapters" / "deft_adapters").glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        yield from ((file, n.name) for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef))


def public_functions():
    """Functions of the public face and methods of its classes that take two parameters or more."""
    for file, name in public_names():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if getattr(node, "name", None) != name or name.startswith("_"):
                continue
            for function in node.body if isinstance(node, ast.ClassDef) else [node]:
                if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
                    arguments = [*function.args.args, *function.args.kwonlyargs]
                    if len([one for one in arguments if one.arg not in ("self", "cls")]) >= 2:
                        yield f"{file.relative_to(ROOT)}:{function.lineno} {function.name}", function


def test_public_functions_say_what_they_take():
    """In numpydoc's section Parameters."""
    found = {name: "Parameters\n" in (ast.get_docstring(function) or "") for name, function in public_functions()}
    missing = sorted(name for name, says in found.items() if not says)
    assert len(found) > 40
    assert 1 - len(missing) / len(found) >= 0.8, "\n".join(missing)
