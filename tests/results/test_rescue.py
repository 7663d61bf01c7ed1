"""No detection is lost because something after it went wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest

from deft_plugin.errors import DeftError, InputError
from deft_plugin.results.detection import Detection
from deft_plugin.results.rescue import rescued


def make_detection():
    return Detection(
        method="x",
        label_quality=np.array([0.9, 0.2]),
        is_label_issue=np.array([False, True]),
        predicted_labels=np.array([0, 0]),
        given_labels=np.array([0, 1]),
        class_names=("cat", "dog"),
        image_digests=None,
        is_image_issue=np.array([False, False]),
    )


def test_a_failure_says_where_the_detection_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for error, words in ((InputError("Expected a disk."), "Expected a disk."), (MemoryError("no"), "MemoryError: no")):
        with pytest.raises(DeftError, match=re.escape(words)) as caught, rescued(make_detection()):
            raise error
        where = re.search("saved in (.*): go on with `deft report", str(caught.value))[1]
        assert Detection.load(where) == make_detection()


def test_one_that_was_saved_is_not_saved_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_detection().save("d")
    with pytest.raises(DeftError, match="saved in d"), rescued(make_detection(), tmp_path.__class__("d")):
        raise OSError("full")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_nowhere_to_save(monkeypatch):
    def fail(*_):
        raise OSError("full")

    monkeypatch.setattr(Detection, "save", fail)
    with pytest.raises(DeftError, match="could be saved nowhere"), rescued(make_detection()):
        raise OSError("full")


def test_a_closed_pipe_is_no_failure():
    with pytest.raises(BrokenPipeError), rescued(make_detection()):
        raise BrokenPipeError
