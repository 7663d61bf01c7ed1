"""The training loop: epochs of seeded batches of views, over any number of processes, with checkpoints.

What is trained, and by which loss, is a `Trainee`: DeFT's prompts with an encoder tuning, or a classifier. The loop
knows neither. Nothing that is random depends on what was drawn before, so a run that was killed goes on from its last
checkpoint to the same result, and several processes see the batches that one would see.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from deft_plugin.compute.checkpoints import load_tensors, save_tensors
from deft_plugin.compute.precision import compute_dtype
from deft_plugin.compute.workers import Workers
from deft_plugin.errors import InputError
from deft_plugin.settings import LoopSettings
from deft_plugin.training.batches import epoch_batches
from deft_plugin.training.optimizers import (
    check_state_tensors,
    learning_rate_factor,
    load_state_tensors,
    remember_rates,
    scale_rates,
    state_tensors,
)
from deft_plugin.training.views import Views
from deft_plugin.types import EpochEnd

_TRAINED, _SEEN = "trained", "seen"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's examples.

    Attributes
    ----------
    epoch : int
        Counts from 1.
    rows : Tensor of shape (B,), int64
        Of the whole batch, the same in all processes.
    share : Tensor of shape (b,), int64
        Those of them that this process computes; may be empty.
    pixels : Tensor of shape (b, 3, H, W)
        Their training views, on the device.
    """

    epoch: int
    rows: Tensor
    share: Tensor
    pixels: Tensor


class Trainee(Protocol):
    """What a loop trains.

    Attributes
    ----------
    trained : mapping of str to Tensor
        All that learns, by name.
    optimizers : sequence of Optimizer
        Over these tensors; learning rates are those of the first epoch.
    seen : dict of str to Tensor
        What this process has seen of the epoch that is under way: numbers that start from 0 and add up over
        processes, such as sums of losses, or a column for each example that stays 0 for those that other processes
        compute. On the CPU. The loop sets them to 0 when an epoch starts, and keeps them in checkpoints.
    """

    trained: Mapping[str, Tensor]
    optimizers: Sequence[Optimizer]
    seen: dict[str, Tensor]

    def begin_epoch(self, epoch: int) -> None:
        """Make ready for an epoch, which may go on in its middle."""
        ...

    def loss(self, batch: Batch) -> Tensor | None:
        """Loss of this process's share; the losses of all processes add up to that of the batch.

        All processes call it at every step, so it may sum over them. None without examples.
        """
        ...

    def report(self, seen: Mapping[str, Tensor]) -> tuple[dict[str, float], dict[str, float]]:
        """Give losses and other scalars of an epoch from `seen`, summed over all processes."""
        ...


