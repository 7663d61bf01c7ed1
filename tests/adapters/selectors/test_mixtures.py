"""Mixtures against scikit-learn's own, and by class."""

import numpy as np
import pytest
from deft_adapters.selectors.mixtures import smaller_component, smaller_component_in_class, smaller_component_of_losses
from sklearn.mixture import GaussianMixture

VALUES = np.random.default_rng(0).gamma(2.0, size=400)


def reference(values, **settings):
    normalised = (values - values.min()) / (values.max() - values.min())
    mixture = GaussianMixture(2, random_state=3, **settings).fit(normalised[:, None])
    return mixture.predict_proba(normalised[:, None])[:, mixture.means_[:, 0].argmin()]


def test_defaults_of_scikit_learn():
    np.testing.assert_allclose(smaller_component(VALUES, seed=3), reference(VALUES))


@pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")
def test_settings_of_dividemix():
    """Ten steps, where more would go further."""
    heaps = np.concatenate([VALUES, np.random.default_rng(1).normal(4, 1.5, 200)])
    expected = reference(heaps, max_iter=10, tol=1e-2, reg_covar=5e-4)
    np.testing.assert_allclose(smaller_component_of_losses(heaps, seed=3), expected)
    for other in ({"max_iter": 1}, {"tol": 1e-4, "max_iter": 100}, {"reg_covar": 5e-3}):
        settings = {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4, **other}
        assert np.abs(reference(heaps, **settings) - expected).max() > 1e-3


def test_each_class_by_itself():
    labels = np.arange(400) % 3
    values = VALUES + 100 * labels
    posterior = smaller_component_in_class(values, labels, seed=3)
    for k in range(3):
        np.testing.assert_allclose(posterior[labels == k], reference(values[labels == k]))


@pytest.mark.parametrize("values", [[2.0], [0.0, 0.0, 0.0], [7.0, 7.0]])
def test_nothing_to_split(values):
    assert smaller_component(np.array(values), seed=0).tolist() == [1.0] * len(values)


def test_two_values():
    assert smaller_component(np.array([1.0, 5.0]), seed=0).round(3).tolist() == [1, 0]
