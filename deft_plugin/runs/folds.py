"""Dealing examples into folds, so that none is judged by what was trained on it."""

from __future__ import annotations

import numpy as np


def deal_folds(labels: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Deal examples into folds, each given label evenly; examples of one group stay together.

    Parameters
    ----------
    labels : np.ndarray of shape (N,), int
    groups : np.ndarray of shape (N,), int
        The same number for identical images: an image must not be judged by prompts that saw its twin.
    n_folds : int
    seed : int

    Returns
    -------
    np.ndarray of shape (N,), int64 in [0, n_folds)

    Examples
    --------
    >>> folds = deal_folds(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), 2, seed=0)
    >>> bool(folds[0] != folds[1]), bool(folds[2] != folds[3])
    (True, True)
    """
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(first))
    order = order[np.argsort(labels[first][order], kind="stable")]
    folds = np.empty(len(first), dtype=np.int64)
    folds[order] = np.arange(len(first)) % n_folds
    return folds[inverse.reshape(-1)]
