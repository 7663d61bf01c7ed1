"""LongReMix's selection: labels that stay clean for epochs are trusted, and the others judged by a training on them."""

from __future__ import annotations

import numpy as np

from deft_adapters.selectors.by_class import keep_no_class_empty
from deft_adapters.selectors.mixtures import smaller_component_of_losses
from deft_plugin import Run, Selection

WINDOW = 5


class LongReMix:
    """Clean where trusted after the first training, or where the second says so.

    First stage: in each epoch a mixture of two Gaussians splits the losses. The high-confidence set are the examples
    that are clean in five epochs running; of the sets that end in the second half of the training, the largest.
    Second stage: a new classifier is trained on the high-confidence set, which is dealt again and again until an epoch
    is as long as over all data, and a mixture splits its losses of all examples. Clean is the high-confidence set and
    whatever has more than half of the second posterior. That posterior is label quality.

    Choices: both stages of the paper are DivideMix, which mixes images, and guesses the labels of those that are not
    trusted; our classifier learns from the trusted labels alone, without a warm-up on all. All examples of a class
    that has no trusted one are trained on, so that it is known. The second mixture splits the mean loss over the
    epochs.

    References
    ----------
    Cordeiro et al., "LongReMix: Robust Learning with High Confidence Samples in a Noisy Label Environment", Pattern
    Recognition 2023; filipe-research/LongReMix, ``Train_cifar_longremix_stage1.py`` and ``..._stage2.py``: five epochs,
    the largest set of the last 150 of 300 epochs, DivideMix's mixture.
    """

    def select(self, run: Run) -> Selection:
        """Find the high-confidence set, train on it, and judge the others."""
        is_trusted = high_confidence_set(run.training_losses, seed=run.seed)
        trained_on = np.flatnonzero(keep_no_class_empty(is_trusted, run.labels))
        probe = run.new_probe(seed=run.seed)
        rows = np.resize(trained_on, len(run.labels))  # over and over, up to N
        losses = probe.fit(run.image_features, run.labels, rows=rows, keep_history=True).losses
        p_clean = smaller_component_of_losses(losses.mean(axis=0), seed=run.seed)
        selection = Selection(
            is_clean=is_trusted | (p_clean > 0.5),
            label_quality=p_clean,
            predicted_labels=probe.predict_proba(run.image_features).argmax(axis=1),
            details={"fraction_high_confidence": float(is_trusted.mean())},
        )
        return run.share_verdicts(selection)


def high_confidence_set(losses: np.ndarray, *, seed: int) -> np.ndarray:
    """Find who is clean by losses (epochs, N) for some epochs running: (N,), bool.

    The largest such set that ends in the second half of the epochs; of several, the last.
    """
    is_clean = np.array([smaller_component_of_losses(epoch, seed=seed) > 0.5 for epoch in losses])  # (epochs, N)
    window = min(WINDOW, len(losses))
    first_end = max(window, len(losses) // 2 + 1)
    ends = range(len(losses), first_end - 1, -1)
    stays_clean = np.stack([is_clean[end - window : end].all(axis=0) for end in ends])  # (sets, N)
    return stays_clean[stays_clean.sum(axis=1).argmax()]
