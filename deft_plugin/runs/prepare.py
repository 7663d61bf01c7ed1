"""Setting up a run over the user's rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_plugin.compute.precision import use_precision
from deft_plugin.data.labels import are_numbers, check_labels, check_pred_probs, check_several_classes, num_columns
from deft_plugin.data.reading import ImageData, read_image_data
from deft_plugin.data.sources import IndexedImages, SelectedImages, describe
from deft_plugin.errors import InputError, UnreadableImageError
from deft_plugin.runs.run import Run
from deft_plugin.settings import RunSettings

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins
    from deft_plugin.types import EpochEnd

SMALLEST_CLASS = 3
"""Different images of a class from which on its labels are judged: one is judged by what was learned of the others."""


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run with what is needed to carry verdicts back to the user's rows.

    Attributes
    ----------
    run : Run
        Over the readable rows.
    data : ImageData, optional
        None if there are only pred_probs.
    given_labels : np.ndarray of shape (N,), int64
        Of all rows.
    class_names : tuple of str of length K
        Of all classes.
    classes : np.ndarray of shape (C,), int64 in [0, K)
        Those that the run knows: what is learned and judged does not depend on a class without examples.
    digests : np.ndarray of shape (N, 16), uint8, optional
    is_readable : np.ndarray of shape (N,), bool
    feature_seconds : float
        Time of the feature pass; 0 if it was cached.
    too_small : np.ndarray of int in [0, K)
        Classes that nothing can be learned of: their examples are not judged by others of their class.
    """

    run: Run
    data: ImageData | None
    given_labels: np.ndarray
    class_names: tuple[str, ...]
    classes: np.ndarray
    digests: np.ndarray | None
    is_readable: np.ndarray
    feature_seconds: float = 0.0
    too_small: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


def prepare_run(
    data: Any,
    labels: Any = None,
    *,
    settings: RunSettings,
    plugins: Plugins,
    needs_images: bool = True,
    learns: bool = True,
    class_names: Sequence[str] | None = None,
    pred_probs: Any = None,
    feature_progress: Callable[[int, int], None] | None = None,
    epoch_end: Callable[[EpochEnd], None] | None = None,
) -> PreparedRun:
    """Check the input, encode the images, and set up a run that any number of selectors can share.

    Parameters
    ----------
    data, labels, class_names, pred_probs
        As for `deft_plugin.detect`.
    settings : RunSettings
    plugins : Plugins
        Where the backbone comes from, and who is told of epochs.
    needs_images : bool
        Whether the selector does; else `pred_probs` will do.
    learns : bool
        Whether the selector learns from the run, and so needs several classes.
    feature_progress : callable, optional
        Called with (rows done, N) in the feature pass.
    epoch_end : callable, optional
        Called with each `EpochEnd`.
    """
    if not needs_images and pred_probs is not None:
        return _prepare_pred_probs(data, labels, class_names, pred_probs, settings)
    if data is None:
        raise InputError(
            "Expected data (images), or labels and pred_probs with a method that needs no images, such as "
            "'confident_learning'; got neither."
        )
    images = read_image_data(data, labels, class_names)
    if learns:
        check_several_classes(images.labels, images.class_names)
    probs = None if pred_probs is None else check_pred_probs(pred_probs, len(images.labels), len(images.class_names))
    _warn_of_augmentation(images)

    from deft_plugin.compute.workers import this_process
    from deft_plugin.runs.features import compute_image_features, default_cache_dir

    cache_dir = Path(settings.cache_dir) if settings.cache_dir is not None else default_cache_dir()
    workers = this_process(settings.device)
    backbone = plugins.backbones.load(settings.model, settings.model).to(workers.device)
    with use_precision(settings.precision):
        features = compute_image_features(
            backbone,
            images.images,
            device=workers.device,
            batch_size=settings.batch_size,
            cache_dir=cache_dir,
            progress=feature_progress,
            workers=workers,
        )
    keep = np.flatnonzero(features.is_readable)
    if len(keep) < len(features.is_readable) and settings.on_bad_image == "raise":
        _raise_first_bad(images, features.is_readable)
    if learns:
        check_several_classes(images.labels[keep], images.class_names)

    def listen(event: EpochEnd) -> None:
        if epoch_end:
            epoch_end(event)
        plugins.call_each("deft_epoch_end", event=lambda _plugin: event)

    all_readable = len(keep) == len(images.labels)
    classes = np.unique(images.labels[keep]) if learns else np.arange(len(images.class_names))
    run = Run(
        labels=np.searchsorted(classes, images.labels[keep]),
        class_names=tuple(images.class_names[k] for k in classes),
        backbone=backbone,
        raw_features=features.features if all_readable else features.features[keep],
        digests=features.digests[keep],
        given_pred_probs=None if probs is None else _of_classes(probs[keep], classes),
        settings=replace(settings, device=workers.device),
        epoch_end=listen,
        images=images.images if all_readable else SelectedImages(images.images, keep),
        checkpoint_dir=cache_dir / "checkpoints",
        workers=workers,
    )
    return PreparedRun(
        run=run,
        data=images,
        given_labels=images.labels,
        class_names=images.class_names,
        classes=classes,
        digests=features.digests,
        is_readable=features.is_readable,
        feature_seconds=features.seconds,
        too_small=classes[_too_small(run)] if learns and probs is None else np.empty(0, np.int64),
    )


