"""CLIPCleaner: keep a label that a zero-shot and a trained classifier both find likely, by two criteria each."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from deft_adapters.selectors.mixtures import smaller_component_in_class
from deft_plugin import Run, Selection

TEMPERATURE = 0.07
THETA_GMM = 0.5
THETA_CONSISTENCY = 0.8


class ClipCleaner:
    """Clean where two classifiers find the label likely by both criteria: the intersection of four selections.

    The classifiers are zero-shot and trained on the features. The criteria are the *loss*: in each class, a mixture of
    two Gaussians gives the smaller losses a posterior of at least 0.5; and the *consistency*: the label's
    probability is at least 0.8 of that of the likeliest class.

    Choices: one prompt for each class, "a photo of a {}.", where the paper writes several with what classes look like.
    The trained classifier is the run's linear one, after its last epoch and in sample, where the paper's is a
    logistic regression with weights against class imbalance. A class of which nothing is left stays empty; the released
    code fills it up, since it goes on to train on what is left. The paper ranks nothing; label quality is the
    geometric mean of the label's two probabilities.

    References
    ----------
    Feng et al., "CLIPCleaner: Cleaning Noisy Labels with CLIP", ACM Multimedia 2024; MrChenFeng/CLIPCleaner_ACMMM2024,
    ``clipcleaner.py``: temperature 0.07, theta_gmm 0.5, theta_cons 0.8, losses normalised in each class.
    """

    def select(self, run: Run) -> Selection:
        """Intersect the four selections."""
        backbone, _ = run.require_images()
        cosines = run.zero_shot_logits.astype(np.float64) / backbone.logit_scale
        classifiers = {"zero_shot": softmax(cosines / TEMPERATURE, axis=1), "trained": run.training_pred_probs}
        selected = {
            f"{name}_{criterion}": is_selected
            for name, probabilities in classifiers.items()
            for criterion, is_selected in judge_labels(probabilities, run.labels, seed=run.seed).items()
        }
        both = np.sqrt(classifiers["zero_shot"] * classifiers["trained"])  # (N, K)
        selection = Selection(
            is_clean=np.logical_and.reduce(list(selected.values())),
            label_quality=np.minimum(both[np.arange(len(both)), run.labels], 1.0),
            predicted_labels=both.argmax(axis=1),
            details={f"fraction_by_{name}": float(is_selected.mean()) for name, is_selected in selected.items()},
        )
        return run.share_verdicts(selection)


def judge_labels(probabilities: np.ndarray, labels: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """Select labels (N,) by class probabilities (N, K): by "loss" and by "consistency", each (N,), bool."""
    of_label = probabilities[np.arange(len(labels)), labels]
    losses = -np.log(np.maximum(of_label, 1e-30))
    return {
        "loss": smaller_component_in_class(losses, labels, seed=seed) >= THETA_GMM,
        "consistency": of_label >= THETA_CONSISTENCY * probabilities.max(axis=1),
    }
