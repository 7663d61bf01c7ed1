"""Tunings that train the image encoder: DeFT as published, with prompts and encoder learned together.

DeFT's side of the training loop (`deft_plugin.training.loop`): which loss a batch has, what is noted of each example,
and the verdicts at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from deft_plugin.compute.workers import Workers
from deft_plugin.deft.losses import complementary_labels
from deft_plugin.deft.prompts import SoftPrompts
from deft_plugin.deft.step import DeftStep, StepResult
from deft_plugin.deft.verdicts import clean_probability
from deft_plugin.runs.run import Run
from deft_plugin.settings import FinetuneSettings
from deft_plugin.training.batches import keyed_generator
from deft_plugin.training.loop import Batch, TrainingLoop
from deft_plugin.training.views import Views
from deft_plugin.tuning.tunings import EncoderTuning
from deft_plugin.types import EpochEnd

_MARGIN, _IS_CLEAN, _PREDICTED = range(3)
_DP, _SIM, _SELECTED, _CLEAN = range(4)


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What the detector says of every example.

    Attributes
    ----------
    p_clean : Tensor of shape (N,)
    is_clean : Tensor of shape (N,), bool
        p_clean > 0.5, and with `is_real_noise` also the class with the highest p_clean.
    predicted_labels : Tensor of shape (N,), int64
    """

    p_clean: Tensor
    is_clean: Tensor
    predicted_labels: Tensor


