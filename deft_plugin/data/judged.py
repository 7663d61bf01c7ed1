"""Telling whether data are those that were judged, in the same order: by their number, labels, and images."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from deft_plugin.data.digests import UNREADABLE_DIGEST, digest_or_blank, image_digest, join_digests
from deft_plugin.data.sources import ImageSource, describe
from deft_plugin.errors import InputError, UnreadableImageError

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


def read_digests(images: ImageSource, rows: np.ndarray) -> np.ndarray:
    """Digest the images of some rows, in threads; those that cannot be read are blank.

    Parameters
    ----------
    images : ImageSource of length N
    rows : np.ndarray of shape (B,), int

    Returns
    -------
    np.ndarray of shape (B, 16), uint8
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow decodes without holding the lock
        return join_digests(
            threads.map(lambda row: digest_or_blank(functools.partial(images.load, row)), rows.tolist())
        )


def check_same_images(images: ImageSource, digests: np.ndarray, rows: np.ndarray, *, advice: str = PASS_THOSE) -> None:
    """Refuse other images; each of the rows is decoded, in threads. Names the row, and the file if there is one.

    Parameters
    ----------
    images : ImageSource of length N
    digests : np.ndarray of shape (N, 16), uint8
        Of the judged images.
    rows : np.ndarray of shape (B,), int
        To look at.
    advice : str

    Raises
    ------
    InputError
    """
    found = read_digests(images, rows)
    for position in np.flatnonzero((found != digests[rows]).any(1))[:1].tolist():
        row = int(rows[position])
        raise _other_image(images, row, found[position].tobytes(), digests[row].tobytes(), advice)


class JudgedImages:
    """Images of which each is checked, when it is loaded, to be the one that was judged.

    Parameters
    ----------
    images : ImageSource of length N
    digests : np.ndarray of shape (N, 16), uint8
        Of the judged images.
    """

    def __init__(self, images: ImageSource, digests: np.ndarray) -> None:
        self._images, self._digests = images, digests

    def __len__(self) -> int:
        return len(self._images)

    def load(self, row: int) -> Image.Image:
        """Decode one image to RGB.

        Raises
        ------
        UnreadableImageError
            If it cannot be decoded, and could not be when it was judged.
        InputError
            If it is another image.
        """
        judged = self._digests[row].tobytes()
        try:
            image = self._images.load(row)
        except UnreadableImageError as error:
            if judged == UNREADABLE_DIGEST:
                raise
            raise _other_image(self._images, row, UNREADABLE_DIGEST, judged) from error
        if (found := image_digest(image)) != judged:
            raise _other_image(self._images, row, found, judged)
        return image

    def path(self, row: int) -> str | None:
        """File of a row."""
        return self._images.path(row)

    def fingerprint(self) -> str:
        """Hex digest of all images in their order."""
        return self._images.fingerprint()


def _other_image(images: ImageSource, row: int, found: bytes, judged: bytes, advice: str = PASS_THOSE) -> InputError:
    difference = "has another image"
    if UNREADABLE_DIGEST in (found, judged):
        difference = "can no longer be read" if found == UNREADABLE_DIGEST else "can be read now"
    return other_data(f"{describe(images, row)} {difference}", advice)


def other_data(difference: str, advice: str = PASS_THOSE) -> InputError:
    """Make the error that says how data differ from those that were judged.

    Parameters
    ----------
    difference : str
    advice : str
    """
    return InputError(f"Expected the data that were judged, in the same order, but {difference}. {advice}")
