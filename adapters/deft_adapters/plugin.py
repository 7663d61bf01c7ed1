"""Registers the selectors that DeFT is compared with."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from deft_plugin import SelectorTraits, hookimpl

if TYPE_CHECKING:
    from deft_plugin import Selector
    from deft_plugin.plugins import Register
    from deft_plugin.types import SelectorLoader


def _load(module: str, name: str) -> Selector:
    return getattr(importlib.import_module(f"deft_adapters.selectors.{module}"), name)()


@hookimpl
def register_selectors(register: Register[SelectorLoader, SelectorTraits]) -> None:
    """Register the comparison selectors; each is a class in the module of its name."""
    by_losses = SelectorTraits(consumes=("training_losses",))
    by_told_ratio = SelectorTraits(consumes=("training_losses", "pred_probs"), is_told_noise_ratio=True)
    of_deft = functools.partial(SelectorTraits, variant_of="deft", consumes=("images", "features", "texts"))
    for name, (selector, summary, traits) in {
        "label_match": (
            "LabelMatch",
            "zero-shot prediction equals the label",
            SelectorTraits(consumes=("zero_shot_logits",)),
        ),
        "small_loss": ("SmallLoss", "smallest training losses, as many as the noise ratio leaves", by_told_ratio),
        "small_loss_batch": (
            "SmallLossBatch",
            "smallest losses of each mini-batch, as published (Co-teaching)",
            by_told_ratio,
        ),
        "gmm": ("Gmm", "two-component Gaussian mixture over training losses (DivideMix)", by_losses),
        "confident_learning": (
            "ConfidentLearning",
            "cleanlab's find_label_issues on out-of-sample pred_probs",
            SelectorTraits(needs_images=False, consumes=("pred_probs",)),
        ),
        "aum": (
            "Aum",
            "area under the margin, against samples with an extra class (Pleiss et al.)",
            SelectorTraits(consumes=("features",)),
        ),
        "knn_vote": (
            "KnnVote",
            "vote of the ten nearest images (SimiFeat)",
            SelectorTraits(consumes=("neighbours",)),
        ),
        "clipcleaner": (
            "ClipCleaner",
            "zero-shot and trained classifier, loss and consistency (CLIPCleaner)",
            SelectorTraits(consumes=("zero_shot_logits", "training_pred_probs")),
        ),
        "lemon": (
            "Lemon",
            "distances to the text and to neighbours among images and texts (LEMoN)",
            SelectorTraits(consumes=("features", "texts", "zero_shot_logits", "neighbours")),
        ),
        "jsd_uniform": (
            "JsdUniform",
            "smallest divergence of prediction and label, equally by class (UNICON)",
            by_losses,
        ),
        "prototype_gmm": (
            "PrototypeGmm",
            "distance to the class's prototype, a mixture in each class (RoLT)",
            SelectorTraits(consumes=("features",)),
        ),
        "matched_high_confidence": (
            "MatchedHighConfidence",
            "small loss by class, or a confident match (ProMix)",
            by_losses,
        ),
        "longremix": (
            "LongReMix",
            "clean for five epochs, or after a second training on those (LongReMix)",
            SelectorTraits(consumes=("features", "training_losses")),
        ),
        "deft_faithful": (
            "DeftFaithful",
            "the authors' protocol, which trains the encoder of a CLIP",
            of_deft(consumes=("images", "texts"), needs=("cone",)),
        ),
        "deft_in_sample": (
            "DeftInSample",
            "without folds, each label judged by what it taught",
            of_deft(needs=("frozen",)),
        ),
        "deft_posterior": ("DeftPosterior", "ranked by the positive prompts alone", of_deft(needs=("frozen",))),
        "deft_mixture": ("DeftMixture", "parted where a mixture of two Gaussians says", of_deft()),
    }.items():
        register(name, functools.partial(_load, name, selector), summary=summary, traits=traits)
