"""The processes that share a run: one, or those that ``accelerate launch`` has started."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from deft_plugin.compute.precision import pick_device
from deft_plugin.errors import InputError


class Workers:
    """One process among those that share the run. A single one costs nothing.

    Parameters
    ----------
    state : accelerate.PartialState, optional
        None for a single process.
    device : str
        Of this process.

    Attributes
    ----------
    rank, size : int
    device : str
    """

    def __init__(self, state: Any = None, device: str = "cpu") -> None:
        self._state, self.device = state, device
        self.rank = 0 if state is None else int(state.process_index)
        self.size = 1 if state is None else int(state.num_processes)

    @property
    def is_main(self) -> bool:
        """True in one process only: the one that writes and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all have come here."""
        if self.size > 1:
            self._state.wait_for_everyone()

    def agree(self, answer: bool) -> bool:
        """Give the answer that all processes have; False if they differ, as when one has just written a file."""
        return bool(self.sum(torch.tensor(float(answer))) == self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes; it comes back on its own device."""
        if self.size == 1:
            return tensor
        from accelerate.utils import reduce

        summed: Any = reduce(tensor.to(self._state.device), "sum")
        return summed.to(tensor.device)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter | Tensor]) -> None:
        """Sum the gradients of all processes; one that has none counts as zero."""
        if self.size == 1:
            return
        trained = list(parameters)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([gradient.reshape(-1).to(self._state.device) for gradient in gradients])
        for parameter, summed in zip(trained, self.sum(flat).split([p.numel() for p in trained]), strict=True):
            parameter.grad = summed.reshape(parameter.shape).to(parameter.device)


@cache
def this_process(device: str = "auto") -> Workers:
    """Join the processes of ``accelerate launch``, if it has started this one.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda", "mps", ...; of several processes each has a device of its own.

    Raises
    ------
    InputError
        If there is no such device, or the variables of the environment do not say which process this is.
    """
    if (size := _variable("WORLD_SIZE", lowest=1, default=1)) == 1:
        return Workers(device=pick_device(device))
    for name in ("RANK", "LOCAL_RANK"):
        if (rank := _variable(name, lowest=0)) >= size:
            raise InputError(f"Expected {name} below WORLD_SIZE, which is {size}, but got {rank}. {_LAUNCH}")
    from accelerate import PartialState

    try:
        state = PartialState(cpu=device == "cpu")
        return Workers(state, str(state.device))
    except Exception as error:  # whatever torch says of addresses, ports and backends
        said = str(error).strip().partition("\n")[0]
        raise InputError(f"Expected to join {size} processes, but {type(error).__name__}: {said}. {_LAUNCH}") from error


_LAUNCH = "Start the processes with `accelerate launch`, or unset WORLD_SIZE."


def _variable(name: str, *, lowest: int, default: int | None = None) -> int:
    """Read a whole number from the environment."""
    text = os.environ.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= lowest):
        raise InputError(f"Expected {name} to be a whole number of at least {lowest}, but got {text!r}. {_LAUNCH}")
    return int(text)
