"""Which examples a step sees: drawn from seed and epoch alone, never from what was drawn before."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor


def keyed_generator(*key: object) -> torch.Generator:
    """Make a generator that depends on the key alone.

    A generator that is handed on from step to step would know how many steps came before: a run that was killed and
    goes on would draw other numbers than a whole one.

    Parameters
    ----------
    *key
        JSON values, such as the seed, the name of what is drawn, and the epoch.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def epoch_batches(num_examples: int, batch_size: int, *, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """Shuffle the rows of an epoch and deal them into batches.

    Parameters
    ----------
    num_examples : int
        N.
    batch_size : int
    seed : int
    epoch : int
        Counts from 1.

    Returns
    -------
    tuple of Tensor of shape (B,), int64
        Rows of each batch; the last one may be smaller.

    Examples
    --------
    >>> [len(rows) for rows in epoch_batches(10, 4, seed=0, epoch=1)]
    [4, 4, 2]
    """
    order = torch.randperm(num_examples, generator=keyed_generator(seed, "order", epoch))
    return order.split(batch_size)


def minibatch_size(num_examples: int) -> int:
    """Batch size of a training run on features: few examples need small batches to make enough steps.

    Examples
    --------
    >>> minibatch_size(1_000), minibatch_size(50_000)
    (64, 256)
    """
    return min(256, max(64, num_examples // 128))
