"""``tuning="frozen"``: the image encoder stays as it is; prompts and class residuals are learned on its features.

What replaces the adapted encoder is a residual on each class's positive text feature (the class residual of Yu et
al., "Task Residual for Tuning Vision-Language Models", CVPR 2023), trained by L_sim as the encoder would be.

**The cone.** A negative prompt can be a threshold in CLIP, since every image is at about the same similarity to every
text. Centred features have no such cone, and a learned constant in its place overfits small classes. Here the
cone is the image's own: a negative prompt is measured from the *background*, the soft maximum over the positive
prompts of the classes whose images get this label by mistake (`verdicts.background_logits`), and may move
away from it by the setting `cone_sine`, the sine of the cone's half-angle.

**Out of sample.** A linear map of 1,000 numbers fits wrong labels too, and then approves of them. So examples are
dealt into folds, each with residuals of its own that are not trained on its examples; all folds are trained side by
side. Two traces of an example's label come back to its own fold. The contexts are shared by all folds: a few
vectors in front of every class name cannot fit single labels, and text, the dear part, is encoded once for all
folds. And from warm-up on, the verdict on an example decides how the *other* folds use it, and so what they say of
its own fold's training examples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deft_plugin.compute.pieces import pieces
from deft_plugin.deft.losses import complementary_labels, dp_loss, pseudo_labels, sim_loss
from deft_plugin.deft.prompts import NEGATIVE, POSITIVE, SoftPrompts
from deft_plugin.deft.transition import estimate_transition, symmetric_transition
from deft_plugin.deft.verdicts import clean_probability, is_clean, margins
from deft_plugin.settings import FrozenSettings
from deft_plugin.training.batches import minibatch_size
from deft_plugin.types import Backbone, EpochEnd, Selection


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What the detector says of every example, each from the fold that has not seen it.

    Attributes
    ----------
    margins : Tensor of shape (N,)
        Positive minus negative logits of the given labels.
    posterior : Tensor of shape (N,)
        Probability of the given label by the positive prompts alone.
    predicted_labels : Tensor of shape (N,), int64
    transition : Tensor of shape (K, K)
        Estimated probability of the given label (column) for a true class (row).
    text : Tensor of shape (2, K, D)
        Positive and negative text features for new images: positive ones with the mean residual of all folds.
    settings : FrozenSettings
        That they were learned with.
    """

    margins: Tensor
    posterior: Tensor
    predicted_labels: Tensor
    transition: Tensor
    text: Tensor
    settings: FrozenSettings

    @property
    def p_clean(self) -> Tensor:
        """Probability that the label is right: (N,), in [0, 1]."""
        return clean_probability(self.margins)

    @property
    def is_clean(self) -> Tensor:
        """Which labels are kept: (N,), bool."""
        return is_clean(self.margins)

    def selection(self, label_quality: Tensor) -> Selection:
        """Verdicts with the label quality (N,) that is given."""
        return Selection(
            is_clean=self.is_clean.cpu().numpy(),
            label_quality=label_quality.double().cpu().numpy(),
            predicted_labels=self.predicted_labels.cpu().numpy(),
            settings={"frozen": asdict(self.settings)},
        )


class _Scheduled:
    """An optimiser with a cosine schedule over its `num_steps` steps."""

    def __init__(self, optimizer: torch.optim.Optimizer, num_steps: int) -> None:
        self._optimizer = optimizer
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)

    def step(self) -> None:
        """Make a step and clear the gradients."""
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.schedule.step()


