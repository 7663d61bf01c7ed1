"""Find wrong labels in image data sets with a vision-language model (DeFT, Wei et al., NeurIPS 2024).

Public names are loaded when they are first used, so that ``import deft_plugin`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deft_plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from deft_plugin.api import detect, find_label_issues
    from deft_plugin.deft.detector import Detector
    from deft_plugin.deft.selector import Deft
    from deft_plugin.results.clean_mask import CleanMask
    from deft_plugin.results.detection import Detection
    from deft_plugin.runs.run import Run
    from deft_plugin.settings import FinetuneSettings
    from deft_plugin.types import Selection, Selector

__all__ = [
    "CleanMask",
    "Deft",
    "Detection",
    "Detector",
    "FinetuneSettings",
    "Run",
    "Selection",
    "Selector",
    "detect",
    "find_label_issues",
    "hookimpl",
]

_HOMES = {
    "CleanMask": "deft_plugin.results.clean_mask",
    "Detection": "deft_plugin.results.detection",
    "Deft": "deft_plugin.deft.selector",
    "Detector": "deft_plugin.deft.detector",
    "FinetuneSettings": "deft_plugin.settings",
    "Run": "deft_plugin.runs.run",
    "Selection": "deft_plugin.types",
    "Selector": "deft_plugin.types",
    "detect": "deft_plugin.api",
    "find_label_issues": "deft_plugin.api",
}


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
