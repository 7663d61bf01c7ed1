"""Errors that say what was expected, what came, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DeftError(Exception):
    """Base of all errors that this package raises on purpose."""


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
