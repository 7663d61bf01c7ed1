"""Class names: those that a data set knows, and whether names are fit to be names."""

from __future__ import annotations

import itertools
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from deft_plugin.errors import InputError

_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_NO_WORD = re.compile(r"[+-]?\d+([.,]\d+)?|n\d{8}", re.ASCII)  # a number, or an id of WordNet such as n01440764


def check_class_names(class_names: Any) -> tuple[str, ...]:
    """Check class names.

    Parameters
    ----------
    class_names : sequence of str of length K

    Returns
    -------
    tuple of str of length K, at least 2

    Raises
    ------
    InputError
        If there are fewer than two, or one is no string, empty, or there twice.

    Examples
    --------
    >>> check_class_names(["cat", "dog"])
    ('cat', 'dog')
    """
    if isinstance(class_names, str | bytes | Mapping | set) or not np.iterable(class_names):
        raise InputError(
            "Expected class_names as a list of strings in the order of the labels, "
            f"but got {type(class_names).__name__}."
        )
    names = [str(name) if isinstance(name, np.str_) else name for name in class_names]
    for index, name in enumerate(names):
        if not isinstance(name, str) or not visible(name):
            raise InputError(
                f"Expected every class name to be a non-empty string, but class_names[{index}] is {name!r}. "
                "Pass class_names=[...] with a readable name for each class."
            )
    if duplicates := [repr(name) for name, count in Counter(names).items() if count > 1]:
        raise InputError(
            f"Expected every class name once, but {', '.join(duplicates)} is there more than once. "
            "Merge the classes, or give them different names with class_names=[...]."
        )
    if len(names) < 2:
        raise InputError(f"Expected at least two classes, but got {', '.join(names) or 'none'}.")
    return tuple(names)


def class_names_of(data: Any) -> list[str] | None:
    """Class names that a torch data set knows: its `classes`, or `class_to_idx`, also of what it is made of.

    Looked into are ``Subset`` and other wrappers with a `dataset`, ``ConcatDataset``, and the `reader` of timm's
    ``ImageDataset``.

    Parameters
    ----------
    data : object

    Returns
    -------
    list of str, or None
        In the order of the labels; None if there are none.

    Raises
    ------
    InputError
        If parts of a ``ConcatDataset`` have different classes, or indices of classes have gaps.

    Examples
    --------
    >>> import types
    >>> class_names_of(types.SimpleNamespace(classes=[("crane",), ("maillot",), ("maillot", "tank suit")]))
    ['crane', 'maillot', 'maillot, tank suit']
    """
    names = getattr(data, "classes", None)
    if names is not None:
        return _in_order(names) if isinstance(names, Mapping) else _first_synonyms(names)
    for attribute in ("class_to_idx", "class_name_to_idx"):
        if isinstance(positions := getattr(data, attribute, None), Mapping) and positions:
            return _in_order(cast("Mapping[Any, Any]", positions))
    if isinstance(parts := getattr(data, "datasets", None), list | tuple) and parts:
        return _of_all_parts(cast("Sequence[Any]", parts))
    inner = getattr(data, "dataset", None) or getattr(data, "reader", None)
    return None if inner is None else class_names_of(inner)


def names_are_numbers(class_names: Sequence[str]) -> bool:
    """Tell whether class names are whole numbers in ascending order, as `check_labels` makes them of numbers.

    Examples
    --------
    >>> names_are_numbers(["512", "47219"]), names_are_numbers(["10", "9"]), names_are_numbers(["cat", "dog"])
    (True, False, False)
    """
    if not all(_WHOLE_NUMBER.fullmatch(name) for name in class_names):
        return False
    numbers = list(map(int, class_names))
    return all(low < high for low, high in itertools.pairwise(numbers))


def warn_of_names_without_words(class_names: Sequence[str]) -> None:
    """Warn of class names that say nothing to a model of images and texts: numbers, or ids of WordNet.

    Parameters
    ----------
    class_names : sequence of str

    Warns
    -----
    UserWarning
    """
    if mute := [name for name in class_names if _NO_WORD.fullmatch(name.strip())]:
        warnings.warn(
            f"{len(mute)} of {len(class_names)} class names are only numbers or WordNet ids "
            f"({', '.join(map(repr, mute[:5]))}{' …' if len(mute) > 5 else ''}). This method reads them as words: pass "
            "class_names=[...] (--class-names) with a readable name for each class, in their order.",
            stacklevel=2,
        )


def visible(name: str) -> str:
    r"""Give what people see of a name: composed characters, single blanks within, and no signs without width.

    Examples
    --------
    >>> visible(" tabby  cat\u200b")
    'tabby cat'
    """
    shown = "".join(sign for sign in unicodedata.normalize("NFC", name) if unicodedata.category(sign) != "Cf")
    return " ".join(shown.split())


def warn_of_twins(names: Iterable[str]) -> None:
    """Warn of names that look the same and are not.

    Parameters
    ----------
    names : iterable of str

    Warns
    -----
    UserWarning
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(visible(name), []).append(name)
    if twins := [group for group in groups.values() if len(group) > 1]:
        shown = "; ".join(" and ".join(map(ascii, group)) for group in twins[:5])
        warnings.warn(
            f"Class names differ only by blanks or Unicode form, and are judged as different classes: {shown}. If they "
            "are one class, make them the same string.",
            stacklevel=2,
        )


def _in_order(positions: Mapping[Any, Any]) -> list[str]:
    """Names in the order of their indices, from {name: index} or {index: name}."""
    items = [(value, key) if _is_index(value) else (key, value) for key, value in positions.items()]
    by_index = {int(index): str(name) for index, name in items if _is_index(index)}
    if sorted(by_index) != list(range(len(items))):
        raise InputError(
            f"Expected class indices 0 … {len(items) - 1}, each once, but the data set has {sorted(by_index)[:10]} for "
            f"{len(items)} names. Pass class_names=[...] in the order of the labels."
        )
    return [by_index[index] for index in range(len(items))]


def _is_index(value: object) -> bool:
    return isinstance(value, int | np.integer)


def _first_synonyms(classes: Any) -> Any:
    """Of classes with several names each, as torchvision's ImageNet has them, the first, or all where that is taken."""
    if not isinstance(classes, list | tuple) or not all(isinstance(names, tuple | list) and names for names in classes):
        return classes
    synonyms = [list(map(str, names)) for names in cast("Sequence[Sequence[object]]", classes)]
    firsts = Counter(names[0] for names in synonyms)
    found = [names[0] if firsts[names[0]] == 1 else ", ".join(names) for names in synonyms]
    seen: Counter[str] = Counter()
    for row, name in enumerate(found):
        seen[name] += 1
        if seen[name] > 1:
            found[row] = f"{name} ({seen[name]})"
    return found


def _of_all_parts(parts: Sequence[Any]) -> list[str] | None:
    names = [class_names_of(part) for part in parts]
    if all(of_part is None for of_part in names):
        return None
    for number, of_part in enumerate(names):
        if of_part is None or list(of_part) != list(names[0] or ()):
            raise InputError(
                f"Expected the same classes in all parts of a ConcatDataset, but part 0 has {_shown(names[0])} and "
                f"part {number} has {_shown(of_part)}: a label would mean another class there. Give the parts the same "
                "classes in the same order, or pass class_names=[...] if their labels count alike."
            )
    return names[0]


def _shown(names: Sequence[str] | None) -> str:
    if names is None:
        return "no class names"
    return f"{len(names)} ({', '.join(map(str, names[:5]))}{' …' if len(names) > 5 else ''})"
