"""What plugins implement, say of it and are handed: selectors, backbones, noise models, traits, progress events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image
    from torch import Tensor

    from deft_plugin.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a selector says of each example.

    Attributes
    ----------
    is_clean : np.ndarray of shape (N,), bool
        True where the given label is kept.
    label_quality : np.ndarray of shape (N,), float in [0, 1]
        Low = bad.
    predicted_labels : np.ndarray of shape (N,), int
        The label that the selector would give.
    details : mapping
        JSON values worth keeping: what was estimated, what was told.
    settings : mapping
        JSON values that steered the verdicts, beside those of the run; kept in `Detection.settings`.
    """

    is_clean: np.ndarray
    label_quality: np.ndarray
    predicted_labels: np.ndarray
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


Consumed: TypeAlias = Literal[
    "images",
    "features",
    "texts",
    "zero_shot_logits",
    "neighbours",
    "training_losses",
    "training_pred_probs",
    "pred_probs",
]
"""What a run computes for selectors. "texts" are prompts of the class names, "pred_probs" are out of sample."""

Need: TypeAlias = Literal["cone", "frozen"]
"""What a selector may fail without: a backbone whose features lie in a cone (CLIP), or ``tuning="frozen"``."""


@dataclass(frozen=True, kw_only=True)
class SelectorTraits:
    """What a selector says of itself, given when it is registered, so that nothing is loaded to know it.

    Attributes
    ----------
    needs_images : bool
        False if ``run.labels`` and ``run.pred_probs`` are all it reads: it then judges without images, too.
    learns : bool
        False if it does not learn from the run that it judges: it is then handed runs of a single class, too.
    consumes : tuple of str
        What it reads of a run besides the labels. Comparisons show it; empty means unknown.
    needs : tuple of str
        What it fails without. Comparisons leave it out where that is not there.
    is_told_noise_ratio : bool
        True if its verdicts depend on ``run.noise_ratio``, where a run has one.
    variant_of : str, optional
        The selector that it changes in one respect: it is compared with that one, not ranked.

    Examples
    --------
    >>> SelectorTraits(consumes=("images", "texts"), needs=("cone",), variant_of="deft").in_words()
    'variant of deft, needs a backbone with a cone'
    """

    needs_images: bool = True
    learns: bool = True
    consumes: tuple[Consumed, ...] = ()
    needs: tuple[Need, ...] = ()
    is_told_noise_ratio: bool = False
    variant_of: str | None = None

    def in_words(self) -> str:
        """Say what is worth knowing before one picks it; empty if there is nothing."""
        words: list[str] = []
        if self.variant_of is not None:
            words.append(f"variant of {self.variant_of}")
        if self.is_told_noise_ratio:
            words.append("told the noise ratio")
        if not self.needs_images:
            words.append("needs no images")
        phrases: dict[Need, str] = {"cone": "needs a backbone with a cone", "frozen": "needs frozen tuning"}
        return ", ".join([*words, *(phrases[need] for need in self.needs)])


@runtime_checkable
class Selector(Protocol):
    """Splits a noisy data set into clean and wrong labels, from what the run computes for all selectors.

    What it needs and goes by is said by `SelectorTraits` when it is registered. One that is handed over itself,
    ``detect(data, method=MySelector())``, has the default traits, or those of its attribute ``traits``.
    """

    def select(self, run: Run) -> Selection:
        """Judge every example of the run."""
        ...


@runtime_checkable
class HasTraits(Protocol):
    """A selector that can be handed over without being registered, and says itself what it needs."""

    @property
    def traits(self) -> SelectorTraits:
        """What would be given when it is registered."""
        ...


class PromptTokens(Protocol):
    """Tokenised prompts of all classes with room for the context; opaque but for its owner, the backbone."""

    @property
    def num_classes(self) -> int:
        """K."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens that go through the text tower."""
        ...

    @property
    def text_path(self) -> str:
        """How the text tower encodes them, in two or three words."""
        ...

    def select(self, classes: Tensor) -> PromptTokens:
        """Prompts of some classes only, in the order of `classes` (C,)."""
        ...


