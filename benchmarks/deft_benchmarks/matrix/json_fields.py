"""Values from JSON files, held to the types of the fields that they are for."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from deft_plugin.errors import InputError


def check_fields(kind: type, items: Mapping[str, Any], where: str) -> None:
    """Refuse values of another type than the fields of a dataclass have; a tuple is a list in JSON.

    Parameters
    ----------
    kind : type
        A dataclass.
    items : mapping of str
        Values by the name of their field; those of no field are passed over.
    where : str
        What they are from, for the error.

    Raises
    ------
    InputError
    """
    for name, hint in get_type_hints(kind).items():
        if name in items and not _fits(items[name], hint):
            raise InputError(f"Expected {name!r} in {where} to be {_in_words(hint)}, but got {_shown(items[name])}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is Any:
        return True
    if origin in (list, tuple):
        return isinstance(value, list) and all(_fits(each, inner[0]) for each in cast("list[Any]", value))
    if origin is dict:
        return isinstance(value, dict) and all(_fits(each, inner[1]) for each in cast("dict[str, Any]", value).values())
    if origin is int:
        return type(value) is int and abs(value) < 2**63
    if origin is float:
        return type(value) in (int, float) and abs(value) < 1e150 and math.isfinite(value)  # so are its squares
    return isinstance(value, type(None) if hint is type(None) else origin)


def _in_words(hint: Any) -> str:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(each) for each in inner)
    if origin in (list, tuple):
        return f"a list, each {_in_words(inner[0])}"
    if origin is dict:
        return f"an object, each {_in_words(inner[1])}"
    words = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    return words.get(origin, "an object")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
