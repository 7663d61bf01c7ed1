"""GMM: a two-component Gaussian mixture splits the training losses into clean and wrong labels."""

from __future__ import annotations

import warnings

import numpy as np

from deft_adapters.training_loss import example_losses
from deft_plugin import Run, Selection


class Gmm:
    """Clean where the component of the smaller mean has more than half of the posterior.

    Label quality is that posterior.

    References
    ----------
    Li et al., "DivideMix", ICLR 2020: min-max normalised cross-entropy, max_iter 10, tol 1e-2, reg_covar 5e-4.
    """

    needs_images = True

    def select(self, run: Run) -> Selection:
        """Fit the mixture to the training losses."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        losses = example_losses(run)
        spread = max(float(np.ptp(losses)), 1e-12)
        normalised = ((losses - losses.min()) / spread).reshape(-1, 1)
        mixture = GaussianMixture(n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=run.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 10 steps are few on purpose; losses may be equal
            mixture.fit(normalised)
        p_clean = mixture.predict_proba(normalised)[:, np.argmin(np.asarray(mixture.means_))]
        return Selection(is_clean=p_clean > 0.5, label_quality=p_clean, predicted_labels=run.training_predictions)
