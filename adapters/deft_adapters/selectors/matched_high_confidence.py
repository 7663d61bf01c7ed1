"""ProMix's selection: the small losses of each class, and all labels that are predicted with high confidence."""

from __future__ import annotations

import math

import numpy as np

from deft_adapters.selectors.by_class import smallest_in_classes
from deft_adapters.selectors.training_loss import example_losses, loss_quality
from deft_plugin import Run, Selection

RHO = 0.5
TAU = 0.95


class MatchedHighConfidence:
    """Clean where the loss is among the smallest of its class, or the label is predicted with high confidence.

    The first, class-wise small-loss selection, takes ``rho N / K`` examples of each class, or all if there are no
    more; the second, matched high-confidence selection, those whose label has a probability above tau.

    Choices: rho and tau are fixed at the authors' values for CIFAR-100N (for synthetic noise they set rho by its
    ratio, and for ten classes tau to 0.99). Small losses are the means over the epochs, as in the other selectors by
    loss; confidence is that of the classifier after its last epoch. There is one classifier instead of two. Guessing
    labels by agreement, which judges no given label, is left out. Label quality is exp(-mean loss).

    References
    ----------
    Xiao et al., "ProMix: Combating Label Noise via Maximizing Clean Sample Utility", IJCAI 2023; Justherozen/ProMix,
    ``Train_promix.py`` (``eval_train``, ``train``) and ``run.sh``: rho 0.5, tau 0.95.
    """

    def select(self, run: Run) -> Selection:
        """Unite both selections."""
        losses = example_losses(run)
        is_small = smallest_in_classes(losses, run.labels, math.ceil(RHO * len(losses) / run.num_classes))
        is_confident = np.exp(-run.training_losses[-1]) > TAU
        selection = Selection(
            is_clean=is_small | is_confident,
            label_quality=loss_quality(losses),
            predicted_labels=run.training_predictions,
            details={"fraction_small_loss": float(is_small.mean()), "fraction_confident": float(is_confident.mean())},
        )
        return run.share_verdicts(selection)
