"""Ctrl-C: one line and exit code 130, whenever it comes."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import deft_plugin.cli
from deft_plugin.__main__ import main

LINE = "deft: interrupted. Image features and checkpoints that were written are kept: run it again to go on."


@pytest.fixture
def interrupted(monkeypatch, capsys):
    """What is said, and the exit code, when a function that is interrupted stands for the command line."""

    def run(function):
        monkeypatch.setattr(deft_plugin.cli, "main", function)
        before = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(SystemExit) as caught:
                main()
        finally:
            signal.signal(signal.SIGINT, before)
        return caught.value.code, capsys.readouterr().err.splitlines()

    return run


def test_anywhere(interrupted):
    assert interrupted(lambda: signal.raise_signal(signal.SIGINT)) == (130, [LINE])


def test_in_a_library_that_makes_another_error_of_it(interrupted):
    def load():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("cannot load") from error

    assert interrupted(load) == (130, [LINE])


def test_inside_a_command(interrupted, monkeypatch):
    def command():
        deft_plugin.cli.app(["interrupt"], obj=None)

    @deft_plugin.cli.app.command()
    def interrupt():
        signal.raise_signal(signal.SIGINT)

    try:
        assert interrupted(command) == (130, [LINE])
    finally:
        deft_plugin.cli.app.commands.pop("interrupt")


def test_other_errors_stay(interrupted):
    assert interrupted(lambda: sys.exit(3)) == (3, [])


SCRIPT = """
import signal
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == WANTED:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from deft_plugin.__main__ import main
main()
"""


@pytest.mark.parametrize(
    "module", ["click", "pluggy", *(pytest.param(name, marks=pytest.mark.slow) for name in ("numpy", "torch", "timm"))]
)
def test_while_libraries_are_loaded(tmp_path, module):
    for row in range(4):
        folder = tmp_path / "photos" / "ab"[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 30, 3), row, np.uint8)).save(folder / f"{row}.png")
    command = [sys.executable, "-c", SCRIPT.replace("WANTED", repr(module)), "detect", tmp_path / "photos"]
    environment = {**os.environ, "DEFT_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (130, [LINE])
    assert "Traceback" not in done.stderr
