"""Label noise whose truth is known: wrong labels put in on purpose, reproducible by seed.

Both models draw one uniform number u for each example, and make it noisy where u < noise_ratio. With one
seed, the noisy examples of a lower ratio are therefore among those of a higher one, so that a sweep over
ratios compares like with like.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deft_plugin.errors import InputError


def symmetric(labels: npt.ArrayLike, *, num_classes: int, noise_ratio: float, seed: int) -> npt.NDArray[np.int64]:
    """Give each label, with probability `noise_ratio`, a class drawn uniformly over all K classes.

    The true class is among the K, as in the code that the paper's authors released: a nominal ratio of 0.4 is
    an actual one of 0.4 · (K - 1) / K, that is 39.6 % wrong labels where K = 100.

    Parameters
    ----------
    labels : array-like of shape (N,), int in [0, K)
        True labels; never changed in place.
    num_classes : int
        K, at least 2.
    noise_ratio : float in [0, 1)
        Nominal share of redrawn labels; 0 gives the labels back unchanged.
    seed : int, at least 0
        The same seed gives the same noise.

    Returns
    -------
    np.ndarray of shape (N,), int64 in [0, K)
        Noisy labels.

    Raises
    ------
    InputError
        If labels, number of classes, ratio or seed are not as above.

    References
    ----------
    Wei et al., "Vision-Language Models are Strong Noisy Label Detectors", NeurIPS 2024.

    Examples
    --------
    >>> symmetric([0, 1, 2, 3, 4, 5], num_classes=6, noise_ratio=0.5, seed=0).tolist()
    [0, 3, 5, 4, 4, 5]
    """
    labels = check_labels_and_ratio(labels, num_classes=num_classes, noise_ratio=noise_ratio, seed=seed)
    rng, is_noisy = _draw_noisy(len(labels), noise_ratio=noise_ratio, seed=seed)
    # Drawn for every example, so that a label turns into the same one at every ratio.
    drawn = rng.integers(num_classes, size=len(labels))
    return np.where(is_noisy, drawn, labels)


def symmetric_others(
    labels: npt.ArrayLike, *, num_classes: int, noise_ratio: float, seed: int
) -> npt.NDArray[np.int64]:
    """Give each label, with probability `noise_ratio`, a class drawn uniformly over the K - 1 others.

    Every noisy label is wrong: the actual ratio is the nominal one, up to chance. Parameters and errors are those of
    `symmetric`; with one seed, the same examples are noisy.

    References
    ----------
    Most papers after Han et al., "Co-teaching", NeurIPS 2018.

    Examples
    --------
    >>> symmetric_others([0, 1, 2, 3, 4, 5], num_classes=6, noise_ratio=0.5, seed=0).tolist()
    [0, 4, 5, 4, 4, 5]
    """
    labels = check_labels_and_ratio(labels, num_classes=num_classes, noise_ratio=noise_ratio, seed=seed)
    rng, is_noisy = _draw_noisy(len(labels), noise_ratio=noise_ratio, seed=seed)
    drawn = rng.integers(num_classes - 1, size=len(labels))
    return np.where(is_noisy, drawn + (drawn >= labels), labels)


def asymmetric(labels: npt.ArrayLike, *, num_classes: int, noise_ratio: float, seed: int) -> npt.NDArray[np.int64]:
    """Turn each label k, with probability `noise_ratio`, into k + 1, the last into the first (pair flip).

    Every noisy label is wrong: the actual ratio is the nominal one, up to chance.

    Parameters
    ----------
    labels : array-like of shape (N,), int in [0, K)
        True labels; never changed in place.
    num_classes : int
        K, at least 2.
    noise_ratio : float in [0, 1)
        Nominal share of flipped labels; 0 gives the labels back unchanged. From 0.5 on, a class holds more
        examples of its neighbour than of its own, and no method can tell which is which.
    seed : int, at least 0
        The same seed gives the same noise.

    Returns
    -------
    np.ndarray of shape (N,), int64 in [0, K)
        Noisy labels.

    Raises
    ------
    InputError
        If labels, number of classes, ratio or seed are not as above.

    References
    ----------
    Patrini et al., "Making Deep Neural Networks Robust to Label Noise", CVPR 2017; Han et al., "Co-teaching",
    NeurIPS 2018 ("pair flipping").

    Examples
    --------
    >>> asymmetric([0, 1, 2, 3, 4, 5], num_classes=6, noise_ratio=0.5, seed=0).tolist()
    [0, 2, 3, 4, 4, 5]
    """
    labels = check_labels_and_ratio(labels, num_classes=num_classes, noise_ratio=noise_ratio, seed=seed)
    _, is_noisy = _draw_noisy(len(labels), noise_ratio=noise_ratio, seed=seed)
    return np.where(is_noisy, (labels + 1) % num_classes, labels)


def _draw_noisy(
    num_examples: int, *, noise_ratio: float, seed: int
) -> tuple[np.random.Generator, npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    return rng, rng.random(num_examples) < noise_ratio


def check_labels_and_ratio(
    labels: npt.ArrayLike, *, num_classes: int, noise_ratio: float, seed: int
) -> npt.NDArray[np.int64]:
    """Check what every noise model takes; gives the labels (N,) as a copy.

    Raises
    ------
    InputError
        If labels, number of classes, ratio or seed are not as in `symmetric`.
    """
    if not 0 <= noise_ratio < 1:
        raise InputError(
            f"Expected noise_ratio in [0, 1), but got {noise_ratio!r}. Give a share, such as 0.4 for 40 %."
        )
    if seed < 0:
        raise InputError(f"Expected seed to be at least 0, but got {seed!r}. Give 0, say.")
    if num_classes < 2:
        raise InputError(f"Expected at least 2 classes, but got {num_classes!r}. Noise needs another class.")
    array = np.asarray(labels)
    # An empty list comes out of asarray as floats.
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(
            f"Expected labels to be integers of shape (N,), but got {array.dtype} of shape {array.shape}. "
            "Give class indices, not names, scores or one-hot rows."
        )
    out_of_range = np.flatnonzero((array < 0) | (array >= num_classes))
    if out_of_range.size:
        row = int(out_of_range[0])
        raise InputError(
            f"Expected labels in [0, {num_classes}), but got {array[row]} in row {row} "
            f"({out_of_range.size} of {array.size} rows). Mend these labels, or num_classes."
        )
    # Not the dtype that came: a class drawn from 300 does not fit into int8.
    return array.astype(np.int64)
