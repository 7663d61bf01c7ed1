"""How fast and lean a training step is, beside the plain reference step with the same weights and batch."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from deft_benchmarks.speed.memory import held_bytes
from deft_benchmarks.speed.reference_step import reference_step
from deft_plugin.backbones import OpenClipBackbone
from deft_plugin.compute import use_precision
from deft_plugin.deft import NEGATIVE, POSITIVE, DeftStep, SoftPrompts
from deft_plugin.settings import Precision
from deft_plugin.tuning import ENCODER_TUNINGS

N_CTX = 16


@dataclass(frozen=True, kw_only=True)
class StepSpeed:
    """Cost of one training step: forward, backward and update.

    Attributes
    ----------
    step : str
        "reference" or "deft".
    num_classes : int
    dtype : str
    seconds : float
        Best of all repeats.
    peak_bytes : int
        Above what was held before the step: resident memory on a CPU, allocated memory on a GPU.
    flops : int
        Counted by ``torch.utils.flop_counter``: matrix products, convolutions and attention.
    text_seconds : float, optional
        Of it in the text tower, forward and backward; measured apart. None for the reference.
    """

    step: str
    num_classes: int
    dtype: str
    seconds: float
    peak_bytes: int
    flops: int
    text_seconds: float | None


def measure_steps(
    class_counts: Sequence[int],
    *,
    architecture: str = "ViT-B-16",
    tuning: str = "vpt_deep",
    batch_size: int = 16,
    device: str = "cpu",
    repeats: int = 3,
    reference_up_to: int = 200,
    report: Callable[[StepSpeed], None],
) -> list[StepSpeed]:
    """Time steps in turns on random weights and pixels.

    Parameters
    ----------
    class_counts : sequence of int
        K; class names are the first ones of ImageNet, numbered beyond 1,000.
    reference_up_to : int
        The reference is left out for more classes: its memory grows with them.
    report : callable
        Told of each figure as soon as it is there.
    """
    found: list[StepSpeed] = []
    for num_classes in class_counts:
        bench = _Bench(architecture, tuning, num_classes, batch_size, device)
        steps: list[tuple[str, Precision, Callable[[], None]]] = [
            ("deft", "float32", bench.ours),
            ("deft", "bfloat16", bench.ours),
        ]
        if num_classes <= reference_up_to:
            steps.insert(0, ("reference", "float32", bench.reference))
        for name, dtype, run in steps:
            with use_precision(dtype):
                speed = StepSpeed(
                    step=name,
                    num_classes=num_classes,
                    dtype=dtype,
                    **_cost(run, device, repeats),
                    text_seconds=_seconds(bench.text, repeats) if name == "deft" else None,
                )
            found.append(speed)
            report(speed)
    return found


class _Bench:
    """Both steps on one model with the same weights, prompts and batch."""

    def __init__(self, architecture: str, tuning: str, num_classes: int, batch_size: int, device: str) -> None:
        import open_clip

        torch.manual_seed(0)
        self._model: Any = open_clip.create_model(architecture).to(device)
        self._backbone = OpenClipBackbone(
            self._model, _no_images, open_clip.get_tokenizer(architecture), name=architecture, fingerprint="-"
        )
        self._tuning = ENCODER_TUNINGS[tuning](self._backbone, 0)
        names = class_names(num_classes)
        self._prompts = SoftPrompts(self._backbone, names, n_ctx=N_CTX, seed=0, device=device)
        self._ids = open_clip.get_tokenizer(architecture)([f"{'a ' * N_CTX}{name}." for name in names]).to(device)
        size = self._model.visual.image_size[0]
        self._pixels = torch.randn(batch_size, 3, size, size, device=device)
        self._labels = torch.randint(num_classes, (batch_size,), device=device)
        self._complement = (self._labels + 1) % num_classes
        self._device = device
        self._step = DeftStep(self._backbone, self._prompts, device=device)
        self._trained = [*self._tuning.parameters().values(), self._prompts.context]
        self._optimizer = torch.optim.SGD(self._trained, lr=1e-4, momentum=0.9)

    def ours(self) -> None:
        result = self._step(self._pixels, self._labels, self._complement, is_warmup=False)
        loss = result.dp.mean() + result.sim.sum() / result.selected.sum().clamp(min=1)
        self._update(loss)

    def reference(self) -> None:
        tokens = self._tuning.parameters().get("visual_tokens")
        context = self._prompts.context
        result = reference_step(
            self._model, self._ids, context, self._pixels, self._labels, self._complement, visual_tokens=tokens
        )
        self._update(result.dp + result.sim)

    def text(self) -> None:
        """Do what the step does in the text tower: all positive prompts, and the negative ones that a batch needs."""
        asked = torch.cat([self._labels, self._complement]).unique()
        (self._prompts.features(POSITIVE).sum() + self._prompts.features(NEGATIVE, asked).sum()).backward()
        self._optimizer.zero_grad()

    def _update(self, loss: Tensor) -> None:
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()


def _no_images(_image: Any) -> Tensor:
    raise AssertionError("pixels are drawn at random")


def class_names(count: int) -> list[str]:
    """Give `count` class names: those of ImageNet, and numbered ones beyond."""
    from open_clip import IMAGENET_CLASSNAMES

    known = list(IMAGENET_CLASSNAMES)
    return [known[i] if i < len(known) else f"{known[i % len(known)]} {i // len(known)}" for i in range(count)]


def _cost(run: Callable[[], None], device: str, repeats: int) -> dict[str, Any]:
    """Seconds, peak memory and FLOPs; the first call warms up."""
    with FlopCounterMode(display=False) as counter:
        run()
    _give_back()
    before = held_bytes(device, reset=True)
    run()
    peak = held_bytes(device, peak=True) - before
    return {"seconds": _seconds(run, repeats), "peak_bytes": peak, "flops": counter.get_total_flops()}


def _seconds(run: Callable[[], None], repeats: int) -> float:
    """Best of `repeats`: what else runs on the machine can only add to it."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def _give_back() -> None:
    """Hand freed memory back to the system, so that it is not counted as held."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL("libc.so.6").malloc_trim(0)
