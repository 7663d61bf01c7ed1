"""Image features, computed once and kept in a memory-mapped cache.

The cache is keyed by the images' content, the model with its preprocessing, and the number format. A pass writes its
rows in parts; one that was killed goes on behind the last whole part.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from deft_plugin.compute.pieces import pieces
from deft_plugin.compute.precision import autocast, compute_dtype
from deft_plugin.compute.workers import Workers, num_decoders
from deft_plugin.data.digests import DIGEST_SIZE, UNREADABLE_DIGEST, image_digest
from deft_plugin.data.sources import ImageSource
from deft_plugin.errors import InputError, UnreadableImageError
from deft_plugin.settings import check_cache_dir
from deft_plugin.types import Backbone

ROWS_PER_PART = 4096

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ImageFeatures:
    """Features of all images of a data set.

    Attributes
    ----------
    features : np.ndarray of shape (N, D), float16, memory-mapped
        As the backbone gives them; zeros where the image could not be read.
    digests : np.ndarray of shape (N, 16), uint8
        From `deft_plugin.data.digests.image_digest`; zeros where the image could not be read.
    is_readable : np.ndarray of shape (N,), bool
    seconds : float
        Time of the pass; 0 if all came from the cache.
    """

    features: np.ndarray
    digests: np.ndarray
    is_readable: np.ndarray
    seconds: float


def default_cache_dir() -> Path:
    """Folder for features and checkpoints: ``$DEFT_CACHE_DIR``, else the user's cache folder.

    Raises
    ------
    InputError
        If ``$DEFT_CACHE_DIR`` cannot be one.
    """
    import platformdirs

    folder = os.environ.get("DEFT_CACHE_DIR")
    if folder:
        check_cache_dir(folder, "DEFT_CACHE_DIR")
    return Path(folder or platformdirs.user_cache_dir("deft_plugin"))


def compute_image_features(
    backbone: Backbone,
    images: ImageSource,
    *,
    device: str = "cpu",
    batch_size: int = 64,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> ImageFeatures:
    """Encode all images, or read the features from the cache.

    Parameters
    ----------
    backbone : Backbone
        On `device` already.
    images : ImageSource
    cache_dir : path, optional
        `default_cache_dir` if not given.
    progress : callable, optional
        Called with (rows done, N).
    workers : Workers, optional
        Processes that share the pass; the cache must be on a disk that all of them see.

    Raises
    ------
    InputError
        If the cache cannot be written (disk full, no permission).
    """
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    parts = (images.fingerprint(), backbone.fingerprint, str(compute_dtype(device)), str(len(images)))
    folder = root / "features" / hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]
    started = time.perf_counter()
    workers = workers or Workers()
    is_cached = workers.agree(_is_complete(folder))
    if not is_cached:
        try:
            _fill(folder, backbone, images, device=device, batch_size=batch_size, progress=progress, workers=workers)
        except OSError as error:
            if _is_complete(folder):  # another process was faster
                return compute_image_features(backbone, images, device=device, cache_dir=cache_dir)
            raise InputError(
                f"Expected to write image features to {folder}, but: {error}. Free some space, or give another "
                "folder with cache_dir=... or DEFT_CACHE_DIR. What is there already will be used."
            ) from error
    seconds = 0.0 if is_cached else time.perf_counter() - started
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in _ARRAYS}
    return ImageFeatures(**arrays, seconds=seconds)


_ARRAYS = ("features", "digests", "is_readable")


def _is_complete(folder: Path) -> bool:
    return all((folder / f"{name}.npy").is_file() for name in _ARRAYS)


def _fill(
    folder: Path,
    backbone: Backbone,
    images: ImageSource,
    *,
    device: str,
    batch_size: int,
    progress: Progress | None,
    workers: Workers,
) -> None:
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(images), ROWS_PER_PART)
    for start in starts[workers.rank :: workers.size]:
        file = parts / f"{start:010d}.npz"
        stop = min(start + ROWS_PER_PART, len(images))
        if not file.is_file():
            rows = range(start, stop)
            arrays = _encode_rows(backbone, images, rows, device=device, batch_size=batch_size, progress=progress)
            temporary = file.with_suffix(f".{os.getpid()}.tmp")
            with temporary.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)
            temporary.replace(file)
        if progress:
            progress(stop, len(images))
    workers.wait()
    if workers.is_main:
        _join(folder, [parts / f"{start:010d}.npz" for start in starts], len(images))
        shutil.rmtree(parts, ignore_errors=True)
    workers.wait()


def _join(folder: Path, files: list[Path], num_rows: int) -> None:
    """Join the parts into one file for each array; the last rename makes the cache entry complete."""
    for name in _ARRAYS:
        temporary = folder / f"{name}.{os.getpid()}.tmp"
        joined, start = None, 0
        for file in files:
            with np.load(file) as part:
                rows = part[name]
            if joined is None:
                shape = (num_rows, *rows.shape[1:])
                joined = np.lib.format.open_memmap(temporary, mode="w+", dtype=rows.dtype, shape=shape)
            joined[start : start + len(rows)] = rows
            start += len(rows)
        assert joined is not None
        joined.flush()
        del joined
        temporary.replace(folder / f"{name}.npy")


def _encode_rows(
    backbone: Backbone,
    images: ImageSource,
    rows: range,
    *,
    device: str,
    batch_size: int,
    progress: Progress | None,
) -> dict[str, np.ndarray]:
    features = np.zeros((len(rows), backbone.feature_dim), np.float16)
    digests = np.zeros((len(rows), DIGEST_SIZE), np.uint8)
    is_readable = np.zeros(len(rows), bool)
    loader = DataLoader(
        Subset(_Pixels(backbone, images), rows),
        batch_size=batch_size,
        num_workers=num_decoders(device, len(images)),
        collate_fn=_collate,
        pin_memory=torch.device(device).type == "cuda",
    )
    start = 0
    for pixels, batch_digests, readable in loader:
        part = slice(start, start + len(readable))
        digests[part], is_readable[part] = batch_digests, readable
        if len(pixels):
            with torch.inference_mode(), autocast(device):
                features[part][readable] = backbone.encode_images(pixels).float().cpu().numpy()
        start += len(readable)
        if progress:
            progress(rows.start + start, len(images))
    return {"features": features, "digests": digests, "is_readable": is_readable}


class _Pixels(Dataset[tuple[Tensor | None, bytes]]):
    """Preprocessed images with their digests; no pixels where an image cannot be read."""

    def __init__(self, backbone: Backbone, images: ImageSource) -> None:
        self._preprocess = backbone.preprocess
        self._images = images

    def __getitem__(self, index: int) -> tuple[Tensor | None, bytes]:
        try:
            image = self._images.load(index)
        except UnreadableImageError:
            return None, UNREADABLE_DIGEST
        return self._preprocess(image), image_digest(image)


def _collate(samples: list[tuple[Tensor | None, bytes]]) -> tuple[Tensor, np.ndarray, np.ndarray]:
    pixels = [sample for sample, _ in samples if sample is not None]
    digests = np.stack([np.frombuffer(digest, np.uint8) for _, digest in samples])
    readable = np.array([sample is not None for sample, _ in samples])
    return torch.stack(pixels) if pixels else torch.empty(0), digests, readable


def mean_feature(features: np.ndarray) -> np.ndarray:
    """Mean over the data, (D,), float32."""
    total = np.zeros(features.shape[1], np.float64)
    for piece in pieces(len(features)):
        total += features[piece].sum(0, dtype=np.float64)
    return (total / len(features)).astype(np.float32)


def centre_features(features: np.ndarray) -> np.ndarray:
    """Subtract the mean over the data and normalise each row to length 1; float16 (N, D).

    For backbones without a cone (`Backbone.has_cone`).
    """
    mean = mean_feature(features)
    centred = np.empty(features.shape, np.float16)
    for piece in pieces(len(features)):
        rows = features[piece].astype(np.float32) - mean
        centred[piece] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return centred
