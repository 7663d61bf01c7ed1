"""DeFT with a mixture: the same scores, parted where a mixture of two Gaussians says."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from deft_plugin import Deft, Run, Selection

MAX_MARGIN = 9.2
"""Of p_clean = 1e-4 and 1 - 1e-4: how much surer it is of a label says nothing of how well the two sorts part."""


class DeftMixture:
    """Keeps a label where its margin is above a threshold that a mixture finds, instead of above 0.

    Where labels go wrong just where images are ambiguous, as with people's mistakes, a posterior that was learned
    from them takes many for right. Their p_clean is above 1/2, but below that of right labels. Here a mixture of two
    Gaussians with one variance is fitted to the margins, log p_clean / (1 - p_clean), clipped to ±9.2; the threshold is
    where both are equally probable. Label quality is p_clean with all margins shifted by it, as if every negative
    prompt were closer by that much; it ranks as p_clean does.

    It supposes that a fair share of the labels is wrong: where few are, or among a few hundred examples, it drops right
    labels that ``deft`` keeps. Where it helps and where not stands in the ablation table of the benchmark.
    """

    def select(self, run: Run) -> Selection:
        """Take DeFT's verdicts, from the same training if it has run, and part them anew."""
        from scipy.special import expit, logit

        selection, _ = Deft().train(run)
        margins = logit(np.clip(selection.label_quality, 1e-15, 1 - 1e-15))
        threshold = find_threshold(margins, seed=run.seed)
        return replace(
            selection,
            is_clean=margins > threshold,
            label_quality=expit(margins - threshold),
            details={**selection.details, "threshold_of_p_clean": float(expit(threshold))},
        )


def find_threshold(margins: np.ndarray, *, seed: int) -> float:
    """Margin at which two Gaussians with one variance, fitted to margins (N,), are equally probable.

    0 if all margins are the same: nothing sets one apart from the others.

    Examples
    --------
    >>> round(find_threshold(np.array([1.0, 1.2, 0.8, 5.0, 5.2, 4.8]), seed=0), 2)
    3.0
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    clipped = np.clip(margins, -MAX_MARGIN, MAX_MARGIN)
    if np.ptp(clipped) < 1e-9:
        return 0.0
    mixture = GaussianMixture(2, covariance_type="tied", reg_covar=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few different values
        mixture.fit(clipped[:, None])
    means, variance = np.asarray(mixture.means_)[:, 0], float(np.asarray(mixture.covariances_)[0, 0])
    low, high = np.argsort(means)
    weights = np.asarray(mixture.weights_)
    shift = variance * np.log(weights[low] / weights[high]) / (means[high] - means[low])
    return float((means[low] + means[high]) / 2 + shift)
