"""One training step of DeFT with the image encoder in the loop: losses, and the verdict on each example.

Source: Wei et al., NeurIPS 2024, eq. 2-6, and the authors' code where the paper is silent: L_dp trains the negative
context only, since positive logits and the images of the negative branch are detached in it; L_sim trains the positive
context and the encoder.

A step asks for the negative prompts of few classes: an example is judged by that of its label, and L_dp needs those
of its pseudo-label and of one complementary label. So at most three negative prompts an example are encoded, whatever
the number of classes. That is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from deft_plugin.compute.precision import autocast
from deft_plugin.deft.losses import dp_loss, pseudo_labels, sim_losses
from deft_plugin.deft.prompts import NEGATIVE, POSITIVE, SoftPrompts
from deft_plugin.deft.transition import symmetric_transition
from deft_plugin.deft.verdicts import judge
from deft_plugin.settings import FinetuneSettings
from deft_plugin.training.losses import symmetric_cross_entropy
from deft_plugin.types import Backbone

CLAMP = 1e-5


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step says of its batch.

    Attributes
    ----------
    dp, sim : Tensor of shape (B,)
        Losses of each example; sim is 0 where the label was not selected.
    is_clean : Tensor of shape (B,), bool
        Verdicts before the step; in warm-up too, where they are not acted upon.
    margins : Tensor of shape (B,)
        Positive minus negative logits of the given labels: p_clean is their sigmoid.
    predicted : Tensor of shape (B,), int64
        Classes of the closest positive prompts.
    selected : Tensor of shape (B,), bool
        What L_sim is learned from: all in warm-up, else `is_clean`.
    """

    dp: Tensor
    sim: Tensor
    is_clean: Tensor
    margins: Tensor
    predicted: Tensor
    selected: Tensor


class DeftStep:
    """Forward pass and losses of a batch.

    Parameters
    ----------
    backbone : Backbone
    prompts : SoftPrompts
    device : str
    centre : Tensor of shape (D,), optional
        Mean image feature, for a backbone without a cone.
    settings : FinetuneSettings, optional
        The faithful protocol clamps as the authors' code does. With `is_real_noise`, the authors' variant for noise
        from real life, a label must also be the class with the highest p_clean to be selected, and warm-up uses the
        symmetric cross-entropy.

    Attributes
    ----------
    transition : Tensor of shape (K, K), optional
        For a backbone without a cone: what the negative prompt is measured against; see
        `deft_plugin.deft.verdicts.margins`.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: SoftPrompts,
        *,
        settings: FinetuneSettings | None = None,
        device: str,
        centre: Tensor | None = None,
    ) -> None:
        self._backbone, self._prompts, self._device = backbone, prompts, device
        self._scale = backbone.logit_scale
        settings = settings or FinetuneSettings()
        self._centre = centre
        self._floor = CLAMP if settings.protocol == "faithful" else 0.0
        self._is_real_noise, self._cone_sine = settings.is_real_noise, settings.cone_sine
        num_classes = prompts.tokens.num_classes
        # Without a cone the negative prompt is measured from the background; see `deft_plugin.deft.frozen`.
        self.transition = None if backbone.has_cone else symmetric_transition(num_classes).to(device)

    def __call__(self, pixels: Tensor, labels: Tensor, complement: Tensor, *, is_warmup: bool) -> StepResult:
        """Judge a batch and compute its losses.

        Parameters
        ----------
        pixels : Tensor of shape (B, 3, H, W)
        labels, complement : Tensor of shape (B,), int64
            Given labels, and a random other label for each.
        is_warmup : bool
            All labels are taken as clean.
        """
        images = self.encode_images(pixels)  # (B, D)
        positive = self._scale * images @ self._prompts.features(POSITIVE).T  # (B, K)
        fixed = positive.detach()
        predicted = fixed.argmax(-1)
        # The authors compute all K negative prompts. Real noise needs them: it asks for the highest p_clean.
        asked = None if self._is_real_noise else torch.cat([labels, complement, predicted]).unique()
        # Detached as in the authors' code: the negative branch does not train the encoder.
        negative = self._negative_logits(images.detach(), asked)  # (B, K)
        margins, is_clean = self._judge(fixed, negative, labels)
        selected = torch.ones_like(is_clean) if is_warmup else is_clean
        pseudo = pseudo_labels(labels, selected, fixed)
        of_pseudo, of_complement = (self._judge(fixed, negative, of)[0] for of in (pseudo, complement))
        dp = dp_loss(of_pseudo, of_complement, floor=self._floor)
        if is_warmup and self._is_real_noise:
            sim = symmetric_cross_entropy(positive, labels)
        else:
            sim = sim_losses(positive, labels, selected)
        return StepResult(
            dp=dp, sim=sim, is_clean=is_clean, margins=margins.detach(), predicted=predicted, selected=selected
        )

    @torch.no_grad()
    def judge(self, pixels: Tensor, labels: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Judge a batch by text features (2, K, D) that were computed once for all.

        Parameters
        ----------
        pixels : Tensor of shape (B, 3, H, W)
        labels : Tensor of shape (B,), int64
        text : Tensor of shape (2, K, D)
            Positive and negative text features, L2-normalised.

        Returns
        -------
        margins : Tensor of shape (B,)
        is_clean : Tensor of shape (B,), bool
        predicted : Tensor of shape (B,), int64
        """
        images = self.encode_images(pixels)
        positive, negative = (self._scale * images @ text[polarity].T for polarity in (POSITIVE, NEGATIVE))
        return *self._judge(positive, negative, labels), positive.argmax(-1)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Image features (B, D), float32, L2-normalised; centred if there is a centre."""
        with autocast(self._device):
            images = self._backbone.encode_images(pixels)
        return images if self._centre is None else F.normalize(images - self._centre, dim=-1)

    def _negative_logits(self, images: Tensor, classes: Tensor | None) -> Tensor:
        """Negative logits (B, K) of `classes` (C,), or of all; infinite where not asked for."""
        logits = self._scale * images @ self._prompts.features(NEGATIVE, classes).T  # (B, C)
        if classes is None:
            return logits
        everything = logits.new_full((len(images), self._prompts.tokens.num_classes), float("inf"))
        return everything.index_copy(1, classes, logits)

    def _judge(self, positive: Tensor, negative: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Margins and verdicts on `labels` (B,), from logits (B, K)."""
        return judge(
            positive,
            negative,
            labels,
            self.transition,
            cone_sine=self._cone_sine,
            is_real_noise=self._is_real_noise,
        )