class Backbone(Protocol):
    """A vision-language model that DeFT can prompt. All features are L2-normalised float32.

    Attributes
    ----------
    name : str
    fingerprint : str
        Changes when weights or preprocessing change; part of the key of cached features.
    feature_dim : int
        D, the width of image and text features.
    context_dim : int
        Width of one context vector: that of the text tower's token embeddings.
    context_std : float
        Standard deviation to draw context vectors from: that of the tower's token embeddings (CLIP: 0.02).
    logit_scale : float
        s = exp(logit_scale parameter), the factor on similarities; 1 / temperature.
    has_cone : bool
        True if every image is at a positive similarity to every text (CLIP). False if features spread around
        the origin once they are centred, as they must be then.
    """

    name: str
    fingerprint: str
    feature_dim: int
    context_dim: int
    context_std: float
    logit_scale: float
    has_cone: bool

    @property
    def image_tower(self) -> torch.nn.Module:
        """What a tuning adapts."""
        ...

    def set_gradient_checkpointing(self, *, enable: bool) -> None:
        """Let the image tower keep less for the backward pass, and compute it again."""
        ...

    def to(self, device: str) -> Backbone:
        """Move both towers to a device, in place."""
        ...

    def preprocess(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into pixels (3, H, W), float32, as the image tower wants them."""
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, H, W) into image features (B, D)."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts into text features (T, D), without gradients."""
        ...

    def tokenize_prompts(self, class_names: Sequence[str], n_ctx: int) -> PromptTokens:
        """Tokenise ``[V]_1 … [V]_n_ctx class name.`` for every class.

        Raises
        ------
        InputError
            If a class name does not fit into the text tower's context length behind the context vectors.
        """
        ...

    def encode_prompts(self, tokens: Any, context: Tensor) -> Tensor:
        """Encode prompts with the context vectors (n_ctx, context_dim) into (K, D); differentiable in them.

        `tokens` are what this backbone's `tokenize_prompts` gave.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class NoiseTraits:
    """What a noise model says of itself, given when it is registered.

    Attributes
    ----------
    needs_pixels : bool
        True if it is also to be called with ``pixels``, all images at 32 x 32 as uint8 (N, 32, 32, 3).
    """

    needs_pixels: bool = False

    def in_words(self) -> str:
        """Say what is worth knowing before one picks it; empty if there is nothing."""
        return "needs pixels" if self.needs_pixels else ""


class NoiseModel(Protocol):
    """Puts wrong labels into a data set, so that the truth is known.

    What else it must be handed is said by `NoiseTraits` when it is registered. One that depends on more than the
    labels, the ratio and the seed can say on what: `DescribedNoise`.
    """

    def __call__(self, labels: np.ndarray, *, num_classes: int, noise_ratio: float, seed: int) -> np.ndarray:
        """Give the noisy labels (N,) of the true `labels` (N,)."""
        ...


@runtime_checkable
class DescribedNoise(Protocol):
    """A noise model that says what it depends on, beside the labels, the ratio and the seed."""

    def describe(self, num_classes: int) -> dict[str, Any]:
        """Give it as JSON values, which are kept with the results."""
        ...


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """What listeners to ``deft_epoch_end`` are told.

    Attributes
    ----------
    epoch, num_epochs : int
        `epoch` counts from 1.
    losses : mapping of str to float
        Mean of each loss over the epoch ("dp", "sim").
    scalars : mapping of str to float
        What else the method tells; DeFT: "selected_fraction", the share of examples whose label is kept, in [0, 1].
    learning_rate : float
    examples_per_second : float
    """

    epoch: int
    num_epochs: int
    losses: Mapping[str, float]
    scalars: Mapping[str, float]
    learning_rate: float
    examples_per_second: float


SelectorLoader: TypeAlias = Callable[[], Selector]
BackboneLoader: TypeAlias = Callable[[str], Backbone]
DatasetLoader: TypeAlias = Callable[[], Any]
NoiseModelLoader: TypeAlias = Callable[[], NoiseModel]
