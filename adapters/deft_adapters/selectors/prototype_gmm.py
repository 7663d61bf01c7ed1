"""RoLT's selection: labels whose images are near the prototype of their class."""

from __future__ import annotations

import numpy as np

from deft_adapters.selectors.by_class import keep_no_class_empty
from deft_adapters.selectors.class_vectors import dot_products, sum_by_class
from deft_adapters.selectors.mixtures import smaller_component_in_class
from deft_plugin import Run, Selection


class PrototypeGmm:
    """Clean where the distance to the class's prototype is among the small ones of that class.

    A prototype is the mean of a class's features, centred on the data and normalised. In each class a mixture of two
    Gaussians splits the distances; the prototypes are then made anew from the examples in the nearer component, and
    the distances to these are split again. Clean is more than half of the posterior of the nearer component.

    Choices: the paper does this at each epoch with the features of the network that is trained; ours stay as they are,
    so once is enough. A class that nothing splits is kept whole. The predicted label is that of the nearest prototype.
    The paper ranks nothing; label quality is ``1 - d² / 4`` with the distance d to the label's prototype.

    References
    ----------
    Wei et al., "Robust Long-Tailed Learning under Label Noise", 2021; Stomach-ache/RoLT, ``run_networks.py``
    (``label_cleaning``, ``get_gmm_mask``): squared distances of "cl2n" features, scikit-learn's default mixture on
    min-max normalised distances, one refinement.
    """

    def select(self, run: Run) -> Selection:
        """Split the distances to the prototypes, refine the prototypes, and split again."""
        everyone = np.ones(len(run.labels), bool)
        _, is_near = split_distances(run, everyone)
        distances, is_near = split_distances(run, is_near)
        own = distances[np.arange(len(distances)), run.labels]
        selection = Selection(
            is_clean=is_near,
            label_quality=np.clip(1 - own / 4, 0, 1),
            predicted_labels=distances.argmin(axis=1),
        )
        return run.share_verdicts(selection)


def split_distances(run: Run, is_near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances (N, K) to prototypes of the chosen examples (N,), and who is in the nearer component (N,)."""
    distances = prototype_distances(run, is_near)
    own = distances[np.arange(len(distances)), run.labels]
    p_near = smaller_component_in_class(own, run.labels, seed=run.seed)
    return distances, keep_no_class_empty(p_near > 0.5, run.labels)


def prototype_distances(run: Run, is_near: np.ndarray) -> np.ndarray:
    """Squared distances (N, K) to the means of the chosen examples (N,); infinity for a class without examples."""
    features, num_classes = run.centred_features, run.num_classes
    counts = np.bincount(run.labels[is_near], minlength=num_classes)
    sums = sum_by_class(features, run.labels, num_classes, is_near.astype(np.float32))
    prototypes = sums / np.maximum(counts, 1)[:, None]  # (K, D)
    squared = (prototypes.astype(np.float64) ** 2).sum(axis=1)
    distances = 1 - 2 * dot_products(features, prototypes.astype(np.float32)) + squared  # features have length 1
    distances[:, counts == 0] = np.inf
    return distances
