"""Image features, computed once and kept in a memory-mapped cache.

The cache is keyed by the images' content, the model with its preprocessing, and the number format. A pass writes its
rows in parts; one that was killed goes on behind the last whole part. Whether an image can be read depends on more than
its content (memory, limits of Pillow, plugins for formats), so rows that could not be read are tried at each use.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deft_plugin.compute.decoding import decode_batches, num_decoders
from deft_plugin.compute.pieces import pieces
from deft_plugin.compute.precision import autocast, compute_dtype
from deft_plugin.compute.workers import Workers
from deft_plugin.data.digests import DIGEST_SIZE, UNREADABLE_DIGEST, image_digest
from deft_plugin.data.sources import ImageSource, describe
from deft_plugin.errors import InputError, UnreadableImageError
from deft_plugin.runs.feature_files import FeatureFiles
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
        If the cache cannot be written (disk full, no permission), or the backbone gives features that are not finite.

    Warns
    -----
    UserWarning
        If something in the cache is damaged; it is computed anew.
    """
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    parts = (images.fingerprint(), backbone.fingerprint, str(compute_dtype(device)), str(len(images)))
    folder = root / "features" / hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]
    files = FeatureFiles(folder, len(images), backbone.feature_dim)
    encoding = _Encoding(backbone=backbone, images=images, device=device, batch_size=batch_size, progress=progress)
    started = time.perf_counter()
    workers = workers or Workers()
    try:
        arrays = files.read()
        is_cached = workers.agree(arrays is not None)
        if arrays is None or not is_cached:
            _fill(files, encoding, workers)
        elif workers.is_main and _try_again(files, encoding, arrays):
            is_cached = False
        workers.wait()
    except OSError as error:
        if files.read() is not None:  # another process was faster
            return compute_image_features(backbone, images, device=device, cache_dir=cache_dir)
        raise InputError(
            f"Expected to write image features to {folder}, but: {error}. Free some space, or give another "
            "folder with cache_dir=... or DEFT_CACHE_DIR. What is there already will be used."
        ) from error
    seconds = 0.0 if is_cached else time.perf_counter() - started
    return ImageFeatures(**files.open(), seconds=seconds)


def _fill(files: FeatureFiles, encoding: _Encoding, workers: Workers) -> None:
    size = len(encoding.images)
    starts = range(0, size, ROWS_PER_PART)
    for start in starts[workers.rank :: workers.size]:
        rows = range(start, min(start + ROWS_PER_PART, size))
        if not files.has_part(rows):
            files.write_part(rows, encoding.encode(rows, done=start))
        encoding.tell(rows.stop)
    workers.wait()
    if workers.is_main:
        files.join([range(start, min(start + ROWS_PER_PART, size)) for start in starts])
    workers.wait()


def _try_again(files: FeatureFiles, encoding: _Encoding, arrays: dict[str, np.ndarray]) -> bool:
    """Encode the rows that could not be read before and can be now; tell whether there are any."""
    rows = np.flatnonzero(~arrays["is_readable"])
    if not len(rows):
        return False
    found = encoding.encode(rows.tolist())
    if not found["is_readable"].any():
        return False
    files.replace(rows, found)
    return True


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """How rows are encoded."""

    backbone: Backbone
    images: ImageSource
    device: str
    batch_size: int
    progress: Progress | None

    def tell(self, done: int) -> None:
        if self.progress:
            self.progress(done, len(self.images))

    def encode(self, rows: Sequence[int], done: int | None = None) -> dict[str, np.ndarray]:
        """Encode some rows; `done` says how many of all are done before them, if progress is to be told."""
        features = np.zeros((len(rows), self.backbone.feature_dim), np.float16)
        digests = np.zeros((len(rows), DIGEST_SIZE), np.uint8)
        is_readable = np.zeros(len(rows), bool)
        parts = pieces(len(rows), self.batch_size)
        loader = decode_batches(
            self._load, [rows[part] for part in parts], collate=self._collate, num_threads=num_decoders(self.device)
        )
        with contextlib.closing(loader):
            for part, (pixels, batch_digests, readable) in zip(parts, loader, strict=True):
                digests[part], is_readable[part] = batch_digests, readable
                if len(pixels):
                    with torch.inference_mode(), autocast(self.device), np.errstate(over="ignore"):
                        features[part][readable] = self.backbone.encode_images(pixels).float().cpu().numpy()
                    self._check(features[part], rows[part])
                if done is not None:
                    self.tell(done + part.stop)
        return {"features": features, "digests": digests, "is_readable": is_readable}

    def _load(self, row: int) -> tuple[Tensor | None, bytes]:
        """Preprocess an image and digest it; no pixels where it cannot be read."""
        try:
            image = self.images.load(row)
        except UnreadableImageError:
            return None, UNREADABLE_DIGEST
        return self.backbone.preprocess(image), image_digest(image)

    def _collate(self, samples: list[tuple[Tensor | None, bytes]]) -> tuple[Tensor, np.ndarray, np.ndarray]:
        pixels = [sample for sample, _ in samples if sample is not None]
        digests = np.stack([np.frombuffer(digest, np.uint8) for _, digest in samples])
        readable = np.array([sample is not None for sample, _ in samples])
        stacked = torch.stack(pixels) if pixels else torch.empty(0)
        return stacked.pin_memory() if torch.device(self.device).type == "cuda" else stacked, digests, readable

    def _check(self, features: np.ndarray, rows: Sequence[int]) -> None:
        finite = np.isfinite(features).all(1)
        if not finite.all():
            name = describe(self.images, rows[int(np.flatnonzero(~finite)[0])])
            raise InputError(
                f"Expected finite features from the model, but those of {name} are not. Try precision='float32'; if "
                "that does not help, the weights of the model are broken."
            )


def class_centre(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Find what features without a cone (`Backbone.has_cone`) are measured from, (D,), float32.

    The mean of the class means. The mean of the data would be that of a large class, whose own images, measured from
    there, would point anywhere.

    Parameters
    ----------
    features : np.ndarray of shape (N, D)
    labels : np.ndarray of shape (N,), int64
        Given labels; a class without examples does not count.
    """
    sums = np.zeros((labels.max() + 1, features.shape[1]))
    for piece in pieces(len(features)):
        np.add.at(sums, labels[piece], features[piece].astype(np.float64))
    counts = np.bincount(labels)
    return (sums[counts > 0] / counts[counts > 0, None]).mean(0).astype(np.float32)


def centre_features(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Subtract a centre (D,) and normalise each row to length 1; float16 (N, D)."""
    centred = np.empty(features.shape, np.float16)
    for piece in pieces(len(features)):
        rows = features[piece].astype(np.float32) - centre
        centred[piece] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return centred
