"""Files that are written as a whole, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_json(path: str | Path, obj: object) -> None:
    """Write JSON so that a reader finds the old file or the whole new one, never a part; folders are made.

    Parameters
    ----------
    path : path
    obj : object
        Of JSON values.

    Raises
    ------
    TypeError, ValueError
        If `obj` has something that JSON has not, such as NaN; a file that was there stays as it is.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # What UTF-8 has not, such as an odd byte in the name of a file, is written as JSON's escape of it.
    write_text(path, text.encode("utf-8", "backslashreplace").decode())


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a reader finds the old one or the whole new one, never a part; folders are made.

    Parameters
    ----------
    path : path
    text : str
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
