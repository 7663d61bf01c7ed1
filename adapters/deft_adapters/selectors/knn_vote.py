"""kNN vote: keep a label that most of the nearest neighbours have, too."""

from __future__ import annotations

import numpy as np

from deft_plugin import Run, Selection
from deft_plugin.runs import Neighbours

NUM_VOTERS = 10


class KnnVote:
    """Clean where no other label has more votes among the image's 10 nearest, itself included.

    A vote counts as much as its cosine similarity. As in the released code, an example votes, too; since it is at a
    similarity of 1 to itself, its vote counts as one step nearer than its neighbours: ``2 s_1 - s_2``.

    Choices: similarities below 0, which CLIP's features never have, do not count. A tie keeps the given label; the
    released code takes the class that comes first. The paper takes the majority over 21 passes with augmented images;
    ours is one pass, over the features as they are. Label quality is the given label's share of the votes.

    References
    ----------
    Zhu et al., "Detecting Corrupted Labels Without Training a Model to Predict", ICML 2022: SimiFeat-V, k = 10;
    UCSC-REAL/SimiFeat, ``hoc.py`` (``count_knn_distribution``) and ``main_fast.py`` (method "mv").
    """

    def select(self, run: Run) -> Selection:
        """Let the neighbours vote."""
        votes = count_votes(run.neighbours, run.labels, run.num_classes)
        of_label = votes[np.arange(len(votes)), run.labels]
        is_clean = of_label >= votes.max(axis=1)
        total = votes.sum(axis=1)
        selection = Selection(
            is_clean=is_clean,
            label_quality=of_label / np.where(total > 0, total, 1),
            predicted_labels=np.where(is_clean, run.labels, votes.argmax(axis=1)),
            details={"num_voters": NUM_VOTERS},
        )
        return run.share_verdicts(selection)


def count_votes(neighbours: Neighbours, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Votes (N, K) of the nearest neighbours and of each example itself."""
    others = neighbours.similarities[:, : NUM_VOTERS - 1].astype(np.float64)
    own = 2 * others[:, 0] - others[:, min(1, others.shape[1] - 1)]
    weights = np.maximum(np.column_stack([own, others]), 0)  # (N, 10)
    voters = np.column_stack([labels, labels[neighbours.rows[:, : NUM_VOTERS - 1]]])
    votes = np.zeros((len(labels), num_classes))
    np.add.at(votes, (np.arange(len(labels))[:, None], voters), weights)
    return votes
