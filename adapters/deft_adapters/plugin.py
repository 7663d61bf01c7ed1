"""Registers the selectors that DeFT is compared with."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from deft_plugin import hookimpl

if TYPE_CHECKING:
    from deft_plugin import Selector
    from deft_plugin.plugins import Register
    from deft_plugin.types import SelectorLoader


def _load(module: str, name: str) -> Selector:
    return getattr(importlib.import_module(f"deft_adapters.selectors.{module}"), name)()


@hookimpl
def register_selectors(register: Register[SelectorLoader]) -> None:
    """Register the comparison selectors; each is a class in the module of its name."""
    for name, (selector, summary) in {
        "label_match": ("LabelMatch", "zero-shot prediction equals the label"),
        "small_loss": ("SmallLoss", "smallest training losses, as many as the noise ratio leaves"),
        "small_loss_batch": ("SmallLossBatch", "smallest losses of each mini-batch, as published (Co-teaching)"),
        "gmm": ("Gmm", "two-component Gaussian mixture over training losses (DivideMix)"),
        "confident_learning": ("ConfidentLearning", "cleanlab's find_label_issues on out-of-sample pred_probs"),
        "aum": ("Aum", "area under the margin, against samples with an extra class (Pleiss et al.)"),
        "knn_vote": ("KnnVote", "vote of the ten nearest images (SimiFeat)"),
        "clipcleaner": ("ClipCleaner", "zero-shot and trained classifier, loss and consistency (CLIPCleaner)"),
        "lemon": ("Lemon", "distances to the text and to neighbours among images and texts (LEMoN)"),
        "jsd_uniform": ("JsdUniform", "smallest divergence of prediction and label, equally by class (UNICON)"),
        "prototype_gmm": ("PrototypeGmm", "distance to the class's prototype, a mixture in each class (RoLT)"),
        "matched_high_confidence": ("MatchedHighConfidence", "small loss by class, or a confident match (ProMix)"),
        "longremix": ("LongReMix", "clean for five epochs, or after a second training on those (LongReMix)"),
        "deft_faithful": ("DeftFaithful", "variant of deft: the authors' protocol, which trains the encoder of a CLIP"),
        "deft_in_sample": ("DeftInSample", "variant of deft: without folds, each label judged by what it taught"),
        "deft_posterior": ("DeftPosterior", "variant of deft: ranked by the positive prompts alone"),
        "deft_mixture": ("DeftMixture", "variant of deft: parted where a mixture of two Gaussians says"),
    }.items():
        register(name, functools.partial(_load, name, selector), summary=summary)
