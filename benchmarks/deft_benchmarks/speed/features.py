"""How close the feature pass comes to the bare encoder."""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING, Any

from deft_plugin.data import read_image_data
from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins
    from deft_plugin.settings import RunSettings
    from deft_plugin.types import Backbone

BARE_BATCHES = 20


def measure_feature_pass(
    data: Any, *, plugins: Plugins, settings: RunSettings, limit: int | None = None
) -> dict[str, Any]:
    """Time the whole pass (reading, decoding, encoding, writing) between two timings of the encoder alone.

    Parameters
    ----------
    data : object
        As `deft_plugin.detect` takes it.
    plugins : Plugins
    settings : RunSettings
        Model, device and batch size are used.
    limit : int, optional
        Use the first rows only.

    Returns
    -------
    dict
        Images per second of both, and their ratio. The bare encoder runs on one preprocessed batch again and again.
    """
    from deft_plugin.compute import pick_device
    from deft_plugin.runs import compute_image_features

    device, batch_size = pick_device(settings.device), settings.batch_size
    backbone = plugins.backbones.load(settings.model, settings.model).to(device)
    if limit and not hasattr(data, "select"):
        raise InputError("Expected a limit with a Hugging Face data set only. Measure a folder as a whole.")
    images = read_image_data(data.select(range(min(limit, len(data)))) if limit else data).images
    before = bare_images_per_second(backbone, images, device, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        compute_image_features(backbone, images, device=device, batch_size=batch_size, cache_dir=folder)
        whole = len(images) / (time.perf_counter() - started)
    after = bare_images_per_second(backbone, images, device, batch_size)
    setting = {"model": settings.model, "device": device, "batch_size": batch_size, "num_images": len(images)}
    return speed_figures(setting, "pass", whole, bare=(before + after) / 2)


def speed_figures(setting: dict[str, Any], what: str, images_per_second: float, *, bare: float) -> dict[str, Any]:
    """Put a speed beside that of the bare encoder, with the setting of both.

    Parameters
    ----------
    setting : dict
        With the device.
    what : str
        Names the speed.
    images_per_second, bare : float
    """
    from deft_plugin.compute import compute_dtype

    return {
        **setting,
        "dtype": str(compute_dtype(setting["device"])),
        "bare_images_per_second": round(bare, 1),
        f"{what}_images_per_second": round(images_per_second, 1),
        "ratio": round(images_per_second / bare, 3),
    }


def bare_images_per_second(backbone: Backbone, images: Any, device: str, batch_size: int) -> float:
    """Time the encoder on one preprocessed batch again and again.

    Parameters
    ----------
    backbone : Backbone
    images : ImageSource
    device : str
    batch_size : int
    """
    import torch

    from deft_plugin.compute import autocast

    rows = range(min(batch_size, len(images)))
    pixels = torch.stack([backbone.preprocess(images.load(row)) for row in rows]).to(device)
    with torch.inference_mode(), autocast(device):
        for _ in range(3):
            backbone.encode_images(pixels)
        started = time.perf_counter()
        for _ in range(BARE_BATCHES):
            backbone.encode_images(pixels).sum().item()
    return BARE_BATCHES * len(pixels) / (time.perf_counter() - started)
