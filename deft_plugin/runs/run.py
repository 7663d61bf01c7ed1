"""One run shared by selectors: features, zero-shot logits, pred_probs and training losses, each computed once.

Every selector of a comparison sees the same backbone, features, labels and seed, and comparing eight of them costs
one pass over the images and one training run, not eight.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from deft_plugin.compute.pieces import pieces
from deft_plugin.compute.precision import pick_device
from deft_plugin.errors import InputError
from deft_plugin.runs.folds import deal_folds
from deft_plugin.settings import RunSettings
from deft_plugin.types import Backbone, EpochEnd, Selection

if TYPE_CHECKING:
    from pathlib import Path

    from deft_plugin.compute.workers import Workers
    from deft_plugin.data.sources import ImageSource
    from deft_plugin.runs.neighbours import Neighbours
    from deft_plugin.runs.probe import History, LinearProbe
    from deft_plugin.settings import FinetuneSettings, NoiseRatioSource

ZERO_SHOT_TEMPLATE = "a photo of a {}."
NUM_NEIGHBOURS = 30


ValueT = TypeVar("ValueT")


class _Shared(Generic[ValueT]):
    """A property that is computed once for several runs, and kept in a dict that they share."""

    def __init__(self, compute: Callable[[Run], ValueT]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def kept_in(self, run: Run) -> dict[str, Any]:
        """Find the dict that this is kept in."""
        raise NotImplementedError

    def __get__(self, run: Run, owner: type[Run]) -> ValueT:
        name, kept = self._compute.__name__, self.kept_in(run)
        if name not in kept:
            kept[name] = self._compute(run)
        return kept[name]


class _OfImages(_Shared[ValueT]):
    """Shared by all runs over the same images, whatever their labels."""

    def kept_in(self, run: Run) -> dict[str, Any]:
        return run.of_images


class _OfLabels(_Shared[ValueT]):
    """Shared by all runs over the same images with the same labels."""

    def kept_in(self, run: Run) -> dict[str, Any]:
        return run.of_labels


class _OfFeatures(_Shared[ValueT]):
    """Of `Run.image_features`, which depend on labels where they are centred."""

    def kept_in(self, run: Run) -> dict[str, Any]:
        return run.of_images if run.require_images()[0].has_cone else run.of_labels


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
    settings : RunSettings
        Those that selectors ask for have a name of their own: `seed`, `device`, `noise_ratio`, `tuning` and so on.
    epoch_end : callable
        Told of each training epoch of DeFT.
    images : ImageSource of length N, optional
        For tunings that train the image encoder.
    checkpoint_dir : Path, optional
        Where they keep checkpoints.
    workers : Workers
        Processes that share the run.
    of_images : dict
        What does not depend on labels, once it is computed; the same object in runs made by `with_labels`.
    of_labels : dict
        What depends on images and labels alone; the same object in runs made by `with_settings`.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    backbone: Backbone | None = None
    raw_features: np.ndarray | None = None
    digests: np.ndarray | None = None
    given_pred_probs: np.ndarray | None = None
    settings: RunSettings = field(default_factory=lambda: RunSettings(device="cpu"))
    epoch_end: Callable[[EpochEnd], None] = _no_listener
    images: ImageSource | None = None
    checkpoint_dir: Path | None = None
    workers: Workers | None = None
    # Not a parameter: a run made by dataclasses.replace, which may have other images, starts with an empty one.
    of_images: dict[str, Any] = field(default_factory=dict[str, Any], repr=False, init=False)
    of_labels: dict[str, Any] = field(default_factory=dict[str, Any], repr=False, init=False)

    def with_labels(self, labels: np.ndarray, settings: RunSettings | None = None) -> Run:
        """Make a run over the same images with other labels; they share what does not depend on labels.

        Parameters
        ----------
        labels : np.ndarray of shape (N,), int64 in [0, K)
        settings : RunSettings, optional
            With the model and device of this run; by default its own.
        """
        return self._share_images(replace(self, labels=labels, settings=settings or self.settings))

    def with_settings(self, **changes: Any) -> Run:
        """Make a run over the same images and labels with some settings changed.

        Parameters
        ----------
        **changes
            Fields of `RunSettings` but for model and device, which are those of this run.
        """
        other = self._share_images(replace(self, settings=replace(self.settings, **changes)))
        object.__setattr__(other, "of_labels", self.of_labels)
        return other

    def _share_images(self, other: Run) -> Run:
        object.__setattr__(other, "of_images", self.of_images)
        return other

    def once(self, key: Hashable, compute: Callable[[], ValueT]) -> ValueT:
        """Compute something on the first call with this key, and give the same object from then on.

        For what several selectors build on and the run does not know: another run, such as one made by
        `with_labels`, computes it anew.

        Parameters
        ----------
        key : hashable
            Names what is computed, with all that it depends on beside the run.
        compute : callable
        """
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def seed(self) -> int:
        """Seed of all that is random in this run."""
        return self.settings.seed

    @property
    def device(self) -> str:
        """Device that the run computes on, such as "cpu" or "cuda:0"."""
        return pick_device(self.settings.device)

    @property
    def n_folds(self) -> int:
        """F, for everything that is out of sample."""
        return self.settings.n_folds

    @property
    def noise_ratio(self) -> float | None:
        """Expected share of wrong labels, in [0, 1), for selectors that need to be told; None if nobody knows."""
        return self.settings.noise_ratio

    @property
    def noise_ratio_source(self) -> NoiseRatioSource:
        """Who told it; an "oracle" has seen the true labels."""
        return self.settings.noise_ratio_source

    @property
    def tuning(self) -> str:
        """How DeFT adapts the image encoder; may be "auto"."""
        return self.settings.tuning

    @property
    def training(self) -> FinetuneSettings | None:
        """How, for tunings that train it; None for the defaults of the method."""
        return self.settings.training

    @_OfLabels
    def centre(self) -> np.ndarray:
        """Centre (D,), float32, that features are measured from: see `deft_plugin.runs.features.class_centre`."""
        from deft_plugin.runs.features import class_centre

        return class_centre(self.require_images()[1], self.labels)

    @_OfFeatures
    def image_features(self) -> np.ndarray:
        """Image features (N, D), float16, L2-normalised; centred if the backbone has no cone."""
        backbone, features = self.require_images()
        return features if backbone.has_cone else self.centred_features

    @_OfLabels
    def centred_features(self) -> np.ndarray:
        """Image features (N, D), float16, centred and L2-normalised, whatever the backbone."""
        from deft_plugin.runs.features import centre_features

        return centre_features(self.require_images()[1], self.centre)

    @_OfFeatures
    def neighbours(self) -> Neighbours:
        """Nearest others of each image by `image_features`: 30, or all if there are fewer."""
        from deft_plugin.runs.neighbours import nearest_neighbours

        return nearest_neighbours(self.image_features, NUM_NEIGHBOURS, device=self.device)

    @_OfImages
    def image_groups(self) -> np.ndarray:
        """Numbers (N,), int64, that identical images share; without digests all are taken as different."""
        if self.digests is None:
            return np.arange(len(self.labels))
        return np.unique(self.digests, axis=0, return_inverse=True)[1].reshape(-1)

    @cached_property
    def first_twins(self) -> np.ndarray:
        """The first row with the same image and the same label: (N,), int64."""
        # One number for each pair of image and label.
        keys = self.image_groups * self.num_classes + self.labels
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return first[inverse.reshape(-1)]

    @_OfImages
    def class_text_features(self) -> np.ndarray:
        """Text features (K, D), float32, L2-normalised, of the prompts "a photo of a {}."."""
        backbone, _ = self.require_images()
        names = [name.replace("_", " ") for name in self.class_names]
        return backbone.encode_texts([ZERO_SHOT_TEMPLATE.format(name) for name in names]).float().cpu().numpy()

    @_OfFeatures
    def zero_shot_logits(self) -> np.ndarray:
        """Logits (N, K), float32, of the prompts "a photo of a {}."."""
        import torch

        backbone, _ = self.require_images()
        text = torch.from_numpy(self.class_text_features)
        features = [self.image_features[piece] for piece in pieces(len(self.labels))]
        logits = [backbone.logit_scale * torch.from_numpy(piece).float() @ text.T for piece in features]
        return torch.cat(logits).numpy()

    @cached_property
    def folds(self) -> np.ndarray:
        """Which fold judges an example: (N,), int64 in [0, n_folds); identical images share one."""
        groups = self.image_groups
        # Identical images share a fold, so a single image would leave all folds but one without a row to judge.
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
        # The folds of DeFT: a comparison must not turn on who was dealt which examples.
        for fold in range(self.n_folds):
            held_out = self.folds == fold
            probe = self.new_probe(seed=self.seed + fold)
            probe.fit(features[~held_out], self.labels[~held_out])
            pred_probs[held_out] = probe.predict_proba(features[held_out])
        return pred_probs

    @cached_property
    def training_losses(self) -> np.ndarray:
        """Cross-entropy (epochs, N) of each example while a linear classifier is trained on the given labels."""
        return self._training[0].losses

    @cached_property
    def training_margins(self) -> np.ndarray:
        """Logit of the given label minus the largest other logit, (epochs, N), of the same classifier."""
        return self._training[0].margins

    @cached_property
    def training_pred_probs(self) -> np.ndarray:
        """Class probabilities (N, K) of the same classifier after its last epoch: in sample."""
        return self._training[1].predict_proba(self.image_features)

    @cached_property
    def training_predictions(self) -> np.ndarray:
        """Labels (N,) that the same classifier gives after its last epoch."""
        return self.training_pred_probs.argmax(1)

    def new_probe(self, *, seed: int, num_classes: int | None = None) -> LinearProbe:
        """Make the linear classifier that all selectors use, untrained; for K classes if not told otherwise.

        Parameters
        ----------
        seed : int
        num_classes : int, optional
        """
        from deft_plugin.runs.probe import LinearProbe
        from deft_plugin.settings import ProbeSettings

        classes = self.num_classes if num_classes is None else num_classes
        return LinearProbe(classes, self.image_features.shape[1], settings=ProbeSettings(), seed=seed)

    def generator(self, name: str) -> np.random.Generator:
        """Make random numbers of the run's seed, another stream for each name.

        Noise may have been put in with the same seed: numbers drawn in the same way would know where.
        """
        return np.random.default_rng([self.seed, *name.encode()])

    def share_verdicts(self, selection: Selection) -> Selection:
        """Give rows with the same image and the same label the verdict of the first of them.

        For selectors that count examples, or break ties: they may tell rows apart that are the same.
        """
        first = self.first_twins
        return replace(
            selection,
            is_clean=selection.is_clean[first],
            label_quality=selection.label_quality[first],
            predicted_labels=selection.predicted_labels[first],
        )

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
    def _computed(self) -> dict[Hashable, Any]:
        return {}

    @cached_property
    def _training(self) -> tuple[History, LinearProbe]:
        probe = self.new_probe(seed=self.seed)
        return probe.fit(self.image_features, self.labels, keep_history=True), probe
