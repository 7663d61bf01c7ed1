"""Errors that say what was expected, what came, and how to mend it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_LONGEST = 1500


class DeftError(Exception):
    """Base of all errors that this package raises on purpose.

    Parameters
    ----------
    message : str
        Kept on one line, and without its middle if nobody would read it all: it may quote a value of any size, or what
        another library says.
    """

    def __init__(self, message: str = "") -> None:
        line = re.sub(r"\s*[\r\n\v\f\x85\u2028\u2029]\s*", " ", message)
        super().__init__(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 500]} … {line[-500:]}")


class InputError(DeftError, ValueError):
    """Data, labels or settings that cannot be used."""


class UnreadableImageError(DeftError, ValueError):
    """An image that cannot be decoded."""


class UnknownNameError(DeftError, ValueError):
    """A name that no plugin registered."""


class DuplicateNameError(DeftError):
    """A name that two plugins registered."""


class MissingWeightsError(DeftError, RuntimeError):
    """Model weights that are not on this machine, or are not the expected ones."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which names are known, the closest one first.

    Examples
    --------
    >>> did_you_mean("smal_loss", ["deft", "small_loss"])
    "Did you mean 'small_loss'? Known: deft, small_loss."
    """
    names = sorted(known)
    lowered = {known_name.lower(): known_name for known_name in names}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    hint = f"Did you mean {lowered[close[0]]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."
