"""Errors that say what was expected, what came, and how to mend it."""

from __future__ import annotations

import difflib
import re
import unicodedata
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


class OutputError(InputError, OSError):
    """A file or folder that cannot be written."""


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


def as_text(name: str) -> str:
    r"""Make valid text of a name that is not UTF-8: what cannot be decoded is written as ``\xe9``.

    Parameters
    ----------
    name : str
        With lone surrogates, as Python gives names of files.

    Examples
    --------
    >>> as_text("café"), as_text("caf\udce9")
    ('café', 'caf\\xe9')
    """
    return name.encode("utf-8", "surrogateescape" if _is_of_file(name) else "backslashreplace").decode(
        "utf-8", "backslashreplace"
    )


def printable(text: str) -> str:
    r"""Make text that a terminal shows and does not obey: what is not to be seen is written as ``\x1b``.

    These are control characters, line ends, and marks that turn the direction of writing.

    Parameters
    ----------
    text : str
        Of one line.

    Examples
    --------
    >>> printable("red \x1b[31m, two\nlines, and \u202e back")
    'red \\x1b[31m, two\\nlines, and \\u202e back'
    """
    return "".join(map(_printable, as_text(text)))


_JOINERS = "\u200c\u200d"  # of letters in Persian and Hindi, and of parts of an emoji


def _printable(letter: str) -> str:
    is_control = unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") and letter not in _JOINERS
    return letter.encode("unicode_escape").decode("ascii") if is_control else letter


def _is_of_file(name: str) -> bool:
    """Tell whether all lone surrogates of a name stand for bytes."""
    return not any("\ud800" <= letter <= "\udfff" and not "\udc80" <= letter <= "\udcff" for letter in name)
