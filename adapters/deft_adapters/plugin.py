"""Registers the selectors that DeFT is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deft_plugin import hookimpl

if TYPE_CHECKING:
    from deft_plugin import Selector
    from deft_plugin.plugins import Register
    from deft_plugin.types import SelectorLoader


def _load_label_match() -> Selector:
    from deft_adapters.label_match import LabelMatch

    return LabelMatch()


def _load_small_loss() -> Selector:
    from deft_adapters.small_loss import SmallLoss

    return SmallLoss()


def _load_gmm() -> Selector:
    from deft_adapters.gmm import Gmm

    return Gmm()


def _load_confident_learning() -> Selector:
    from deft_adapters.confident_learning import ConfidentLearning

    return ConfidentLearning()


@hookimpl
def register_selectors(register: Register[SelectorLoader]) -> None:
    """Register the comparison selectors."""
    register("label_match", _load_label_match, summary="zero-shot prediction equals the label")
    register("small_loss", _load_small_loss, summary="smallest training losses, as many as the noise ratio leaves")
    register("gmm", _load_gmm, summary="two-component Gaussian mixture over training losses (DivideMix)")
    register(
        "confident_learning",
        _load_confident_learning,
        summary="cleanlab's find_label_issues on out-of-sample pred_probs",
    )
