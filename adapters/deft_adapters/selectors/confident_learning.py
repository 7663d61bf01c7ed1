"""Confident learning: cleanlab's own function on out-of-sample class probabilities."""

from __future__ import annotations

import numpy as np

from deft_plugin import Run, Selection, SelectorTraits


class ConfidentLearning:
    """``cleanlab.filter.find_label_issues`` with its defaults; label quality is cleanlab's self-confidence.

    References
    ----------
    Northcutt et al., "Confident Learning", JAIR 2021.
    """

    # It is registered with the same; here for those who hand it over itself, with pred_probs and without images.
    traits = SelectorTraits(needs_images=False, consumes=("pred_probs",))

    def select(self, run: Run) -> Selection:
        """Ask cleanlab."""
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        # n_jobs=1: cleanlab's worker processes inherit the threads of torch.
        issues = find_label_issues(labels=run.labels, pred_probs=run.pred_probs, n_jobs=1)
        return Selection(
            is_clean=~np.asarray(issues, bool),
            label_quality=np.clip(get_label_quality_scores(run.labels, run.pred_probs), 0.0, 1.0),
            predicted_labels=run.pred_probs.argmax(axis=1),
        )
