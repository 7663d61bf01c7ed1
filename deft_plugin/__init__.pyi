from .api import detect, find_label_issues
from .data.reading import ImageData, read_image_data
from .deft.detector import Detector
from .deft.selector import Deft
from .errors import InputError
from .hookspecs import hookimpl
from .plugins import load_plugins
from .results.clean_mask import CleanMask
from .results.detection import Detection
from .runs.run import Run
from .settings import FinetuneSettings, FrozenSettings, RunSettings
from .types import Backbone, EpochEnd, NoiseModel, NoiseTraits, Selection, Selector, SelectorTraits

__all__ = [
    "Backbone",
    "CleanMask",
    "Deft",
    "Detection",
    "Detector",
    "EpochEnd",
    "FinetuneSettings",
    "FrozenSettings",
    "ImageData",
    "InputError",
    "NoiseModel",
    "NoiseTraits",
    "Run",
    "RunSettings",
    "Selection",
    "Selector",
    "SelectorTraits",
    "detect",
    "find_label_issues",
    "hookimpl",
    "load_plugins",
    "read_image_data",
]
