"""Tunings that train the image encoder: DeFT as published, with prompts and encoder learned together.

Nothing that is random depends on what was drawn before: the order of an epoch, the complementary labels and the view
of each image follow from seed, epoch and row alone. So a run that was killed goes on to the same result, and several
processes see the batches that one would see.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deft_plugin.compute.checkpoints import load_tensors, save_tensors
from deft_plugin.compute.precision import compute_dtype
from deft_plugin.compute.workers import Workers
from deft_plugin.data.sources import ImageSource
from deft_plugin.deft import losses as functional
from deft_plugin.deft.prompts import SoftPrompts
from deft_plugin.deft.step import DeftStep
from deft_plugin.settings import FinetuneSettings
from deft_plugin.training.augment import augment_image
from deft_plugin.tuning.tunings import EncoderTuning
from deft_plugin.types import Backbone, EpochEnd


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


def epoch_batches(num_examples: int, batch_size: int, *, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """Rows (B,) of each batch of an epoch, which counts from 1; the last batch may be smaller.

    Examples
    --------
    >>> [len(rows) for rows in epoch_batches(10, 4, seed=0, epoch=1)]
    [4, 4, 2]
    """
    order = torch.randperm(num_examples, generator=_generator(seed, "order", epoch))
    return order.split(batch_size)


class Finetuning:
    """Trains prompts and an encoder tuning on images, and judges their labels.

    Parameters
    ----------
    backbone : Backbone
        On `device` already.
    tuning : EncoderTuning
        Put into `backbone` already.
    class_names : tuple of str of length K
    images : ImageSource of length N
        All readable.
    labels : np.ndarray of shape (N,), int64
        Given labels.
    settings : FinetuneSettings
    seed : int
    device : str
    workers : Workers
    centre : Tensor of shape (D,), optional
        Mean image feature, for a backbone without a cone.
    checkpoint : Path, optional
        File to go on from, and to write to.
    """

    def __init__(
        self,
        backbone: Backbone,
        tuning: EncoderTuning,
        class_names: tuple[str, ...],
        images: ImageSource,
        labels: np.ndarray,
        *,
        settings: FinetuneSettings,
        seed: int,
        device: str = "cpu",
        workers: Workers | None = None,
        centre: Tensor | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self.settings, self._seed, self._device = settings, seed, device
        self._workers = workers or Workers()
        self._images, self._backbone = images, backbone
        self._labels = torch.as_tensor(labels)
        self._num_classes = len(class_names)
        self.prompts = SoftPrompts(backbone, class_names, n_ctx=settings.n_ctx, seed=seed, device=device)
        self._trained: dict[str, Tensor] = {**tuning.parameters(), "context": self.prompts.context}
        self._optimizers = _make_optimizers(tuning, self.prompts.context, settings)
        self._scaler = torch.amp.GradScaler(torch.device(device).type, enabled=compute_dtype(device) == torch.float16)
        self.step = DeftStep(
            backbone,
            self.prompts,
            device=device,
            centre=centre,
            is_faithful=settings.protocol == "faithful",
            is_real_noise=settings.is_real_noise,
        )
        self._checkpoint = checkpoint
        self._progress = _Progress.at_start(len(labels))

    @property
    def num_trainable(self) -> int:
        """Numbers that are trained: contexts and encoder tuning."""
        return sum(tensor.numel() for tensor in self._trained.values())

    def fit(self, epoch_end: Callable[[EpochEnd], None]) -> Verdicts:
        """Train for all epochs, from the last checkpoint on if there is one, and judge every example."""
        self._backbone.set_gradient_checkpointing(enable=self.settings.gradient_checkpointing)
        try:
            self._train(epoch_end)
        finally:
            self._backbone.set_gradient_checkpointing(enable=False)
        return self._verdicts_in_training() if self.settings.protocol == "faithful" else self._judge()

    def _train(self, epoch_end: Callable[[EpochEnd], None]) -> None:
        if self._checkpoint and self._checkpoint.is_file():
            self._resume(self._checkpoint)
        for epoch in range(self._progress.epoch, self.settings.epochs + 1):
            self._set_learning_rates(epoch)
            generator = _generator(self._seed, "complement", epoch)
            complement = functional.complementary_labels(self._labels, self._num_classes, generator)
            started, step = time.perf_counter(), self._progress.step
            for rows, pixels in self._batches(epoch, step):
                self._fit_batch(rows, pixels, complement, is_warmup=epoch <= self.settings.warmup_epochs)
                step += 1
                self._progress.step = step
                if step % self.settings.checkpoint_steps == 0:
                    self._save()
            sums = self._workers.sum(self._progress.sums)
            self._progress.end_epoch(keep_table=epoch == self.settings.epochs)
            self._save()
            epoch_end(self._event(epoch, sums, time.perf_counter() - started))

    def _fit_batch(self, rows: Tensor, pixels: Tensor, complement: Tensor, *, is_warmup: bool) -> None:
        """One step on this process's share of a batch."""
        share = rows[self._workers.rank :: self._workers.size]
        result = None
        if len(share):
            labels = self._labels[share].to(self._device)
            result = self.step(pixels, labels, complement[share].to(self._device), is_warmup=is_warmup)
        selected = torch.zeros((), device=self._device) if result is None else result.selected.sum().float()
        num_selected = self._workers.sum(selected).clamp(min=1)
        if result is not None:
            loss = result.dp.sum() / len(rows) + result.sim.sum() / num_selected
            self._scaler.scale(loss).backward()
            self._progress.add(share, result)
        self._workers.sum_gradients(self._trained.values())
        self._update()

    def _update(self) -> None:
        if self.settings.max_grad_norm is not None:
            for optimizer in self._optimizers:
                self._scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self._trained.values(), self.settings.max_grad_norm)
        for optimizer in self._optimizers:
            self._scaler.step(optimizer)
            optimizer.zero_grad()
        self._scaler.update()

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of each batch of an epoch from the step `first` on, with the pixels of this process's share."""
        batches = epoch_batches(len(self._labels), self.settings.batch_size, seed=self._seed, epoch=epoch)[first:]
        shares = [[(epoch, int(row)) for row in rows[self._workers.rank :: self._workers.size]] for rows in batches]
        loaded = self._load(shares, augmented=True)
        for rows, share in zip(batches, shares, strict=True):
            yield rows, next(loaded) if share else torch.empty(0)

    def _load(self, shares: list[list[tuple[int, int]]], *, augmented: bool) -> Iterator[Tensor]:
        """Pixels (B, 3, H, W) of the shares that are not empty."""
        from deft_plugin.runs.features import num_workers

        loader = DataLoader(
            _Views(self._backbone, self._images, self._seed, augmented=augmented),
            batch_sampler=[share for share in shares if share],
            num_workers=num_workers(self._device, len(self._images)),
            pin_memory=torch.device(self._device).type == "cuda",
        )
        for pixels in loader:
            yield pixels.to(self._device, non_blocking=True)

    @torch.no_grad()
    def _judge(self) -> Verdicts:
        """Judge the clean view of every example, each by one process."""
        text = self.prompts.encode()
        size = len(self._labels)
        table = torch.zeros(3, size, dtype=torch.float64)
        rows = torch.arange(self._workers.rank, size, self._workers.size)
        pieces = rows.split(self.settings.batch_size) if len(rows) else ()
        for piece, pixels in zip(
            pieces, self._load([[(0, int(row)) for row in piece] for piece in pieces], augmented=False), strict=True
        ):
            margins, is_clean, predicted = self.step.judge(pixels, self._labels[piece].to(self._device), text)
            table[:, piece] = torch.stack([margins.double(), is_clean.double(), predicted.double()]).cpu()
        return _verdicts(self._workers.sum(table))

    def _verdicts_in_training(self) -> Verdicts:
        return _verdicts(self._workers.sum(self._progress.table))

    def _set_learning_rates(self, epoch: int) -> None:
        """Cosine over the epochs; the rate of an epoch follows from its number alone."""
        factor = 0.5 * (1 + np.cos(np.pi * (epoch - 1) / self.settings.epochs))
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = float(group["initial_lr"] * factor)

    def _event(self, epoch: int, sums: Tensor, seconds: float) -> EpochEnd:
        size = len(self._labels)
        return EpochEnd(
            epoch=epoch,
            num_epochs=self.settings.epochs,
            losses={"dp": float(sums[0]) / size, "sim": float(sums[1]) / max(float(sums[2]), 1)},
            selected_fraction=float(sums[3]) / size,
            learning_rate=float(self._optimizers[0].param_groups[0]["lr"]),
            examples_per_second=size / seconds,
        )

    def _save(self) -> None:
        """Write a checkpoint; every process brings what it has seen of the epoch."""
        if self._checkpoint is None:
            return
        progress = self._progress
        table = self._workers.sum(progress.table)
        sums = self._workers.sum(progress.sums)
        if not self._workers.is_main:
            return
        tensors = {f"trained/{name}": tensor for name, tensor in self._trained.items()}
        unfinished = self._optimizers if progress.epoch <= self.settings.epochs else []
        for index, optimizer in enumerate(unfinished):
            for number, slots in optimizer.state_dict()["state"].items():
                for slot, value in slots.items():
                    if value is not None:
                        tensors[f"optimizer/{index}/{number}/{slot}"] = torch.as_tensor(value)
        tensors |= {"table": table, "sums": sums}
        save_tensors(self._checkpoint, tensors, {"epoch": progress.epoch, "step": progress.step})

    def _resume(self, checkpoint: Path) -> None:
        tensors, state = load_tensors(checkpoint)
        with torch.no_grad():
            for name, tensor in self._trained.items():
                tensor.copy_(tensors[f"trained/{name}"])
        slots: dict[int, dict[int, dict[str, Tensor]]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer/"):
                _, index, number, slot = name.split("/")
                slots.setdefault(int(index), {}).setdefault(int(number), {})[slot] = tensor
        for index, optimizer in enumerate(self._optimizers):
            optimizer.load_state_dict({**optimizer.state_dict(), "state": slots.get(index, {})})
        self._progress = _Progress(
            epoch=state["epoch"], step=state["step"], table=tensors["table"], sums=tensors["sums"]
        )
        if not self._workers.is_main:  # what was summed up counts once
            self._progress.table.zero_()
            self._progress.sums.zero_()


@dataclass(kw_only=True)
class _Progress:
    """How far a run is, and what this process has seen of the current epoch.

    Attributes
    ----------
    epoch, step : int
        The epoch that is under way, and how many of its steps are done.
    table : Tensor of shape (3, N), float64
        Margin, verdict and predicted class of each example that this process has trained on in the epoch; else 0.
    sums : Tensor of shape (4,), float64
        Of the epoch: L_dp, L_sim, examples that L_sim was learned from, examples that were judged clean.
    """

    epoch: int
    step: int
    table: Tensor
    sums: Tensor

    @classmethod
    def at_start(cls, size: int) -> _Progress:
        return cls(
            epoch=1,
            step=0,
            table=torch.zeros(3, size, dtype=torch.float64),
            sums=torch.zeros(4, dtype=torch.float64),
        )

    def add(self, rows: Tensor, result: Any) -> None:
        seen = (result.margins, result.is_clean, result.predicted)
        self.table[:, rows] = torch.stack([value.double() for value in seen]).cpu()
        totals = (result.dp, result.sim, result.selected, result.is_clean)
        self.sums += torch.stack([value.detach().double().sum() for value in totals]).cpu()

    def end_epoch(self, *, keep_table: bool) -> None:
        self.epoch, self.step = self.epoch + 1, 0
        self.sums = torch.zeros_like(self.sums)
        if not keep_table:
            self.table = torch.zeros_like(self.table)


class _Views(Dataset[Tensor]):
    """Preprocessed images by (epoch, row), augmented by a generator of their own."""

    def __init__(self, backbone: Backbone, images: ImageSource, seed: int, *, augmented: bool) -> None:
        self._preprocess, self._images = backbone.preprocess, images
        self._seed, self._augmented = seed, augmented

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        epoch, row = key
        image = self._images.load(row)
        if self._augmented:
            image = augment_image(image, np.random.default_rng((self._seed, epoch, row)))
        return self._preprocess(image)


def _make_optimizers(tuning: EncoderTuning, context: Tensor, settings: FinetuneSettings) -> list[torch.optim.Optimizer]:
    """SGD for the contexts, and for an encoder tuning that wants it; else AdamW for the encoder."""
    rate = settings.encoder_learning_rate or tuning.learning_rate
    groups: list[dict[str, Any]] = [{"params": [context], "lr": settings.learning_rate}]
    encoder = {"params": list(tuning.parameters().values()), "lr": rate}
    optimizers: list[torch.optim.Optimizer] = []
    if tuning.optimizer == "sgd":
        groups.append(encoder)
    else:
        optimizers.append(torch.optim.AdamW([encoder], weight_decay=settings.weight_decay))
    sgd = torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)
    optimizers.insert(0, sgd)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _generator(*key: object) -> torch.Generator:
    """Make a generator that depends on the key alone."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def _verdicts(table: Tensor) -> Verdicts:
    margins, is_clean, predicted = table
    return Verdicts(p_clean=torch.sigmoid(margins), is_clean=is_clean > 0.5, predicted_labels=predicted.long())
