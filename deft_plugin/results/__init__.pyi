from .clean_mask import CleanMask
from .columns import VerdictColumns
from .detection import Detection

__all__ = ["CleanMask", "Detection", "VerdictColumns"]