class TrainingLoop:
    """Trains a trainee on images.

    Parameters
    ----------
    trainee : Trainee
    views : Views of N images
    settings : LoopSettings
    seed : int
    device : str
    workers : Workers
        Processes that share each batch.
    checkpoint : Path, optional
        File to go on from, and to write to.
    """

    def __init__(
        self,
        trainee: Trainee,
        views: Views,
        *,
        settings: LoopSettings,
        seed: int,
        device: str = "cpu",
        workers: Workers | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        self._trainee, self._views, self._settings, self._seed = trainee, views, settings, seed
        self._workers, self._checkpoint = workers or Workers(), checkpoint
        # float16 has too few small numbers for gradients; the other formats leave the scaler idle.
        self._scaler = torch.amp.GradScaler(torch.device(device).type, enabled=compute_dtype(device) == torch.float16)
        self._epoch, self._step = 1, 0  # what comes next
        # Rates follow from the epoch alone, so a checkpoint need not keep where a schedule stands.
        remember_rates(trainee.optimizers)

    def run(self, epoch_end: Callable[[EpochEnd], None]) -> None:
        """Train for all epochs, from the last checkpoint on if there is one.

        Raises
        ------
        InputError
            If a checkpoint cannot be written.

        Warns
        -----
        UserWarning
            If the checkpoint is damaged; training begins anew.
        """
        found = self._read(self._checkpoint) if self._checkpoint else None
        if self._workers.agree(found is not None) and found:
            self._resume(*found)
        while self._epoch <= self._settings.epochs:
            epoch_end(self._run_epoch(self._epoch))

    def _run_epoch(self, epoch: int) -> EpochEnd:
        trainee, started, size = self._trainee, time.perf_counter(), len(self._views)
        factor = learning_rate_factor(self._settings.schedule, epoch, self._settings.epochs)
        scale_rates(trainee.optimizers, factor)
        trainee.begin_epoch(epoch)
        # Not at the end of the epoch: the last epoch's is read when the loop is done.
        if self._step == 0:
            _clear(trainee.seen)
        for batch in self._batches(epoch, self._step):
            self._fit(batch)
            self._step += 1
            if self._checkpoint and self._step % self._settings.checkpoint_steps == 0:
                self._save(self._checkpoint, self._seen_by_all())
        seen = self._seen_by_all()
        losses, scalars = trainee.report(seen)
        self._epoch, self._step = epoch + 1, 0
        if self._checkpoint:
            self._save(self._checkpoint, seen)
        return EpochEnd(
            epoch=epoch,
            num_epochs=self._settings.epochs,
            losses=losses,
            scalars=scalars,
            learning_rate=float(trainee.optimizers[0].param_groups[0]["lr"]),
            examples_per_second=size / (time.perf_counter() - started),
        )

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """Batches of an epoch from the step `first` on."""
        size, rank = self._workers.size, self._workers.rank
        batches = epoch_batches(len(self._views), self._settings.batch_size, seed=self._seed, epoch=epoch)[first:]
        shares = [rows[rank::size] for rows in batches]
        pixels = self._views.training([share for share in shares if len(share)], epoch)
        for rows, share in zip(batches, shares, strict=True):
            # A last batch smaller than the number of processes leaves some of them without an example.
            yield Batch(epoch=epoch, rows=rows, share=share, pixels=next(pixels) if len(share) else torch.empty(0))

    def _fit(self, batch: Batch) -> None:
        if (loss := self._trainee.loss(batch)) is not None:
            self._scaler.scale(loss).backward()
        # Losses add up to that of the batch, and so do gradients: a sum, not a mean over processes.
        self._workers.sum_gradients(self._trainee.trained.values())
        if self._settings.max_grad_norm is not None:
            for optimizer in self._trainee.optimizers:
                self._scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self._trainee.trained.values(), self._settings.max_grad_norm)
        for optimizer in self._trainee.optimizers:
            self._scaler.step(optimizer)
            optimizer.zero_grad()
        self._scaler.update()

    def _seen_by_all(self) -> dict[str, Tensor]:
        """Sum up what each process has seen of the epoch."""
        return {name: self._workers.sum(value) for name, value in self._trainee.seen.items()}

    def _save(self, checkpoint: Path, seen: Mapping[str, Tensor]) -> None:
        """Write a checkpoint with what all processes have seen of the epoch; one of them writes."""
        if not self._workers.is_main:
            return
        trainee = self._trainee
        tensors = {f"{_SEEN}/{name}": value for name, value in seen.items()}
        tensors |= {f"{_TRAINED}/{name}": tensor for name, tensor in trainee.trained.items()}
        if self._epoch <= self._settings.epochs:  # a finished run needs no momentum
            tensors |= state_tensors(trainee.optimizers)
        save_tensors(checkpoint, tensors, {"epoch": self._epoch, "step": self._step})

    def _read(self, checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, int]] | None:
        """Read a checkpoint that fits this run; None if there is none, or if it is damaged, which is said."""
        if not os.path.lexists(checkpoint):
            return None
        try:
            tensors, state = load_tensors(checkpoint)
            self._check(tensors, state)
        except InputError as error:
            warnings.warn(f"The checkpoint {checkpoint} is damaged: training begins anew. {error}", stacklevel=2)
            if self._workers.is_main and checkpoint.is_dir():
                shutil.rmtree(checkpoint)
            return None
        return tensors, state

    def _check(self, tensors: Mapping[str, Tensor], state: Mapping[str, object]) -> None:
        expected = {f"{_TRAINED}/{name}": tensor for name, tensor in self._trainee.trained.items()}
        expected |= {f"{_SEEN}/{name}": tensor for name, tensor in self._trainee.seen.items()}
        for name, tensor in expected.items():
            found = tensors.get(name)
            if found is None or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
                kind = "none" if found is None else f"{found.dtype} of shape {tuple(found.shape)}"
                raise InputError(f"Expected {name}, {tensor.dtype} of shape {tuple(tensor.shape)}, but got {kind}.")
        if not all(type(state.get(name)) is int for name in ("epoch", "step")):
            raise InputError(f"Expected an epoch and a step, but got {state}.")
        check_state_tensors(self._trainee.optimizers, tensors)

    def _resume(self, tensors: Mapping[str, Tensor], state: Mapping[str, int]) -> None:
        with torch.no_grad():
            for name, tensor in self._trainee.trained.items():
                tensor.copy_(tensors[f"{_TRAINED}/{name}"])
            for name, value in self._trainee.seen.items():
                value.copy_(tensors[f"{_SEEN}/{name}"])
        load_state_tensors(self._trainee.optimizers, tensors)
        self._epoch, self._step = state["epoch"], state["step"]
        if not self._workers.is_main:  # what was summed up counts once
            _clear(self._trainee.seen)


def _clear(tensors: Mapping[str, Tensor]) -> None:
    for tensor in tensors.values():
        tensor.zero_()