def relabel(prepared: PreparedRun, labels: np.ndarray, settings: RunSettings, *, plugins: Plugins) -> PreparedRun:
    """Set up a run over the same images with other labels; what does not depend on labels is computed once.

    If a class has lost its last example, or gained its first, the run knows other classes, and shares nothing.

    Parameters
    ----------
    prepared : PreparedRun
        Over images.
    labels : np.ndarray of shape (N,), int64 in [0, K)
    settings : RunSettings
        All but model and device may differ from those of `prepared`.
    plugins : Plugins
    """
    assert prepared.data is not None
    if not np.array_equal(np.unique(labels), prepared.classes) or not prepared.is_readable.all():
        return prepare_run(replace(prepared.data, labels=labels), settings=settings, plugins=plugins)
    settings = replace(settings, device=prepared.run.device)
    run = prepared.run.with_labels(np.searchsorted(prepared.classes, labels), settings)
    return replace(prepared, run=run, given_labels=labels, too_small=prepared.classes[_too_small(run)])


def _too_small(run: Run) -> np.ndarray:
    """Find the classes of a run with fewer than `SMALLEST_CLASS` different images: their numbers, int64."""
    pairs = np.unique(np.stack([run.labels, run.image_groups]), axis=1)
    return np.flatnonzero(np.bincount(pairs[0], minlength=run.num_classes) < SMALLEST_CLASS)


def _prepare_pred_probs(
    data: Any, labels: Any, class_names: Sequence[str] | None, pred_probs: Any, settings: RunSettings
) -> PreparedRun:
    given, names, probs = _read_pred_probs(data, labels, class_names, pred_probs)
    run = Run(
        labels=given,
        class_names=names,
        given_pred_probs=probs,
        settings=settings,
    )
    return PreparedRun(
        run=run,
        data=None,
        given_labels=given,
        class_names=names,
        classes=np.arange(len(names)),
        digests=None,
        is_readable=np.ones(len(given), bool),
    )


def _of_classes(pred_probs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of some classes alone; of a row that has none of them, all the same."""
    chosen = pred_probs[:, classes] + np.finfo(np.float64).tiny
    return chosen / chosen.sum(1, keepdims=True)


def _read_pred_probs(
    data: Any, labels: Any, class_names: Sequence[str] | None, pred_probs: Any
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Check labels (N,) and pred_probs (N, K); as in cleanlab, their columns tell K if nothing else does."""
    if data is not None:
        known = read_image_data(data, labels, class_names)
        labels, class_names = known.labels, known.class_names
    if class_names is None and (num_classes := num_columns(pred_probs)) and are_numbers(labels):
        class_names = [str(k) for k in range(num_classes)]
    given, names = check_labels(labels, class_names=class_names)
    check_several_classes(given, names)
    return given, names, check_pred_probs(pred_probs, len(given), len(names))


def _warn_of_augmentation(data: ImageData) -> None:
    if isinstance(data.images, IndexedImages) and (row := data.images.find_change()) is not None:
        warnings.warn(
            f"The image of row {row} is another one each time it is read: the data set augments its images. Labels are "
            "judged by images that will not come again, and the rows cannot be recognised later. Hand over the data "
            "set without random transforms.",
            stacklevel=2,
        )


def _raise_first_bad(data: ImageData, is_readable: np.ndarray) -> None:
    """Decode the first unreadable image again, for the error that names its row and file."""
    bad = np.flatnonzero(~is_readable)
    try:
        data.images.load(int(bad[0]))
    except UnreadableImageError as error:
        raise UnreadableImageError(
            f"{error} {len(bad)} of {len(is_readable)} images cannot be read. Mend or remove them, or pass "
            "on_bad_image='flag' to keep them in the result as issues of their own kind."
        ) from error
    raise UnreadableImageError(
        f"{describe(data.images, int(bad[0]))} could not be read a moment ago, but can be read now. Run again."
    )
