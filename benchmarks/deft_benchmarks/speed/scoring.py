"""What a trained detector costs on a stream: memory over many rows, and images per second against the bare encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_benchmarks.speed.features import bare_images_per_second, speed_figures
from deft_benchmarks.speed.memory import held_bytes
from deft_plugin.data import read_image_data

if TYPE_CHECKING:
    from deft_plugin import Detector
    from deft_plugin.plugins import Plugins
    from deft_plugin.settings import RunSettings

FEATURE_DIM = 1280
NUM_CLASSES = 100
BATCH_SIZE = 1000


def measure_memory(counts: Sequence[int], *, report: Callable[[int, float, float], None]) -> list[dict[str, float]]:
    """Score a stream of random image features (1280 numbers in float16, 100 classes) and watch resident memory.

    Parameters
    ----------
    counts : sequence of int
        Rows after which to look, ascending; the stream ends behind the last.
    report : callable
        Told of rows, resident megabytes, and rows per second so far.
    """
    import datasets

    stream = datasets.IterableDataset.from_generator(_features, gen_kwargs={"count": counts[-1]})
    scored = _random_detector().add_columns(
        stream, label_column="label", feature_column="features", batch_size=BATCH_SIZE
    )
    found: list[dict[str, float]] = []
    started = time.perf_counter()
    for row, _ in enumerate(scored, start=1):
        if row in counts:
            speed = row / (time.perf_counter() - started)
            found.append(
                {"rows": row, "resident_mb": round(held_bytes("cpu") / 2**20, 1), "rows_per_second": round(speed)}
            )
            report(row, found[-1]["resident_mb"], speed)
    return found


def measure_images(data: Any, *, plugins: Plugins, settings: RunSettings) -> dict[str, Any]:
    """Train a frozen detector on the data, score them as a stream, and time the encoder alone before and after.

    Parameters
    ----------
    data : datasets.Dataset
    plugins : Plugins
    settings : RunSettings
        Model, device and batch size are used.

    Returns
    -------
    dict
        Images per second of both, and their ratio.
    """
    from deft_plugin import Deft, detect
    from deft_plugin.compute import pick_device

    model, device, batch_size = settings.model, pick_device(settings.device), settings.batch_size
    deft = Deft()
    detect(data, method=deft, model=model, device=device, plugins=plugins)
    assert deft.trained is not None
    backbone = plugins.backbones.load(model, model).to(device)
    images = read_image_data(data).images
    before = bare_images_per_second(backbone, images, device, batch_size)
    scored = deft.trained.add_columns(data.to_iterable_dataset(), batch_size=batch_size, device=device)
    rows = iter(scored.select_columns(["label_quality"]))
    next(rows)  # the model is loaded, and the first batch scored
    started = time.perf_counter()
    count = sum(1 for _ in rows) + 1 - batch_size
    stream = count / (time.perf_counter() - started)
    bare = (before + bare_images_per_second(backbone, images, device, batch_size)) / 2
    setting = {"model": model, "device": device, "batch_size": batch_size, "num_images": len(images)}
    return speed_figures(setting, "stream", stream, bare=bare)


def _features(count: int) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(0)
    some = generator.normal(size=(4096, FEATURE_DIM)).astype(np.float16)
    for row in range(count):
        yield {"features": some[row % len(some)].copy(), "label": row % NUM_CLASSES}


def _random_detector() -> Detector:
    import torch

    from deft_plugin import Detector

    generator = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(2, NUM_CLASSES, FEATURE_DIM, generator=generator), dim=-1)
    return Detector(
        model="random",
        fingerprint="-",
        class_names=tuple(f"class {k}" for k in range(NUM_CLASSES)),
        tuning="frozen",
        seed=0,
        logit_scale=40.0,
        text=text,
        encoder={},
        centre=None,
        transition=None,
        sharpening=1.0,
        cone_sine=0.0,
        is_real_noise=False,
    )
