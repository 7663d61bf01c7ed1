"""Small-loss: keep the examples that a classifier finds easy while it is trained on all labels."""

from __future__ import annotations

import numpy as np

from deft_adapters.training_loss import example_losses, loss_quality
from deft_plugin import Run, Selection


class SmallLoss:
    """Clean where the training loss is among the smallest ``1 - noise_ratio``.

    The noise ratio is the run's, if it was given one; else it is estimated by confident learning. What was used, and
    whether it was given, estimated or an oracle's, is in the details.

    References
    ----------
    Han et al., "Co-teaching", NeurIPS 2018; as the baseline "Small-loss" of Wei et al., NeurIPS 2024, whose forget
    rate is the true noise ratio.
    """

    needs_images = True

    def select(self, run: Run) -> Selection:
        """Rank the training losses and keep the smallest."""
        losses = example_losses(run)
        source: str = run.noise_ratio_source
        noise_ratio = run.noise_ratio
        if noise_ratio is None:
            noise_ratio, source = estimate_noise_ratio(run), "estimated"
        num_clean = len(losses) - round(noise_ratio * len(losses))
        is_clean = np.zeros(len(losses), bool)
        is_clean[np.argsort(losses, kind="stable")[:num_clean]] = True
        return Selection(
            is_clean=is_clean,
            label_quality=loss_quality(losses),
            predicted_labels=run.training_predictions,
            details={"noise_ratio_used": float(noise_ratio), "noise_ratio_source": source},
        )


def estimate_noise_ratio(run: Run) -> float:
    """Share of wrong labels by the confident joint, in [0, 1)."""
    from cleanlab.count import num_label_issues

    issues = int(num_label_issues(labels=run.labels, pred_probs=run.pred_probs))
    return issues / len(run.labels)
