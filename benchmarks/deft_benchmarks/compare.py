"""Selectors compared on one run: the same backbone, features, noise and seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_benchmarks.matrix.cell_metrics import batch_means
from deft_benchmarks.matrix.metrics import detection_metrics
from deft_benchmarks.noise.instance import put_noise_in
from deft_benchmarks.results import ComparisonResult, SelectorResult
from deft_plugin import Detection
from deft_plugin.data import ImageData, read_image_data

if TYPE_CHECKING:
    from deft_plugin import FinetuneSettings
    from deft_plugin.plugins import Plugins
    from deft_plugin.types import EpochEnd

DEFAULT_SELECTORS = ("deft", "label_match", "small_loss", "gmm", "confident_learning")
ORACLE_NOTE = "told the true noise ratio"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Verdicts of all selectors on one data set, and how good they are.

    Attributes
    ----------
    result : ComparisonResult
    detections : dict of str to Detection
        By name of the selector.
    data : ImageData
        With the true labels, before noise.
    """

    result: ComparisonResult
    detections: dict[str, Detection]
    data: ImageData


def compare(
    data: Any,
    *,
    data_name: str,
    plugins: Plugins,
    selectors: Sequence[str] = DEFAULT_SELECTORS,
    noise_mode: str = "sym",
    noise_ratio: float = 0.4,
    model: str = "bridge-lite0",
    tuning: str = "auto",
    training: FinetuneSettings | None = None,
    device: str = "auto",
    seed: int = 0,
    cache_dir: Path | None = None,
    feature_progress: Callable[[int, int], None] | None = None,
    epoch_end: Callable[[EpochEnd], None] | None = None,
) -> Comparison:
    """Put noise into the labels of `data`, and let each selector find it.

    Parameters
    ----------
    data : anything that `deft_plugin.detect` takes
        Its labels are taken as the truth.
    noise_mode, noise_ratio : str, float
        A registered noise model, and its nominal ratio in [0, 1).

    Notes
    -----
    Selectors that need a noise ratio are told the true one: an oracle, and marked as one.
    """
    from deft_plugin.judging import judge
    from deft_plugin.runs import prepare_run
    from deft_plugin.settings import RunSettings

    started = time.perf_counter()
    chosen = [(name, plugins.selectors.load(name)) for name in selectors]
    truth = read_image_data(data)
    noise = plugins.noise_models.load(noise_mode)
    given = put_noise_in(
        noise, truth, traits=plugins.noise_models.get(noise_mode).traits, noise_ratio=noise_ratio, seed=seed
    )
    is_right = given == truth.labels
    actual = float(1 - is_right.mean())
    settings = RunSettings(
        model=model,
        tuning=tuning,
        training=training,
        device=device,
        seed=seed,
        cache_dir=cache_dir,
        noise_ratio=actual,
        noise_ratio_source="oracle",
    )
    prepared = prepare_run(
        replace(truth, labels=given, label_column=None),
        settings=settings,
        plugins=plugins,
        feature_progress=feature_progress,
        epoch_end=epoch_end,
    )
    detections = {name: judge(prepared, name, selector) for name, selector in chosen}
    result = ComparisonResult(
        data=data_name,
        num_examples=len(given),
        num_classes=len(truth.class_names),
        noise_mode=noise_mode,
        noise_ratio=noise_ratio,
        actual_noise_ratio=actual,
        model=model,
        seed=seed,
        seconds=time.perf_counter() - started,
        feature_seconds=prepared.feature_seconds,
        selectors=tuple(_result(name, detection, is_right) for name, detection in detections.items()),
    )
    return Comparison(result=result, detections=detections, data=truth)


def _result(name: str, detection: Detection, is_right: np.ndarray) -> SelectorResult:
    details = detection.details
    source = details.get("noise_ratio_source")
    notes = [ORACLE_NOTE] if source == "oracle" else []
    precision, recall = batch_means(detection, is_right)
    if precision is not None and recall is not None:
        notes.append(f"clean P {100 * precision:.1f}, R {100 * recall:.1f} as means over mini-batches")
    return SelectorResult(
        name=name,
        metrics=detection_metrics(~detection.is_label_issue, detection.label_quality, is_right),
        seconds=detection.settings["seconds"],
        note="; ".join(notes),
        noise_ratio_used=details.get("noise_ratio_used"),
        noise_ratio_source=source,
        batch_mean_clean_precision=precision,
        batch_mean_clean_recall=recall,
    )
