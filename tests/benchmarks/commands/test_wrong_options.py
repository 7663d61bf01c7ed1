"""Every option and argument of every command, with values that cannot be: no traceback.

Commands and options are found by themselves, so that a new one is tried, too.
"""

from __future__ import annotations

import click
import pytest

from deft_plugin.cli import app
from deft_plugin.plugins import load_plugins

JUNK = ("", "x", "-1", "nan", "99999999999999999999", "/dev/null/x", "a\nb", "x" * 5000)
EXPENSIVE = {("bench", "speed"), ("bench", "scoring"), ("bench", "features"), ("bench", "sharing"), ("demo",)}
"""Only what click reads is tried of these: without a wrong value they would start to measure."""


def commands(group, path=()):
    """Give the path of names and the click command of each command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.fixture(scope="module", autouse=True)
def _registered():
    load_plugins().call_each("register_commands", app=lambda _plugin: app)


def all_options():
    load_plugins().call_each("register_commands", app=lambda _plugin: app)
    for path, command in commands(app):
        for option in command.params:
            if isinstance(option, click.Option) and not option.is_flag:
                marks = () if path in (("detect",), ("report",)) else (pytest.mark.slow,)
                yield pytest.param(path, option, id=" ".join([*path, option.opts[0]]), marks=marks)


@pytest.fixture
def small(colour_folder, tmp_path, monkeypatch):
    """Arguments with which a command runs on little, and fast."""
    monkeypatch.chdir(tmp_path)
    return {
        ("detect",): [colour_folder, "--model", "fake", "--method", "label_match"],
        ("report",): ["nowhere", colour_folder],
        ("bench", "run"): [colour_folder, "--model", "fake", "--selectors", "label_match"],
        ("bench", "sharing"): ["clothing_demo"],
        ("bench", "features"): ["clothing_demo"],
        ("bench", "list"): [tmp_path],
        ("bench", "table"): [tmp_path],
        ("bench", "report"): [tmp_path],
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("path", "option"), list(all_options()))
def test_a_wrong_value(deft, small, path, option):
    for junk in JUNK:
        if path in EXPENSIVE and is_allowed(option, junk):
            continue
        code, _, err = deft(*path, *small.get(path, []), option.opts[0], junk)
        assert code in (0, 1, 2), (junk, err)
        if code == 1:
            assert err.splitlines()[-1].startswith("deft: "), (junk, err)
        if code == 2:
            assert "Error: " in err, (junk, err)
        assert "Traceback" not in err


def is_allowed(option, junk):
    """Tell whether click takes a value."""
    try:
        option.type.convert(junk, option, None)
    except click.UsageError:
        return False
    return True


@pytest.mark.parametrize("path", [path for path, _ in commands(app)], ids=" ".join)
def test_unknown_options_and_missing_arguments(deft, path):
    command = dict(commands(app))[path]
    code, out, err = deft(*path, "--no-such-option")
    assert (code, out) == (2, "")
    assert "No such option" in err
    if any(isinstance(each, click.Argument) and each.required for each in command.params):
        code, out, err = deft(*path)
        assert (code, out) == (2, "")
        assert "Missing argument" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bench", "run", "x", "--seeds", "x"), "expected whole numbers from 0 to 4294967295"),
        (("bench", "run", "x", "--seeds", "1,"), "expected whole numbers from 0"),
        (("bench", "run", "x", "--seeds", "-1"), "expected whole numbers from 0"),
        (("bench", "speed", "--classes", "1"), "expected whole numbers from 2"),
        (("bench", "scoring", "--rows", "many"), "expected whole numbers from 1"),
        (("bench", "run", "x", "--selectors", "gmm,,deft", "--model", "fake"), "Expected names separated by commas"),
        (("bench", "run", "x", "--selectors", "gmm", "--noise", "sym:nan", "--model", "fake"), "noise_ratio in [0, 1)"),
        (("detect", "x", "--device", "foo"), "Expected a device that this machine has"),
        (("detect", "x", "--seed", "-1"), "0<=x<=4294967295"),
        (("detect", "x", "--noise-ratio", "nan"), "Expected noise_ratio in [0, 1)"),
        (("detect", "x", "--recipe", "."), "is a directory"),
        (("detect", "x", "--cache-dir", "/dev/null"), "Expected cache_dir to be a folder"),
    ],
)
def test_what_is_said(deft, arguments, words):
    code, out, err = deft(*arguments)
    assert (code in (1, 2), out) == (True, "")
    assert words in err


def test_data_sets_and_results_of_other_kinds(deft, small, tmp_path):
    results = tmp_path / "file"
    results.write_text("x")
    code, _, err = deft("bench", "run", *small["bench", "run"], "--results", results)
    assert (code, err.count("\n")) == (1, 1)
    assert "Expected --results to be a folder that can be written" in err


@pytest.mark.filterwarnings("ignore")
def test_a_metric_that_is_not_known(deft, small, tmp_path):
    assert deft("bench", "run", *small["bench", "run"])[0] == 0
    code, _, err = deft("bench", "table", tmp_path / "results", "--metric", "clean_f2")
    assert code == 1
    assert "Unknown metric 'clean_f2'. Did you mean 'clean_f1'" in err
