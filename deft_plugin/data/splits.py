"""Splits: which of several parts of a data set is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

from deft_plugin.errors import InputError, did_you_mean

ALL_SPLITS = "all"
_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_USUAL = {name: usual for usual, names in _NAMES.items() for name in names}
_IN_A_NAME = re.compile(rf"(?<![a-z])({'|'.join(sorted(_USUAL, key=len, reverse=True))})(?![a-z])")


def usual_split(name: str) -> str | None:
    """Usual name of a split, as `datasets` reads it; None for what is no name of one.

    Examples
    --------
    >>> usual_split("val"), usual_split("Train"), usual_split("cat")
    ('validation', 'train', None)
    """
    return _USUAL.get(name.lower())


def split_of_file(file: PurePath) -> str | None:
    """Split that the name of a file tells, else that of a folder above it.

    Examples
    --------
    >>> split_of_file(PurePath("data/train-00000-of-00001.parquet")), split_of_file(PurePath("dev/0.tar"))
    ('train', 'validation')
    """
    for part in reversed(file.parts):
        if match := _IN_A_NAME.search(part.lower()):
            return _USUAL[match.group()]
    return None


def choose_splits(names: Iterable[str], split: str | None, where: object) -> list[str]:
    """Choose among the splits that are there.

    Parameters
    ----------
    names : iterable of str
        Splits that are there, by the names that they have there.
    split : str, optional
        One of them, also by another of its usual names ("val" for "validation"); "all" for all of them.
    where : object
        Path that holds them, for errors.

    Raises
    ------
    InputError
        If none is chosen where there are several; if there is no such split, or none at all.

    Examples
    --------
    >>> choose_splits(["test", "train", "val"], "validation", "photos")
    ['val']
    >>> choose_splits(["test", "train"], "all", "photos")
    ['train', 'test']
    """
    usual = list(_NAMES)
    known = sorted(names, key=lambda name: usual.index(found) if (found := usual_split(name)) else len(usual))
    if not known:
        if split is None:
            return []
        raise InputError(f"Expected no split, but got {split!r}: {where} holds no splits. Leave it out.")
    if split is None:
        if len(known) == 1:
            return known
        raise InputError(
            f"Expected one split, but {where} holds several: {', '.join(known)}. Choose one with "
            f"split={known[0]!r} (--split {known[0]}), or take all of them together with split='all' (--split all)."
        )
    if split in known:
        return [split]
    if split == ALL_SPLITS:
        return known
    if same := [name for name in known if usual_split(name) == usual_split(split) is not None]:
        return same
    raise InputError(
        f"Expected a split that {where} holds, or 'all', but got {split!r}. {did_you_mean(split, [*known, ALL_SPLITS])}"
    )