class FrozenTuning:
    """Trains prompts and class residuals on image features, in folds.

    Parameters
    ----------
    backbone : Backbone
    class_names : tuple of str of length K
    features : np.ndarray of shape (N, D)
        L2-normalised; float16 or float32, may be memory-mapped.
    labels : np.ndarray of shape (N,), int64
        Given labels.
    folds : np.ndarray of shape (N,), int64 in [0, F)
        Which fold judges the example. If the settings ask for no folds, there is one, which trains on all.
    n_folds : int
        F.
    settings : FrozenSettings
    seed : int
    device : str
    """

    def __init__(
        self,
        backbone: Backbone,
        class_names: tuple[str, ...],
        features: np.ndarray,
        labels: np.ndarray,
        folds: np.ndarray,
        *,
        n_folds: int,
        settings: FrozenSettings,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.settings, self._n_folds, self._folds = settings, n_folds, folds
        if not settings.is_out_of_sample:
            self._n_folds, self._folds = 1, np.zeros_like(folds)
        self._scale = backbone.logit_scale
        self._features = features
        self._device = torch.device(device)
        self._labels = torch.as_tensor(labels, device=self._device)
        self._num_classes = len(class_names)
        self._generator = torch.Generator().manual_seed(seed)
        self._prompts = SoftPrompts(backbone, class_names, n_ctx=settings.n_ctx, seed=seed, device=device)
        self._train_rows = [
            np.flatnonzero(self._folds != fold) if settings.is_out_of_sample else np.arange(len(labels))
            for fold in range(self._n_folds)
        ]
        # Folds train side by side in one tensor, so all take as many rows as the smallest.
        self._train_size = min(len(rows) for rows in self._train_rows)
        self._batch_size = minibatch_size(len(labels))
        shape = (self._n_folds, self._num_classes, features.shape[1])
        self._residual = torch.zeros(shape, device=self._device, requires_grad=True)
        self._transition = symmetric_transition(self._num_classes).to(self._device)
        self._text = torch.empty(0)
        self._is_clean = torch.ones_like(self._labels, dtype=torch.bool)
        self._pseudo_labels = self._labels.clone()

    def fit(self, epoch_end: Callable[[EpochEnd], None]) -> Scores:
        """Train for all epochs and score every example out of sample."""
        steps = math.ceil(self._train_size / self._batch_size)
        blocks = min(self.settings.text_updates_per_epoch, steps)
        residual, context = self._make_optimizers(steps, blocks)
        self._text = self._prompts.encode()
        for epoch in range(1, self.settings.epochs + 1):
            started = time.perf_counter()
            losses = torch.zeros(2, device=self._device)
            batches = self._deal_batches(steps)
            for block in np.array_split(np.arange(steps), blocks):
                losses += self._fit_block([batches[step] for step in block], residual, context)
            # The paper selects within each batch. Here a label is judged by folds that do not train on it, so the
            # selection is made for all at the end of an epoch.
            if epoch >= self.settings.warmup_epochs:
                self._select()
            epoch_end(
                EpochEnd(
                    epoch=epoch,
                    num_epochs=self.settings.epochs,
                    losses={"dp": float(losses[0]) / steps, "sim": float(losses[1]) / steps},
                    scalars={"selected_fraction": float(self._is_clean.float().mean())},
                    learning_rate=float(residual.schedule.get_last_lr()[0]),
                    examples_per_second=len(self._labels) / (time.perf_counter() - started),
                )
            )
        return self._score()

    def _make_optimizers(self, steps: int, blocks: int) -> tuple[_Scheduled, _Scheduled]:
        settings = self.settings
        residual = torch.optim.SGD(
            [self._residual],
            lr=settings.residual_learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        context = torch.optim.Adam([self._prompts.context], lr=settings.context_learning_rate)
        return _Scheduled(residual, settings.epochs * steps), _Scheduled(context, settings.epochs * blocks)

    def _fit_block(self, batches: list[np.ndarray], residual: _Scheduled, context: _Scheduled) -> Tensor:
        """Train the residuals on batches of rows (F, B) with the same text, then the contexts once."""
        text = self._text.requires_grad_()
        losses = torch.stack([self._step(rows, text, residual) for rows in batches])
        assert text.grad is not None
        # One update of the shared contexts for the mean gradient of all steps and folds of the block.
        self._prompts.backward(text.grad / (len(batches) * self._n_folds))
        context.step()
        self._text = self._prompts.encode()
        return losses.sum(0)

    def _deal_batches(self, steps: int) -> list[np.ndarray]:
        """Shuffle each fold's training rows and deal them into `steps` arrays (F, B)."""
        shuffled = np.stack(
            [
                rows[torch.randperm(len(rows), generator=self._generator).numpy()][: self._train_size]
                for rows in self._train_rows
            ]
        )
        return np.array_split(shuffled, steps, axis=1)

    def _step(self, rows: np.ndarray, text: Tensor, residual: _Scheduled) -> Tensor:
        """One gradient step of the residuals on rows (F, B); the text's gradient is only summed up."""
        images = self._images(rows)  # (F, B, D)
        index = torch.as_tensor(rows, device=self._device)
        labels, clean, pseudo = self._labels[index], self._is_clean[index], self._pseudo_labels[index]
        positive = self._positive_logits(images, text[POSITIVE], self._residual)  # (F, B, K)
        complement = complementary_labels(pseudo, self._num_classes, self._generator)
        # Of all classes: to gather text features of single labels is slower, above all backward.
        negative = self._scale * (images @ text[NEGATIVE].T)  # (F, B, K)
        # L_dp trains the negative side alone, so the positive logits are fixed in it.
        dp = dp_loss(*(self._margins(positive.detach(), negative, of) for of in (pseudo, complement))).mean(-1)  # (F,)
        sim = sim_loss(positive, labels, clean)
        (dp + sim).sum().backward()
        residual.step()
        return torch.stack([dp.detach().mean(), sim.detach().mean()])

    def _positive_logits(self, images: Tensor, text: Tensor, residual: Tensor) -> Tensor:
        """Compute l+ = s · sim(I, T+), (F, B, K)."""
        return self._scale * (images @ self._prototypes(text, residual).transpose(1, 2))

    def _prototypes(self, text: Tensor, residual: Tensor) -> Tensor:
        return F.normalize(text + residual / self._scale, dim=-1)  # (F, K, D)

    def _margins(self, positive: Tensor, negative: Tensor, labels: Tensor) -> Tensor:
        """Positive minus negative logits of `labels` (F, B)."""
        against = negative.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return margins(positive, against, labels, self._transition, cone_sine=self.settings.cone_sine)

    def _images(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self._features[rows]).to(self._device).float()

    @torch.no_grad()
    def _judge(self) -> tuple[Tensor, Tensor]:
        """Judge every given label out of sample, and learn from all verdicts how labels go wrong.

        Returns
        -------
        logits : Tensor of shape (N, K)
            Sharpened positive logits, each row from the fold that is not trained on it.
        margins : Tensor of shape (N,)
            Positive minus negative logits of the given labels; clean where > 0.
        """
        logits = torch.empty(len(self._labels), self._num_classes, device=self._device)
        negative = torch.empty(len(self._labels), device=self._device)  # logits of the given labels
        for fold in range(self._n_folds):
            residual = self._residual[fold : fold + 1]
            of_fold = np.flatnonzero(self._folds == fold)
            for piece in pieces(len(of_fold)):
                rows = of_fold[piece]
                images = self._images(rows)
                logits[rows] = self._positive_logits(images.unsqueeze(0), self._text[POSITIVE], residual)[0]
                negative[rows] = self._scale * (images * self._text[NEGATIVE][self._labels[rows]]).sum(-1)
        # A posterior that was learned from noisy labels is flatter than that of the truth.
        logits *= self.settings.sharpening
        # From uniform noise anew at each epoch: an early estimate must not bind a later one.
        self._transition = estimate_transition(
            logits,
            self._labels,
            symmetric_transition(self._num_classes).to(self._device),
            smoothing=self.settings.transition_smoothing,
            steps=self.settings.transition_steps,
        )
        return logits, margins(logits, negative, self._labels, self._transition, cone_sine=self.settings.cone_sine)

    def _select(self) -> None:
        logits, of_labels = self._judge()
        self._is_clean = is_clean(of_labels)
        self._pseudo_labels = pseudo_labels(self._labels, self._is_clean, logits)

    @torch.no_grad()
    def _score(self) -> Scores:
        logits, of_labels = self._judge()
        positive = F.normalize(self._prototypes(self._text[POSITIVE], self._residual).mean(0), dim=-1)
        return Scores(
            margins=of_labels,
            posterior=logits.softmax(-1).gather(1, self._labels.unsqueeze(1)).squeeze(1),
            predicted_labels=logits.argmax(-1),
            transition=self._transition,
            text=torch.stack([positive, self._text[NEGATIVE]]),
            settings=self.settings,
        )
