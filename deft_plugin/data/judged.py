"""Telling whether data are those that were judged, in the same order: by their number, labels, and images."""

from __future__ import annotations

import functools

import numpy as np

from deft_plugin.data.digests import UNREADABLE_DIGEST, digest_or_blank
from deft_plugin.data.sources import ImageSource, describe
from deft_plugin.errors import InputError

ROWS_TO_COMPARE = 32
"""To read every image again would cost a pass over the data; this many, evenly spaced, find another order."""

PASS_THOSE = "Pass those, or detect again."


def check_same_count(found: int, judged: int, *, advice: str = PASS_THOSE) -> None:
    """Refuse another number of rows.

    Parameters
    ----------
    found, judged : int
    advice : str
        How the caller mends it.

    Raises
    ------
    InputError
    """
    if found != judged:
        raise other_data(f"there are {found} rows instead of {judged}", advice)


def check_same_labels(found: np.ndarray, judged: np.ndarray, *, advice: str = PASS_THOSE) -> None:
    """Refuse other labels; names the first row that differs.

    Parameters
    ----------
    found, judged : np.ndarray of shape (N,), int
    advice : str

    Raises
    ------
    InputError
    """
    if len(different := np.flatnonzero(found != judged)):
        raise other_data(f"row {different[0]} has another label", advice)


def rows_to_compare(rows: np.ndarray) -> np.ndarray:
    """Choose evenly spaced ones among rows (n,): `ROWS_TO_COMPARE`, or all if there are fewer.

    Examples
    --------
    >>> rows_to_compare(np.arange(5))
    array([0, 1, 2, 3, 4])
    """
    return rows[np.unique(np.linspace(0, len(rows) - 1, ROWS_TO_COMPARE, dtype=int))] if len(rows) else rows


def check_same_digests(
    rows: np.ndarray, found: np.ndarray, judged: np.ndarray, *, what: str = "image", advice: str = PASS_THOSE
) -> None:
    """Refuse other images; names the first row that differs.

    Parameters
    ----------
    rows : np.ndarray of shape (B,), int
    found, judged : np.ndarray of shape (B, 16), uint8
    what : str
        What the digests are of.
    advice : str

    Raises
    ------
    InputError
    """
    if len(different := rows[(found != judged).any(1)]):
        raise other_data(f"row {different[0]} has another {what}", advice)


def check_same_images(images: ImageSource, digests: np.ndarray, rows: np.ndarray) -> None:
    """Refuse other images among some rows; names the row, and the file if there is one.

    Parameters
    ----------
    images : ImageSource of length N
    digests : np.ndarray of shape (N, 16), uint8
        Of the judged images.
    rows : np.ndarray of shape (B,), int
        To look at.

    Raises
    ------
    InputError
    """
    for row in rows.tolist():
        found = digest_or_blank(functools.partial(images.load, row))
        if found == UNREADABLE_DIGEST:
            raise other_data(f"{describe(images, row)} can no longer be read")
        if found != digests[row].tobytes():
            raise other_data(f"{describe(images, row)} has another image")


def other_data(difference: str, advice: str = PASS_THOSE) -> InputError:
    """Make the error that says how data differ from those that were judged.

    Parameters
    ----------
    difference : str
    advice : str
    """
    return InputError(f"Expected the data that were judged, in the same order, but {difference}. {advice}")