class Finetuning:
    """Trains prompts and an encoder tuning on a run's images, and judges their labels; the loop's trainee.

    Parameters
    ----------
    run : Run
        With images, all readable.
    tuning : EncoderTuning
        Put into the run's backbone already.
    settings : FinetuneSettings
    centre : Tensor of shape (D,), optional
        Mean image feature, for a backbone without a cone.
    checkpoint : Path, optional
        File to go on from, and to write to.

    Attributes
    ----------
    trained, optimizers, seen
        See `deft_plugin.training.loop.Trainee`. ``seen["table"]`` (3, N) has margin, verdict and predicted class of
        each example; ``seen["sums"]`` (4,) L_dp, L_sim, examples that L_sim was learned from, examples judged clean.
    """

    def __init__(
        self,
        run: Run,
        tuning: EncoderTuning,
        *,
        settings: FinetuneSettings,
        centre: Tensor | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        backbone, images = run.backbone, run.images
        assert backbone is not None
        assert images is not None
        self._backbone, self._settings, self._seed, self._device = backbone, settings, run.seed, run.device
        self._workers = run.workers or Workers()
        self._labels = torch.as_tensor(run.labels)
        self._complement = self._labels
        self._num_classes = run.num_classes
        self.prompts = SoftPrompts(backbone, run.class_names, n_ctx=settings.n_ctx, seed=run.seed, device=run.device)
        self.step = DeftStep(backbone, self.prompts, settings=settings, device=run.device, centre=centre)
        self.trained: Mapping[str, Tensor] = {**tuning.parameters(), "context": self.prompts.context}
        self.optimizers: Sequence[Optimizer] = _make_optimizers(tuning, self.prompts.context, settings)
        self.seen = {
            "table": torch.zeros(3, len(run.labels), dtype=torch.float64),
            "sums": torch.zeros(4, dtype=torch.float64),
        }
        self._views = Views(images, backbone.preprocess, seed=run.seed, device=run.device)
        self._loop = TrainingLoop(
            self,
            self._views,
            settings=settings,
            seed=run.seed,
            device=run.device,
            workers=self._workers,
            checkpoint=checkpoint,
        )

    @property
    def num_trainable(self) -> int:
        """Numbers that are trained: contexts and encoder tuning."""
        return sum(tensor.numel() for tensor in self.trained.values())

    def fit(self, epoch_end: Callable[[EpochEnd], None]) -> Verdicts:
        """Train for all epochs, from the last checkpoint on if there is one, and judge every example."""
        self._backbone.set_gradient_checkpointing(enable=self._settings.gradient_checkpointing)
        try:
            self._loop.run(epoch_end)
        finally:
            self._backbone.set_gradient_checkpointing(enable=False)
        # The authors collect the final selection while they train for the last time, so after it nothing is judged.
        table = self.seen["table"] if self._settings.protocol == "faithful" else self._judge()
        return _verdicts(self._workers.sum(table))

    def begin_epoch(self, epoch: int) -> None:
        """Draw a complementary label for each example."""
        generator = keyed_generator(self._seed, "complement", epoch)
        self._complement = complementary_labels(self._labels, self._num_classes, generator)

    def loss(self, batch: Batch) -> Tensor | None:
        """L_dp, the mean over the batch, plus L_sim, the mean over what was selected in it in all processes."""
        result = None
        if len(batch.share):
            labels, complement = (of[batch.share].to(self._device) for of in (self._labels, self._complement))
            is_warmup = batch.epoch <= self._settings.warmup_epochs
            result = self.step(batch.pixels, labels, complement, is_warmup=is_warmup)
        selected = torch.zeros((), device=self._device) if result is None else result.selected.sum().float()
        # L_sim is a mean over what was selected in the whole batch, which only all processes together know. A batch
        # without any gives NaN in the authors' code; here it gives 0.
        num_selected = self._workers.sum(selected).clamp(min=1)
        if result is None:
            return None
        self._note(batch.share, result)
        return result.dp.sum() / len(batch.rows) + result.sim.sum() / num_selected

    def report(self, seen: Mapping[str, Tensor]) -> tuple[dict[str, float], dict[str, float]]:
        """Mean losses, and the share of examples whose label is kept."""
        sums, size = seen["sums"], len(self._labels)
        losses = {"dp": float(sums[_DP]) / size, "sim": float(sums[_SIM]) / max(float(sums[_SELECTED]), 1)}
        return losses, {"selected_fraction": float(sums[_CLEAN]) / size}

    def _note(self, rows: Tensor, result: StepResult) -> None:
        of_example = (result.margins, result.is_clean, result.predicted)
        self.seen["table"][:, rows] = torch.stack([value.double() for value in of_example]).cpu()
        totals = (result.dp, result.sim, result.selected, result.is_clean)
        self.seen["sums"] += torch.stack([value.detach().double().sum() for value in totals]).cpu()

    @torch.no_grad()
    def _judge(self) -> Tensor:
        """Judge the clean view of this process's examples: a table (3, N), 0 for those of others."""
        text = self.prompts.encode()
        table = torch.zeros_like(self.seen["table"])
        rows = torch.arange(self._workers.rank, len(self._labels), self._workers.size)
        # Nothing is learned here: examples are dealt to processes by row, whatever batches they were trained in.
        pieces = rows.split(self._settings.batch_size) if len(rows) else ()
        for piece, pixels in zip(pieces, self._views.clean(pieces), strict=True):
            margins, clean, predicted = self.step.judge(pixels, self._labels[piece].to(self._device), text)
            table[:, piece] = torch.stack([margins.double(), clean.double(), predicted.double()]).cpu()
        return table


def _make_optimizers(tuning: EncoderTuning, context: Tensor, settings: FinetuneSettings) -> list[Optimizer]:
    """SGD for the contexts, and for an encoder tuning that wants it; else AdamW for the encoder."""
    rate = settings.encoder_learning_rate or tuning.learning_rate
    groups: list[dict[str, Any]] = [{"params": [context], "lr": settings.learning_rate}]
    encoder: dict[str, Any] = {"params": list(tuning.parameters().values()), "lr": rate}
    others: list[Optimizer] = []
    if tuning.optimizer == "sgd":
        groups.append(encoder)
    else:
        others.append(torch.optim.AdamW([encoder], weight_decay=settings.weight_decay))
    return [torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay), *others]


def _verdicts(table: Tensor) -> Verdicts:
    return Verdicts(
        p_clean=clean_probability(table[_MARGIN]),
        is_clean=table[_IS_CLEAN].bool(),
        predicted_labels=table[_PREDICTED].long(),
    )
