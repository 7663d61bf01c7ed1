"""Two-component Gaussian mixtures that split scores into those of clean and of wrong labels."""

from __future__ import annotations

import warnings

import numpy as np


def smaller_component(
    values: np.ndarray, *, seed: int, max_iter: int = 100, tol: float = 1e-3, reg_covar: float = 1e-6
) -> np.ndarray:
    """Posterior (n,) of the component of the smaller mean, in a mixture fitted to min-max normalised values (n,).

    Where all values are the same, nothing sets one apart from the others: 1.

    Parameters
    ----------
    values : np.ndarray of shape (n,)
        The larger, the worse.
    seed : int
    max_iter, tol, reg_covar : int, float, float
        Of scikit-learn's `GaussianMixture`, with its defaults.

    Examples
    --------
    >>> smaller_component(np.array([0.1, 0.2, 0.15, 3.0, 3.1]), seed=0).round(2)
    array([1., 1., 1., 0., 0.])
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    spread = float(np.ptp(values))
    if spread < 1e-12:
        return np.ones(len(values))
    normalised = ((values - values.min()) / spread).reshape(-1, 1)
    mixture = GaussianMixture(n_components=2, max_iter=max_iter, tol=tol, reg_covar=reg_covar, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few steps on purpose, or few values
        mixture.fit(normalised)
    return mixture.predict_proba(normalised)[:, np.argmin(np.asarray(mixture.means_))]


def smaller_component_of_losses(losses: np.ndarray, *, seed: int) -> np.ndarray:
    """Posterior (n,) of the component of the smaller losses (n,), with DivideMix's settings.

    References
    ----------
    Li et al., "DivideMix", ICLR 2020: max_iter 10, tol 1e-2, reg_covar 5e-4.
    """
    return smaller_component(losses, seed=seed, max_iter=10, tol=1e-2, reg_covar=5e-4)


def smaller_component_in_class(values: np.ndarray, labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Posterior (N,) of the component of the smaller mean, with a mixture for each label (N,) of its own."""
    posterior = np.empty(len(values))
    for label in np.unique(labels):
        posterior[labels == label] = smaller_component(values[labels == label], seed=seed)
    return posterior
