"""Memory of this process, or of its GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch


def held_bytes(device: str, *, peak: bool = False, reset: bool = False) -> int:
    """Bytes held now, or at most since the last reset: resident memory of the process, or allocated on the GPU.

    Parameters
    ----------
    device : str
    peak : bool
        The highest since the last reset instead of now.
    reset : bool
        Begin to watch anew.
    """
    if torch.device(device).type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    key = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def watch_peak() -> Callable[[], float | None]:
    """Begin to watch the resident memory of this process.

    Returns
    -------
    callable
        Gives the highest since then in MB; None where the system does not tell, as outside Linux.
    """
    try:
        held_bytes("cpu", reset=True)
    except OSError:
        return lambda: None
    return lambda: round(held_bytes("cpu", peak=True) / 2**20, 1)
