"""Sums of features by class, and products of features with vectors of classes, a few thousand rows at a time."""

from __future__ import annotations

import numpy as np

ROWS_AT_A_TIME = 4096


def sum_by_class(features: np.ndarray, labels: np.ndarray, num_classes: int, weights: np.ndarray) -> np.ndarray:
    """Sum features (N, D) times weights (N,) over the examples of each label (N,): (K, D), float32.

    Examples
    --------
    >>> sum_by_class(np.eye(2), np.array([1, 1]), 2, np.array([0.5, 2.0]))
    array([[0. , 0. ],
           [0.5, 2. ]], dtype=float32)
    """
    sums = np.zeros((num_classes, features.shape[1]), np.float32)
    for piece in _pieces(len(features)):
        of_class = np.zeros((num_classes, len(labels[piece])), np.float32)  # (K, B)
        of_class[labels[piece], np.arange(of_class.shape[1])] = weights[piece]
        sums += of_class @ features[piece].astype(np.float32)
    return sums


def dot_products(features: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Multiply features (N, D) with the vectors of the classes (K, D): (N, K), float32."""
    return np.concatenate([features[piece].astype(np.float32) @ vectors.T for piece in _pieces(len(features))])


def _pieces(size: int) -> list[slice]:
    return [slice(start, start + ROWS_AT_A_TIME) for start in range(0, size, ROWS_AT_A_TIME)]
