"""Optimisers of a training run: their learning rates by epoch, and their state as tensors for a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from deft_plugin.errors import InputError
from deft_plugin.settings import Schedule

_PREFIX = "optimizer"


def learning_rate_factor(schedule: Schedule, epoch: int, num_epochs: int) -> float:
    """Factor on the learning rate in an epoch; it follows from the epoch's number alone.

    Parameters
    ----------
    schedule : "cosine" or "constant"
        A cosine falls from 1 towards 0, stepped per epoch as in the authors' code.
    epoch : int
        Counts from 1.
    num_epochs : int

    Examples
    --------
    >>> [round(learning_rate_factor("cosine", epoch, 4), 3) for epoch in (1, 2, 3, 4)]
    [1.0, 0.854, 0.5, 0.146]
    >>> learning_rate_factor("constant", 3, 4)
    1.0
    """
    return 0.5 * (1 + math.cos(math.pi * (epoch - 1) / num_epochs)) if schedule == "cosine" else 1.0


def remember_rates(optimizers: Sequence[Optimizer]) -> None:
    """Keep each group's learning rate as the one that a schedule scales."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]


def scale_rates(optimizers: Sequence[Optimizer], factor: float) -> None:
    """Set the learning rate of every group to `factor` times what `remember_rates` has kept.

    Parameters
    ----------
    optimizers : sequence of Optimizer
    factor : float
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


def state_tensors(optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Momentum and the like of all parameters, by a name that says where it belongs."""
    return {
        f"{_PREFIX}/{index}/{number}/{slot}": torch.as_tensor(value)
        for index, optimizer in enumerate(optimizers)
        for number, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
        if value is not None
    }


def check_state_tensors(optimizers: Sequence[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Check that what `state_tensors` gave belongs to these optimizers; other tensors are passed over.

    Parameters
    ----------
    optimizers : sequence of Optimizer
    tensors : mapping of str to Tensor

    Raises
    ------
    InputError
    """
    shapes = {
        f"{_PREFIX}/{index}/{number}": parameter.shape
        for index, optimizer in enumerate(optimizers)
        for number, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"])
    }
    for name, tensor in tensors.items():
        place, _, _slot = name.rpartition("/")
        if name.startswith(f"{_PREFIX}/") and (place not in shapes or tensor.shape not in (shapes[place], ())):
            raise InputError(f"Expected the state of this run's optimizers, but got {name} of {tuple(tensor.shape)}.")


def load_state_tensors(optimizers: Sequence[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `state_tensors` gave; other tensors are passed over.

    Parameters
    ----------
    optimizers : sequence of Optimizer
    tensors : mapping of str to Tensor
    """
    slots: dict[int, dict[int, dict[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        prefix, *place = name.split("/")
        if prefix == _PREFIX:
            index, number, slot = place
            slots.setdefault(int(index), {}).setdefault(int(number), {})[slot] = tensor
    for index, optimizer in enumerate(optimizers):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots.get(index, {})})
