"""Which number format the encoders run in on a device."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_forced: ContextVar[torch.dtype | None] = ContextVar("forced precision", default=None)


def compute_dtype(device: str) -> torch.dtype:
    """Pick the fastest format that the device computes natively; weights and features stay float32.

    Returns
    -------
    torch.dtype
        bfloat16 on CUDA devices and CPUs that have it, float16 on older CUDA devices, float32 elsewhere; or
        what `precision` asks for.
    """
    if (forced := _forced.get()) is not None:
        return forced
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if kind == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


@contextmanager
def precision(dtype: torch.dtype) -> Generator[None]:
    """Compute in `dtype` inside, whatever the device would rather have.

    Examples
    --------
    >>> with precision(torch.float32):
    ...     compute_dtype("cpu")
    torch.float32
    """
    token = _forced.set(dtype)
    try:
        yield
    finally:
        _forced.reset(token)


def autocast(device: str) -> torch.autocast:
    """Run what is inside in `compute_dtype`."""
    dtype = compute_dtype(device)
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32)


def pick_device(device: str) -> str:
    """Resolve "auto" to CUDA, MPS or CPU, whichever comes first.

    Examples
    --------
    >>> pick_device("cpu")
    'cpu'
    """
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
