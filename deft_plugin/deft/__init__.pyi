from .detector import Detector
from .prompts import NEGATIVE, POSITIVE, SoftPrompts
from .selector import Deft
from .step import DeftStep
from .streaming import BatchScorer

__all__ = ["NEGATIVE", "POSITIVE", "BatchScorer", "Deft", "DeftStep", "Detector", "SoftPrompts"]
