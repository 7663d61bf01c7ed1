"""A trained detector on Ray Data: more than one machine, data larger than memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_plugin.deft import BatchScorer

if TYPE_CHECKING:
    import ray.data

    from deft_plugin import Detector


def add_columns(
    dataset: ray.data.Dataset,
    detector: Detector,
    *,
    image_column: str = "image",
    label_column: str = "label",
    batch_size: int = 64,
    concurrency: int | tuple[int, int] = 1,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    **settings: Any,
) -> ray.data.Dataset:
    """Add label_quality, is_label_issue and predicted_label to a Ray data set.

    Parameters
    ----------
    dataset : ray.data.Dataset
        Images as arrays, as ``ray.data.read_images`` gives them, or as encoded bytes.
    detector : Detector
    image_column, label_column : str
        Labels are class names, or indices.
    batch_size : int
    concurrency : int or (int, int)
        Actors, each of which loads the model once.
    num_cpus, num_gpus : float, optional
        Of each actor.
    **settings
        As for `deft_plugin.deft.streaming.BatchScorer`.

    Returns
    -------
    ray.data.Dataset
        Computed when it is read. predicted_label is "" where the image could not be read.
    """
    scorer = BatchScorer(detector, image_column=image_column, label_column=label_column, **settings)
    # Ray's way to keep a model in an actor: a class, of which it makes one object in each.
    return dataset.map_batches(
        _Actor,
        fn_constructor_args=(scorer,),
        batch_size=batch_size,
        concurrency=concurrency,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )


class _Actor:
    def __init__(self, scorer: BatchScorer) -> None:
        self._scorer = scorer

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        columns = self._scorer(batch)
        columns["predicted_label"] = ["" if name is None else name for name in columns["predicted_label"]]
        return {**batch, **{name: np.asarray(values) for name, values in columns.items()}}
