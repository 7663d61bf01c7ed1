"""One run shared by selectors: features, zero-shot logits, pred_probs and training losses, each computed once.

Every selector of a comparison sees the same backbone, features, labels and seed, and comparing eight of them costs
one pass over the images and one training run, not eight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from deft_plugin.errors import InputError
from deft_plugin.folds import deal_folds
from deft_plugin.types import Backbone, EpochEnd

if TYPE_CHECKING:
    from pathlib import Path

    from deft_plugin.image_sources import ImageSource
    from deft_plugin.probe import LinearProbe
    from deft_plugin.training_settings import FinetuneSettings
    from deft_plugin.workers import Workers

NoiseRatioSource: TypeAlias = Literal["given", "oracle"]
ZERO_SHOT_TEMPLATE = "a photo of a {}."


def _no_listener(event: EpochEnd) -> None:
    """Be silent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What selectors are handed. Arrays are aligned: row i is example i.

    Attributes
    ----------
    labels : np.ndarray of shape (N,), int64 in [0, K)
        Given labels, to be judged.
    class_names : tuple of str of length K
    backbone : Backbone, optional
        None if the run was made from `pred_probs` alone.
    raw_features : np.ndarray of shape (N, D), optional
        Image features as the backbone gave them.
    digests : np.ndarray of shape (N, 16), uint8, optional
        Image digests; the same for identical images.
    given_pred_probs : np.ndarray of shape (N, K), optional
        Out-of-sample class probabilities from elsewhere.
    noise_ratio : float, optional
        Expected share of wrong labels, for selectors that need to be told.
    noise_ratio_source : "given" or "oracle"
        An oracle has seen the true labels.
    tuning : str
        How DeFT adapts the image encoder.
    training : FinetuneSettings, optional
        How, for tunings that train it.
    seed : int
    device : str
    n_folds : int
        For everything that is out of sample.
    epoch_end : callable
        Told of each training epoch of DeFT.
    images : ImageSource of length N, optional
        For tunings that train the image encoder.
    checkpoint_dir : Path, optional
        Where they keep checkpoints.
    workers : Workers
        Processes that share the run.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    backbone: Backbone | None = None
    raw_features: np.ndarray | None = None
    digests: np.ndarray | None = None
    given_pred_probs: np.ndarray | None = None
    noise_ratio: float | None = None
    noise_ratio_source: NoiseRatioSource = "given"
    tuning: str = "auto"
    training: FinetuneSettings | None = None
    seed: int = 0
    device: str = "cpu"
    n_folds: int = 10
    epoch_end: Callable[[EpochEnd], None] = _no_listener
    images: ImageSource | None = None
    checkpoint_dir: Path | None = None
    workers: Workers | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @cached_property
    def image_features(self) -> np.ndarray:
        """Image features (N, D), float16, L2-normalised; centred on the data if the backbone has no cone."""
        from deft_plugin.features import centre_features

        backbone, features = self.require_images()
        return features if backbone.has_cone else centre_features(features)

    @cached_property
    def zero_shot_logits(self) -> np.ndarray:
        """Logits (N, K), float32, of the prompts "a photo of a {}."."""
        import torch

        backbone, _ = self.require_images()
        names = [name.replace("_", " ") for name in self.class_names]
        text = backbone.encode_texts([ZERO_SHOT_TEMPLATE.format(name) for name in names]).float().cpu()
        pieces = np.array_split(self.image_features, -(-len(self.labels) // 4096))
        logits = [backbone.logit_scale * torch.from_numpy(piece).float() @ text.T for piece in pieces]
        return torch.cat(logits).numpy()

    @cached_property
    def folds(self) -> np.ndarray:
        """Which fold judges an example: (N,), int64 in [0, n_folds); identical images share one."""
        groups = np.arange(len(self.labels))
        if self.digests is not None:
            groups = np.unique(self.digests, axis=0, return_inverse=True)[1].reshape(-1)
        if groups.max() == 0:
            raise InputError(
                f"Expected two different images or more, to judge one by others, but all {len(groups)} are the same."
            )
        return deal_folds(self.labels, groups, self.n_folds, self.seed)

    @cached_property
    def pred_probs(self) -> np.ndarray:
        """Out-of-sample class probabilities (N, K): as given, else of a linear classifier, cross-validated."""
        if self.given_pred_probs is not None:
            return self.given_pred_probs
        features = self.image_features
        pred_probs = np.empty((len(self.labels), self.num_classes))
        for fold in range(self.n_folds):
            held_out = self.folds == fold
            probe = self._make_probe(seed=self.seed + fold)
            probe.fit(features[~held_out], self.labels[~held_out])
            pred_probs[held_out] = probe.predict_proba(features[held_out])
        return pred_probs

    @cached_property
    def training_losses(self) -> np.ndarray:
        """Cross-entropy (epochs, N) of each example while a linear classifier is trained on the given labels."""
        return self._training[0]

    @cached_property
    def training_predictions(self) -> np.ndarray:
        """Labels (N,) that the classifier of `training_losses` gives after its last epoch."""
        return self._training[1]

    def require_images(self) -> tuple[Backbone, np.ndarray]:
        """Backbone and raw features (N, D).

        Raises
        ------
        InputError
            If the run was made without images.
        """
        if self.backbone is None or self.raw_features is None:
            raise InputError(
                "Expected a run with images, but it was made from pred_probs alone. Pass the images as data, or use "
                "a method that needs only pred_probs, such as 'confident_learning'."
            )
        return self.backbone, self.raw_features

    @cached_property
    def _training(self) -> tuple[np.ndarray, np.ndarray]:
        probe = self._make_probe(seed=self.seed)
        losses = probe.fit(self.image_features, self.labels, keep_losses=True)
        return losses, probe.predict_proba(self.image_features).argmax(1)

    def _make_probe(self, *, seed: int) -> LinearProbe:
        from deft_plugin.probe import LinearProbe, ProbeSettings

        return LinearProbe(self.num_classes, self.image_features.shape[1], settings=ProbeSettings(), seed=seed)
