"""Which number format the encoders run in on a device."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from deft_plugin.errors import InputError

if TYPE_CHECKING:
    import torch

    from deft_plugin.settings import Precision

_asked: ContextVar[str] = ContextVar("precision", default="auto")


def compute_dtype(device: str) -> torch.dtype:
    """Pick the fastest format that the device computes by itself; weights and features stay float32.

    Returns
    -------
    torch.dtype
        bfloat16 on CUDA devices and CPUs that have it, float16 on older CUDA devices, float32 elsewhere; or
        what `precision` asks for.
    """
    import torch

    if (asked := _asked.get()) != "auto":
        return getattr(torch, asked)
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if kind == "cpu" and _has_native_bfloat16():
        return torch.bfloat16
    return torch.float32


def _has_native_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 itself.

    oneDNN says that it supports the format on every CPU with AVX-512, but emulates it on most of them, several times
    slower than float32. So x86 CPUs are asked for the instructions; an old torch that cannot ask says no. On ARM
    oneDNN looks at the instructions itself.
    """
    import platform

    import torch

    if platform.machine().lower() in ("x86_64", "amd64"):
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def use_precision(name: Precision) -> Generator[None]:
    """Compute in this format inside, whatever the device would rather have; "auto" changes nothing.

    Examples
    --------
    >>> with use_precision("float32"):
    ...     compute_dtype("cpu")
    torch.float32
    """
    token = _asked.set(_asked.get() if name == "auto" else name)
    try:
        yield
    finally:
        _asked.reset(token)


def autocast(device: str) -> torch.autocast:
    """Run what is inside in `compute_dtype`."""
    import torch

    dtype = compute_dtype(device)
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32)


def pick_device(device: str) -> str:
    """Resolve "auto" to CUDA, MPS or CPU, whichever comes first.

    Raises
    ------
    InputError
        If this machine, or this torch, has no such device.

    Examples
    --------
    >>> pick_device("cpu")
    'cpu'
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except Exception as error:  # torch raises what it likes for each kind of device
        said = str(error).strip().partition("\n")[0].partition(". ")[0].removesuffix(".")
        raise InputError(
            f"Expected a device that this machine has, such as 'cpu' or 'auto', but got {device!r}: {said}."
        ) from error
    return device
