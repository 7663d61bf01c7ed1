"""Files that are written as a whole, or not at all."""

from __future__ import annotations

import json
import math

import pytest

from deft_plugin.compute.files import write_json


def test_write_json_makes_folders_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "result.json"
    write_json(path, {"name": "naïve"})
    write_json(str(path), {"name": "naïve", "seed": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "naïve", "seed": 1}
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]


def test_write_json_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_json(path, {"seed": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"auroc": math.nan})

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"seed": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"seed": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
