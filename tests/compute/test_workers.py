"""What the environment says of the processes that share a run; runs of several are in test_processes.py."""

from __future__ import annotations

import pytest
from accelerate import PartialState

from deft_plugin.compute import this_process
from deft_plugin.errors import InputError

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def join(monkeypatch):
    """Join with these variables set, and no others."""

    def go(**variables):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        this_process.cache_clear()
        return this_process("cpu")

    yield go
    this_process.cache_clear()
    PartialState._reset_state()


def test_a_single_process(join):
    assert join().size == 1
    assert join(WORLD_SIZE="1", RANK="junk").size == 1


@pytest.mark.parametrize("size", ["abc", "0", "-1", "1.0", "", " ", "\u0663", "9" * 30])
def test_a_size_that_is_none(join, size):
    with pytest.raises(InputError, match=r"Expected WORLD_SIZE to be a whole number of at least 1, but got .*launch"):
        join(WORLD_SIZE=size)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "Expected RANK to be a whole number of at least 0, but got ''"),
        ({"RANK": "x", "LOCAL_RANK": "0"}, "Expected RANK to be a whole number"),
        ({"RANK": "2", "LOCAL_RANK": "0"}, "Expected RANK below WORLD_SIZE, which is 2, but got 2"),
        ({"RANK": "0", "LOCAL_RANK": "-1"}, "Expected LOCAL_RANK to be a whole number"),
        ({"RANK": "0", "LOCAL_RANK": "0"}, "Expected to join 2 processes, but ValueError"),
        ({"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "x"}, "Expected to join 2 proc"),
    ],
)
def test_a_process_that_nobody_has_started(join, variables, words):
    with pytest.raises(InputError, match=words) as caught:
        join(WORLD_SIZE="2", **variables)
    assert "\n" not in str(caught.value)
