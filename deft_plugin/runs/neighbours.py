"""Nearest neighbours: of each image, the others whose features are at the smallest angle to its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deft_plugin.compute.precision import compute_dtype

ROWS_AT_A_TIME = 1024


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The k nearest other examples of each example, nearest first.

    Attributes
    ----------
    rows : np.ndarray of shape (N, k), int64
        Never the example itself; identical images are neighbours like any other.
    similarities : np.ndarray of shape (N, k), float32 in [-1, 1]
        Cosine similarities.
    """

    rows: np.ndarray
    similarities: np.ndarray


def nearest_neighbours(features: np.ndarray, k: int, *, device: str = "cpu") -> Neighbours:
    """Find the k nearest others of each row by cosine similarity; N - 1 if there are not as many.

    All pairs are compared in the fastest number format of the device. The best of them, 1.5 k if that is not float32,
    are compared again in float32: a neighbour is missed only if k / 2 others come before it by rounding.

    Parameters
    ----------
    features : np.ndarray of shape (N, D)
        L2-normalised; float16 or float32, may be memory-mapped.
    k : int
    device : str

    Examples
    --------
    >>> features = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], np.float32)
    >>> nearest_neighbours(features, 1).rows
    array([[1],
           [0],
           [1]])
    """
    exact = torch.from_numpy(np.asarray(features)).to(device)
    rounded = exact.to(compute_dtype(device))
    k = min(k, len(exact) - 1)
    spare = 0 if rounded.dtype == torch.float32 else k // 2
    num_candidates = min(1 + k + spare, len(exact))  # an example finds itself, too
    found: list[Tensor] = []
    similarities: list[Tensor] = []
    to_all = rounded.new_empty(min(ROWS_AT_A_TIME, len(exact)), len(exact))
    for rows in torch.arange(len(exact), device=device).split(ROWS_AT_A_TIME):
        torch.mm(rounded[rows], rounded.T, out=to_all[: len(rows)])  # (B, N)
        candidates = to_all[: len(rows)].topk(num_candidates, dim=1).indices
        exactly = _compare(exact, rows, candidates).masked_fill_(candidates == rows[:, None], -torch.inf)
        nearest, order = exactly.topk(k, dim=1)
        found.append(candidates.gather(1, order))
        similarities.append(nearest.clamp_(-1, 1))
    return Neighbours(rows=torch.cat(found).cpu().numpy(), similarities=torch.cat(similarities).cpu().numpy())


def _compare(features: Tensor, rows: Tensor, candidates: Tensor) -> Tensor:
    """Similarities (B, C) of rows (B,) to their candidates (B, C), in float32."""
    pieces = [  # few rows at a time: memory that stays in the processor's cache
        features[chosen].float() @ features[own].float()[:, :, None]
        for own, chosen in zip(rows.split(32), candidates.split(32), strict=True)
    ]
    return torch.cat(pieces)[..., 0]
