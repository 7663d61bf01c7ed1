"""GMM: a two-component Gaussian mixture splits the training losses into clean and wrong labels."""

from __future__ import annotations

from deft_adapters.selectors.mixtures import smaller_component_of_losses
from deft_adapters.selectors.training_loss import example_losses
from deft_plugin import Run, Selection


class Gmm:
    """Clean where the component of the smaller mean has more than half of the posterior.

    Label quality is that posterior.

    References
    ----------
    Li et al., "DivideMix", ICLR 2020: min-max normalised cross-entropy, max_iter 10, tol 1e-2, reg_covar 5e-4.
    """

    def select(self, run: Run) -> Selection:
        """Fit the mixture to the training losses."""
        p_clean = smaller_component_of_losses(example_losses(run), seed=run.seed)
        return Selection(is_clean=p_clean > 0.5, label_quality=p_clean, predicted_labels=run.training_predictions)
