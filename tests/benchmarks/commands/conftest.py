"""``deft``, called as from a shell."""

from __future__ import annotations

import sys
import warnings

import pytest

from deft_plugin.cli import main


@pytest.fixture
def deft(monkeypatch, capsys, fake_model):
    """Run ``deft`` with these arguments; gives its exit code, and what it printed on both streams."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["deft", *map(str, arguments)])
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as caught:
            main()
        shown = capsys.readouterr()
        return caught.value.code or 0, shown.out, shown.err

    return run
