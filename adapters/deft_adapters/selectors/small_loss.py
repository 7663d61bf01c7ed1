"""Small-loss: keep the examples that a classifier finds easy while it is trained on all labels."""

from __future__ import annotations

import numpy as np

from deft_adapters.selectors.training_loss import example_losses, loss_quality
from deft_plugin import Run, Selection


class SmallLoss:
    """Clean where the training loss is among the smallest ``1 - noise_ratio`` of the data set.

    The noise ratio is the run's, if it was given one; else it is estimated by confident learning. What was used, and
    whether it was given, estimated or an oracle's, is in the details. Rows with the same image and label share a
    verdict, so that a few more or fewer may be kept.

    References
    ----------
    Han et al., "Co-teaching", NeurIPS 2018; as the baseline "Small-loss" of Wei et al., NeurIPS 2024, whose forget
    rate is the true noise ratio. Theirs is per mini-batch: `deft_adapters.selectors.small_loss_batch`.
    """

    def select(self, run: Run) -> Selection:
        """Rank the training losses and keep the smallest."""
        losses = example_losses(run)
        noise_ratio, source = told_noise_ratio(run)
        num_clean = len(losses) - round(noise_ratio * len(losses))
        is_clean = np.zeros(len(losses), bool)
        is_clean[np.argsort(losses, kind="stable")[:num_clean]] = True
        selection = Selection(
            is_clean=is_clean,
            label_quality=loss_quality(losses),
            predicted_labels=run.training_predictions,
            details={"noise_ratio_used": float(noise_ratio), "noise_ratio_source": source},
        )
        return run.share_verdicts(selection)


def told_noise_ratio(run: Run) -> tuple[float, str]:
    """Give the run's noise ratio and who told it, else an estimate."""
    if run.noise_ratio is not None:
        return run.noise_ratio, run.noise_ratio_source
    return estimate_noise_ratio(run), "estimated"


def estimate_noise_ratio(run: Run) -> float:
    """Share of wrong labels by the confident joint, in [0, 1)."""
    from cleanlab.count import num_label_issues

    issues = int(num_label_issues(labels=run.labels, pred_probs=run.pred_probs))
    return issues / len(run.labels)
