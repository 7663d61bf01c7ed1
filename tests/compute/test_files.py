"""Files that are written as a whole, or not at all."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys

import pytest

from deft_plugin.compute.files import (
    check_file_can_be_written,
    check_folder_can_be_written,
    new_folder_beside,
    write_json,
    write_text,
)
from deft_plugin.errors import OutputError


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


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_names_that_are_not_utf8_are_kept(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "x.json", {name: ["café"]})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {name: ["café"]}


def test_a_link_is_followed(tmp_path):
    for link in ("there", "new/missing"):
        (tmp_path / "link").symlink_to(link)
        write_text(tmp_path / "link", link)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / link).read_text() == link
        (tmp_path / "link").unlink()


def test_a_device_is_written_to_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
    write_text(tmp_path / "pipe", "hello")
    assert reader.communicate(timeout=10)[0] == b"hello"
    assert not (tmp_path / "pipe").is_file()
    check_file_can_be_written("/dev/stdout")


class TestBeforehand:
    def test_what_can_be_written_leaves_nothing(self, tmp_path):
        check_file_can_be_written(tmp_path / "a" / "b.json")
        check_folder_can_be_written(tmp_path / "a" / "b")
        (tmp_path / "link").symlink_to("nowhere")
        check_folder_can_be_written(tmp_path / "link")
        assert [path.name for path in tmp_path.iterdir()] == ["link"]

    def test_names_that_cannot_be(self, tmp_path):
        (tmp_path / "loop").symlink_to("loop")
        for check in (check_file_can_be_written, check_folder_can_be_written):
            with pytest.raises(OutputError, match="File name too long"):
                check(tmp_path / ("x" * 5000))
            with pytest.raises(OutputError, match="symbolic links"):
                check(tmp_path / "loop")

    def test_what_is_in_the_way(self, tmp_path):
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        with pytest.raises(OutputError, match=r"a file to write, but .*folder is a folder"):
            check_file_can_be_written(tmp_path / "folder")
        for check in (check_file_can_be_written, check_folder_can_be_written):
            with pytest.raises(OutputError, match=r"to write .*x, but .*file is a file and no folder"):
                check(tmp_path / "file" / "x")
        with pytest.raises(OutputError, match="is a file and no folder"):
            check_folder_can_be_written(tmp_path / "file")

    def test_a_disk_that_is_full_or_read_only(self, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr("pathlib.Path.write_bytes", fail)
        with pytest.raises(OutputError, match=r"x\.json, but: Read-only file system\. .* give another place"):
            check_file_can_be_written(tmp_path / "x.json")
        assert names(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from deft_plugin.compute.files import new_folder_beside
with new_folder_beside(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "x.json"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert "half" in names(tmp_path)
    write_json(tmp_path / "y.json", 1)
    assert "half" in names(tmp_path), "of another file"
    write_json(tmp_path / "x.json", 1)
    assert names(tmp_path) == ["x.json", "y.json"]


def test_what_is_being_written_is_not_cleared(tmp_path):
    with new_folder_beside(tmp_path / "x.json") as folder:
        write_json(tmp_path / "x.json", 1)
        assert folder.is_dir()
    assert names(tmp_path) == ["x.json"]
