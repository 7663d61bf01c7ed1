"""Label-match: keep a label if it is what the model says zero-shot."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from deft_plugin import Run, Selection


class LabelMatch:
    """Clean where the zero-shot prediction of "a photo of a {}." equals the given label.

    Label quality is the zero-shot probability of the given label. The paper does not publish its template.

    References
    ----------
    The baseline "Label-match" of Wei et al., NeurIPS 2024, table 1.
    """

    def select(self, run: Run) -> Selection:
        """Compare zero-shot predictions with the given labels."""
        probs = softmax(run.zero_shot_logits.astype(np.float64), axis=1)  # (N, K)
        predicted = probs.argmax(axis=1)
        return Selection(
            is_clean=predicted == run.labels,
            label_quality=probs[np.arange(len(run.labels)), run.labels],
            predicted_labels=predicted,
        )
