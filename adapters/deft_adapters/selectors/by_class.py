"""Choosing examples class by class."""

from __future__ import annotations

import numpy as np


def smallest_in_classes(values: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    """Choose the `number` smallest values (N,) of each label (N,): (N,), bool. All of a label that has no more.

    Examples
    --------
    >>> smallest_in_classes(np.array([3.0, 1.0, 2.0, 9.0]), np.array([0, 0, 0, 1]), 2)
    array([False,  True,  True,  True])
    """
    is_small = np.zeros(len(values), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        is_small[rows[np.argsort(values[rows], kind="stable")[:number]]] = True
    return is_small


def keep_no_class_empty(is_chosen: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Choose, beside those (N,) that are, all examples of a label (N,) of which none is.

    Examples
    --------
    >>> keep_no_class_empty(np.array([True, False, False]), np.array([0, 0, 1]))
    array([ True, False,  True])
    """
    return is_chosen | ~np.isin(labels, labels[is_chosen])
