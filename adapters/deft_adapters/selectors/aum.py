"""AUM: the area under the margin of each label during training, against that of labels that are certainly wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from deft_plugin import Run, Selection

PERCENTILE = 99


class Aum:
    """Clean where the area under the margin is above that of 99 % of the threshold samples.

    The margin is the logit of the given label minus the largest other logit; its area is the mean over the epochs. To
    learn what area a wrong label has, ``N // (K + 1)`` examples, the threshold samples, are given an extra class. The
    classifier is trained twice with threshold samples that differ, so that each example is judged with its own label
    at least once.

    Choices: an example that is ordinary in both trainings is clean if it is above the threshold in one of them, as in
    the released code. That leaves out the first epoch, since its network starts at random; our classifier starts at
    zero, and margins are taken at the end of each epoch, so all epochs count. Label quality is the sigmoid of the
    distance from the threshold, in units of logits.

    References
    ----------
    Pleiss et al., "Identifying Mislabeled Data using the Area Under the Margin Ranking", NeurIPS 2020, sections 3.1
    and 3.2; asappresearch/aum, ``examples/paper_replication/runner.py``.
    """

    def select(self, run: Run) -> Selection:
        """Train twice with threshold samples and compare areas under the margin."""
        trainings = [
            _train(run, rows, seed=run.seed + number) for number, rows in enumerate(draw_threshold_samples(run))
        ]
        above = np.max([training.above_threshold for training in trainings], axis=0)  # (N,)
        probabilities = sum(training.pred_probs for training in trainings)
        selection = Selection(
            is_clean=above > 0,
            label_quality=expit(above),
            predicted_labels=np.argmax(probabilities, axis=1),
            details={"thresholds": [training.threshold for training in trainings]},
        )
        return run.share_verdicts(selection)


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What one training says: areas under the margin (N,) less the threshold, -inf for its threshold samples."""

    threshold: float
    above_threshold: np.ndarray
    pred_probs: np.ndarray


def draw_threshold_samples(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Draw two sets of rows without a common one, each as large as the mean class would be with one class more."""
    size = max(1, len(run.labels) // (run.num_classes + 1))
    rows = run.generator("aum").permutation(len(run.labels))
    return rows[:size], rows[size : 2 * size]


def _train(run: Run, threshold_rows: np.ndarray, *, seed: int) -> _Training:
    labels = run.labels.copy()
    labels[threshold_rows] = run.num_classes
    probe = run.new_probe(seed=seed, num_classes=run.num_classes + 1)
    areas = probe.fit(run.image_features, labels, keep_history=True).margins.mean(axis=0)
    threshold = float(np.percentile(areas[threshold_rows], PERCENTILE))
    above = areas - threshold
    above[threshold_rows] = -np.inf
    probabilities = probe.predict_proba(run.image_features)[:, : run.num_classes]
    return _Training(threshold=threshold, above_threshold=above, pred_probs=probabilities)
