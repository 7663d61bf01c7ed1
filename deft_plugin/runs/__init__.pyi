from .features import compute_image_features, default_cache_dir
from .neighbours import Neighbours, nearest_neighbours
from .prepare import PreparedRun, prepare_run, relabel
from .probe import History, LinearProbe
from .run import Run

__all__ = [
    "History",
    "LinearProbe",
    "Neighbours",
    "PreparedRun",
    "Run",
    "compute_image_features",
    "default_cache_dir",
    "nearest_neighbours",
    "prepare_run",
    "relabel",
]
