"""Cells of CSV files that people open in spreadsheets, which take some of them for formulas."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_GUARDED = re.compile(r"'+[=+\-@\t\r]")


def guarded(cell: str) -> str:
    """Make a cell harmless that a spreadsheet would compute, by an apostrophe in front, as OWASP says.

    Parameters
    ----------
    cell : str

    Examples
    --------
    >>> guarded("=1+1"), guarded("dress"), unguarded(guarded("'=1+1"))
    ("'=1+1", 'dress', "'=1+1")
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """Undo `guarded`.

    Parameters
    ----------
    cell : str
    """
    return cell[1:] if _GUARDED.match(cell) else cell
