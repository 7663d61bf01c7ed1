"""LEMoN: how far an image is from its label's text, and what its neighbours among images and texts say."""

from __future__ import annotations

import numpy as np

from deft_adapters.selectors.class_vectors import dot_products, sum_by_class
from deft_plugin import Run, Selection

K_NEIGHBOURS = 30
BETA = GAMMA = 5.0
TAU_1 = 0.1
TAU_2 = 5.0


class Lemon:
    """Clean where the score is below the valley between the right and the wrong labels' scores.

    The score of image x with label y is ``d_mm(x, y) + beta s_n + gamma s_m``. d_mm is the cosine distance of image and
    text. s_n is the mean over x's nearest images of whether their label is another one; s_m the mean over the nearest
    texts of y of how far their images are from x. Both means are weighted by ``exp(-tau_1 distance of the neighbour)``
    and ``exp(-tau_2 d_mm of the neighbour)``.

    Choices: the hyper-parameters are those that the authors fix where there are no labels to tune on. The threshold is
    their heuristic: the local minimum of a kernel density estimate of the scores (the median of several; without any,
    the median of its maxima, else the mean score). All examples of y have the nearest text of y; the released code
    takes whichever 30 come first, here all of them count, which is the mean over such choices; only if there are not
    30 do the next texts count. The paper corrects no label; the predicted one is that of the smallest score. Label
    quality is exp(-score).

    References
    ----------
    Zhang et al., "LEMoN: Label Error Detection using Multimodal Neighbors", 2024 (ICML 2025); MLforHealth/LEMoN,
    ``run_lemon.py``, ``lib/metrics/utils.py`` (``f1_with_local_minima_finder``) and ``notebooks/hparam_drop.ipynb``:
    k 30, beta = gamma = 5, tau_1 0.1, tau_2 5, cosine distance of images, 0 or 1 as distance of labels.
    """

    def select(self, run: Run) -> Selection:
        """Score all labels of each image and split the scores of the given ones."""
        backbone, _ = run.require_images()
        rows = np.arange(len(run.labels))
        distances = 1 - run.zero_shot_logits.astype(np.float64) / backbone.logit_scale  # d_mm, (N, K)
        trust = np.exp(-TAU_2 * distances[rows, run.labels])  # (N,)
        scores = distances + BETA * image_neighbours(run, trust) + GAMMA * text_neighbours(run, trust)
        of_label = np.maximum(scores[rows, run.labels], 0)
        threshold = find_valley(of_label)
        selection = Selection(
            is_clean=of_label < threshold,
            label_quality=np.exp(-of_label),
            predicted_labels=scores.argmin(axis=1),
            details={"threshold": threshold if np.isfinite(threshold) else None},
        )
        return run.share_verdicts(selection)


def image_neighbours(run: Run, trust: np.ndarray) -> np.ndarray:
    """s_n of each image with each label, (N, K)."""
    neighbours, similarities = run.neighbours.rows[:, :K_NEIGHBOURS], run.neighbours.similarities[:, :K_NEIGHBOURS]
    weights = np.exp(-TAU_1 * (1 - similarities.astype(np.float64))) * trust[neighbours]  # (N, k)
    of_label = np.zeros((len(trust), run.num_classes))
    np.add.at(of_label, (np.arange(len(trust))[:, None], run.labels[neighbours]), weights)
    return (weights.sum(axis=1, keepdims=True) - of_label) / weights.shape[1]


def text_neighbours(run: Run, trust: np.ndarray) -> np.ndarray:
    """s_m of each image with each label, (N, K)."""
    k = min(K_NEIGHBOURS, len(trust) - 1)
    similarities = run.class_text_features.astype(np.float64) @ run.class_text_features.T
    counts = np.bincount(run.labels, minlength=run.num_classes)
    weights = share_of_examples(similarities, counts, k) * np.exp(-TAU_1 * (1 - similarities))  # (K, K)
    # Σ_j trust_j (1 - x · x_j) over the examples j of each class; x itself is at a distance of 0.
    sums = sum_by_class(run.image_features, run.labels, run.num_classes, trust)
    total = np.bincount(run.labels, weights=trust, minlength=run.num_classes)
    return (total - dot_products(run.image_features, sums)) @ weights.T / k


def share_of_examples(similarities: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Share of each class's examples (columns) among the k nearest by text to an example of each class (rows).

    Examples
    --------
    Three others of its own class are not enough for four neighbours; one of the two in the next class is needed:

    >>> share_of_examples(np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.3], [0.2, 0.3, 1.0]]), np.array([4, 2, 3]), 4)[0]
    array([1. , 0.5, 0. ])
    """
    others = np.maximum(counts - np.eye(len(counts), dtype=np.int64), 0)  # an example is no neighbour of itself
    distance = np.where(np.eye(len(counts), dtype=bool), -np.inf, -similarities)
    order = np.argsort(distance, axis=1, kind="stable")
    available = np.take_along_axis(others, order, axis=1)
    taken = np.clip(k - (np.cumsum(available, axis=1) - available), 0, available)
    shares = np.zeros(similarities.shape)
    np.put_along_axis(shares, order, taken / np.maximum(available, 1), axis=1)
    return shares


def find_valley(scores: np.ndarray) -> float:
    """Threshold between two heaps of scores (N,); infinity if all are the same."""
    from scipy.signal import argrelextrema
    from scipy.stats import gaussian_kde

    if np.ptp(scores) < 1e-9:
        return float("inf")
    grid = np.linspace(scores.min(), scores.max(), 1000)
    density = gaussian_kde(scores)(grid)
    minima = grid[argrelextrema(density, np.less)]
    if len(minima):
        return float(np.median(minima))
    maxima = grid[argrelextrema(density, np.greater)]
    return float(np.median(maxima) if len(maxima) >= 2 else scores.mean())
