"""Small-loss as published: the smallest losses of each mini-batch are kept, not those of the data set."""

from __future__ import annotations

import numpy as np

from deft_adapters.selectors.small_loss import told_noise_ratio
from deft_adapters.selectors.training_loss import loss_quality
from deft_plugin import Run, Selection

BATCH_SIZE = 64


class SmallLossBatch:
    """Clean where the loss is among the smallest ``1 - noise_ratio`` of the mini-batch in the last epoch.

    The number that a batch keeps is rounded down, as in Co-teaching's code. The noise ratio is the run's, else an
    estimate, as in `deft_adapters.selectors.small_loss`.

    Choices: the published baseline judges by losses in front of each step of the last epoch; ours are those after it,
    and the batches are dealt from the run's seed. Label quality is exp(-loss) of the last epoch.

    References
    ----------
    Han et al., "Co-teaching", NeurIPS 2018; as the baseline "Small-loss" of Wei et al., NeurIPS 2024: batches of 64,
    a forget rate that is the true noise ratio.
    """

    def select(self, run: Run) -> Selection:
        """Rank the losses of the last epoch in each mini-batch and keep the smallest."""
        losses = run.training_losses[-1]
        noise_ratio, source = told_noise_ratio(run)
        order = run.generator("small_loss_batch").permutation(len(losses))
        selection = Selection(
            is_clean=smallest_in_batches(losses, order, noise_ratio),
            label_quality=loss_quality(losses),
            predicted_labels=run.training_predictions,
            details={"noise_ratio_used": float(noise_ratio), "noise_ratio_source": source, "batch_size": BATCH_SIZE},
        )
        return run.share_verdicts(selection)


def smallest_in_batches(losses: np.ndarray, order: np.ndarray, noise_ratio: float) -> np.ndarray:
    """Whether losses (N,) are among the smallest of their batch, (N,), bool; `order` (N,) is cut into batches."""
    is_small = np.zeros(len(losses), bool)
    for start in range(0, len(order), BATCH_SIZE):
        batch = order[start : start + BATCH_SIZE]
        num_kept = int((1 - noise_ratio) * len(batch) + 1e-9)  # (1 - 0.9) * 10 is a little below 1
        is_small[batch[np.argsort(losses[batch], kind="stable")[:num_kept]]] = True
    return is_small
