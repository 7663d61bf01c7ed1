from __future__ import annotations

import pytest

from deft_plugin.errors import as_text, printable


@pytest.mark.parametrize(
    "raw", ["\x1b", "\x07", "\n", "\r", "\x00", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\udcff"]
)
def test_what_a_terminal_obeys_is_named(raw):
    shown = printable(f"a{raw}b")
    assert shown.startswith("a\\")
    assert shown.endswith("b")
    assert shown.isprintable()


@pytest.mark.parametrize("text", ["café", "猫", "👩\u200d🔬", "a\\b", ""])
def test_what_people_write_stays(text):
    assert printable(text) == as_text(text) == text


def test_any_surrogate_becomes_text():
    assert as_text("\udce9\ud800").encode("utf-8")
