"""No detection is lost because something after it went wrong."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from deft_plugin.errors import DeftError

if TYPE_CHECKING:
    from deft_plugin.results.detection import Detection


@contextlib.contextmanager
def rescued(detection: Detection, saved: Path | None = None) -> Generator[None, None, None]:
    """Say where the detection is if what follows fails; it is saved then, unless it was.

    Parameters
    ----------
    detection : Detection
    saved : Path, optional
        Where what follows saves it first.

    Raises
    ------
    DeftError
        For any error but that of a pipe that was closed.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        where = _is_saved(detection, saved) or _save_somewhere(detection)
        said = str(error) if isinstance(error, DeftError) else f"{type(error).__name__}: {error}"
        raise DeftError(f"{said} {_how_to_go_on(where)}") from error


def _is_saved(detection: Detection, folder: Path | None) -> Path | None:
    if folder is None:
        return None
    with contextlib.suppress(Exception):
        return folder if type(detection).load(folder) == detection else None


def _save_somewhere(detection: Detection) -> Path | None:
    for parent in (Path.cwd(), Path.home(), Path(tempfile.gettempdir())):
        with contextlib.suppress(Exception):
            folder = parent / f"deft-detection-{os.getpid()}"
            detection.save(folder)
            return folder
    return None


def _how_to_go_on(where: Path | None) -> str:
    if where is None:
        return "The detection could be saved nowhere."
    return f"The detection is saved in {where}: go on with `deft report {where} DATA`."
