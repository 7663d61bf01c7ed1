"""Selectors on one data set with one noise and seed: a block, in which all of them share one run."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deft_benchmarks.matrix.cell_metrics import score_verdicts
from deft_benchmarks.matrix.cells import Cell
from deft_benchmarks.matrix.origin import find_origin
from deft_benchmarks.matrix.recipes import Recipe, TrueData, load_data
from deft_benchmarks.matrix.settings import HUMAN, MatrixSettings, Noise
from deft_benchmarks.noise.instance import put_noise_in, read_pixels
from deft_benchmarks.speed.memory import watch_peak
from deft_plugin.errors import InputError
from deft_plugin.judging import judge
from deft_plugin.runs import PreparedRun, prepare_run, relabel
from deft_plugin.types import DescribedNoise

if TYPE_CHECKING:
    from deft_plugin import Detection
    from deft_plugin.plugins import Plugins
    from deft_plugin.types import EpochEnd


@dataclass(frozen=True, kw_only=True)
class Block:
    """One noise and seed on one data set, which selectors are compared in.

    Attributes
    ----------
    noise : Noise
    seed : int
    given_labels : np.ndarray of shape (N,), int64
        With the noise in them.
    actual_ratio : float in [0, 1]
        Share of labels that differ from the true ones.
    noise_details : dict
        What the noise depends on beside ratio and seed.
    """

    noise: Noise
    seed: int
    given_labels: np.ndarray
    actual_ratio: float
    noise_details: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a selector did in a block.

    Attributes
    ----------
    cell : Cell
    detection : Detection, optional
        None if the selector failed.
    error : Exception, optional
        Why it failed.
    """

    cell: Cell
    detection: Detection | None
    error: Exception | None

    def require_detection(self) -> Detection:
        """Give the detection, or raise what the selector has failed with."""
        if self.error is not None:
            raise self.error
        assert self.detection is not None
        return self.detection


class DataBench:
    """All blocks of one data set: images, features and zero-shot logits are shared by all of them.

    It reads and writes no cells: that is what `run_matrix` does, and what ``deft demo`` does not.

    Parameters
    ----------
    recipe : Recipe
    settings : MatrixSettings
    plugins : Plugins
    feature_progress : callable, optional
        Told of the images that are encoded, and of how many there are.
    epoch_end : callable, optional
        Told of each training epoch of DeFT.

    Raises
    ------
    UnknownNameError
        If there is no such selector or noise model.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: MatrixSettings,
        plugins: Plugins,
        *,
        feature_progress: Callable[[int, int], None] | None = None,
        epoch_end: Callable[[EpochEnd], None] | None = None,
    ) -> None:
        for name in settings.selectors:
            plugins.selectors.load(name)
        for noise in settings.noises:
            if noise.mode != HUMAN:
                plugins.noise_models.load(noise.mode)
        self._recipe, self._settings, self._plugins = recipe, settings, plugins
        self._feature_progress, self._epoch_end = feature_progress, epoch_end
        self._base: PreparedRun | None = None

    @cached_property
    def truth(self) -> TrueData:
        """The data, with the true labels."""
        return load_data(self._recipe, self._plugins, self._settings.data_root)

    @property
    def has_human_labels(self) -> bool:
        """Tell whether there are wrong labels that people gave."""
        return self._recipe.human_labels is not None and self.truth.human_labels is not None

    @property
    def feature_seconds(self) -> float:
        """Time that the image features took, which all blocks share; 0 if they were cached, or not yet needed."""
        return 0.0 if self._base is None else self._base.feature_seconds

    def block(self, noise: Noise, seed: int) -> Block:
        """Put noise into the labels.

        Parameters
        ----------
        noise : Noise
        seed : int
            Of the noise, and of the selectors that judge it.

        Raises
        ------
        InputError
            If the noise ratio is not in [0, 1), or there are no human labels.
        """
        given, details = self._noisy_labels(noise, seed)
        actual = float((given != self.truth.data.labels).mean())
        return Block(noise=noise, seed=seed, given_labels=given, actual_ratio=actual, noise_details=details)

    def fingerprint(self, block: Block, selector: str) -> str:
        """Give the hex digest of all that the verdicts of a selector follow from; nothing is judged for it.

        Images, true and noisy labels, class names, settings of the run and of the selector, and the backbone. Not the
        device and the number format, which change verdicts no more than by rounding, and not the code.

        Parameters
        ----------
        block : Block
        selector : str
        """
        return _digest({**self._identity, **self._of_block(block), "selector": self._selector_settings(selector)})

    def judge(self, block: Block, selectors: Sequence[str]) -> Iterator[Judged]:
        """Let selectors judge a block, one after the other: all of them share one run.

        Selectors that need a noise ratio are told the true one: an oracle, and marked as one.

        Parameters
        ----------
        block : Block
        selectors : sequence of str
            They run in this order, but variants go last.
        """
        order = sorted(selectors, key=self._is_variant)
        prepared = self._prepare(block)
        common = {**self._setting(prepared, block), "order": order}
        is_right = block.given_labels == self.truth.data.labels
        for name in order:
            yield self._run(name, prepared, is_right, common, self.fingerprint(block, name))

    def _is_variant(self, name: str) -> bool:
        """Variants go last: what they share with their selector counts as its time."""
        return self._plugins.selectors.get(name).traits.variant_of is not None

    def _run(
        self, name: str, prepared: PreparedRun, is_right: np.ndarray, common: dict[str, Any], fingerprint: str
    ) -> Judged:
        peak = watch_peak()
        started = time.perf_counter()
        selector, traits = self._plugins.selectors.load(name), self._plugins.selectors.get(name).traits
        scores: dict[str, Any] = {"metrics": {}, "per_class": None}
        detection, error = None, None
        try:
            detection = judge(prepared, name, selector)
            json.dumps(detection.details, allow_nan=False)  # a cell is JSON
            scores = score_verdicts(detection, is_right, per_class=self._settings.per_class)
        except Exception as raised:
            detection, error = None, raised
        details = {} if detection is None else dict(detection.details)
        cell = Cell(
            **common,
            fingerprint=fingerprint,
            selector=name,
            consumes=list(traits.consumes),
            is_told_noise_ratio=details.get("noise_ratio_source") == "oracle",
            variant_of=traits.variant_of,
            **scores,
            details=details,
            seconds=round(time.perf_counter() - started, 3),
            peak_memory_mb=peak(),
            error=None if error is None else "".join(traceback.format_exception_only(error)).strip(),
        )
        return Judged(cell=cell, detection=detection, error=error)

    def _setting(self, prepared: PreparedRun, block: Block) -> dict[str, Any]:
        """Fields that all cells of a block have in common."""
        from deft_plugin.compute import compute_dtype
        from deft_plugin.tuning import pick_tuning

        backbone, _ = prepared.run.require_images()
        device, noise, given = prepared.run.device, block.noise, block.given_labels
        return {
            "data": self._recipe.name,
            "num_examples": len(given),
            "num_classes": len(self.truth.data.class_names),
            "noise": noise.mode,
            "noise_ratio": block.actual_ratio if noise.mode == HUMAN else noise.ratio,
            "actual_noise_ratio": block.actual_ratio,
            "noise_details": block.noise_details,
            "labels_hash": _labels_hash(given),
            "seed": block.seed,
            "model": self._settings.run.model,
            "tuning": pick_tuning(self._settings.run.tuning, backbone, device),
            "device": device,
            "dtype": str(compute_dtype(device)).removeprefix("torch."),
            "encoder_passes": int(prepared.feature_seconds > 0),
            **self._origin,
        }

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """Whatever the verdicts of all blocks follow from."""
        from deft_plugin.compute import this_process
        from deft_plugin.tuning import pick_tuning

        data, run = self.truth.data, self._settings.run
        if self._base is None:
            backbone = self._plugins.backbones.load(run.model, run.model)
        else:
            backbone, _ = self._base.run.require_images()
        training = self._recipe.training
        return {
            "images": data.images.fingerprint(),
            "true_labels": _labels_hash(data.labels),
            "class_names": data.class_names,
            "backbone": backbone.fingerprint,
            "tuning": pick_tuning(run.tuning, backbone, this_process(run.device).device),
            "training": None if training is None else asdict(training),
            "n_folds": run.n_folds,
            "precision": run.precision,
        }

    def _of_block(self, block: Block) -> dict[str, Any]:
        return {"given_labels": _labels_hash(block.given_labels), "seed": block.seed, "noise_ratio": block.actual_ratio}

    def _selector_settings(self, name: str) -> dict[str, Any]:
        """Name, class and attributes of a selector as it is before it judges."""
        return {"name": name, "selector": _as_json(self._plugins.selectors.load(name))}

    @cached_property
    def _pixels(self) -> np.ndarray:
        return read_pixels(self.truth.data.images)

    @cached_property
    def _origin(self) -> dict[str, Any]:
        """What code ran, the same for all cells of the data set."""
        return find_origin()

    def _noisy_labels(self, noise: Noise, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Noisy labels (N,), and what they depend on beside ratio and seed."""
        truth = self.truth
        if noise.mode == HUMAN:
            if truth.human_labels is None:
                raise InputError(f"Expected human labels in {self._recipe.name}, but it has none. Name a noise model.")
            return truth.human_labels, {}
        models = self._plugins.noise_models
        model, traits = models.load(noise.mode), models.get(noise.mode).traits
        given = put_noise_in(
            model, truth.data, traits=traits, noise_ratio=noise.ratio, seed=seed, pixels=lambda: self._pixels
        )
        return given, model.describe(len(truth.data.class_names)) if isinstance(model, DescribedNoise) else {}

    def _prepare(self, block: Block) -> PreparedRun:
        settings = replace(
            self._settings.run,
            training=self._recipe.training,
            seed=block.seed,
            noise_ratio=block.actual_ratio,
            noise_ratio_source="oracle",
        )
        if self._base is None:
            self._base = prepare_run(
                replace(self.truth.data, label_column=None),  # no column holds the labels that are judged
                settings=settings,
                plugins=self._plugins,
                feature_progress=self._feature_progress,
                epoch_end=self._epoch_end,
            )
        return relabel(self._base, block.given_labels, settings, plugins=self._plugins)


def _labels_hash(labels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(labels, np.int64).tobytes()).hexdigest()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _as_json(value: object, depth: int = 0) -> object:
    """Give an object by its class and attributes, and those that are objects likewise; arrays by their class alone."""
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    if depth > 8 or callable(value):
        return type(value).__qualname__
    if isinstance(value, list | tuple):
        return [_as_json(each, depth + 1) for each in cast("Sequence[object]", value)]
    known = cast("dict[object, object]", value if isinstance(value, dict) else getattr(value, "__dict__", {}))
    attributes = {repr(key): _as_json(each, depth + 1) for key, each in known.items()}
    return [type(value).__module__, type(value).__qualname__, attributes]
