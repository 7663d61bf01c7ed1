"""Runs a matrix of cells: data sets, noises, seeds and selectors; what is there already is not run again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_benchmarks.matrix.cell_metrics import batch_means, cell_metrics, metrics_of_classes, quality_histogram
from deft_benchmarks.matrix.cells import Cell, cell_file, read_cell, setting_name, write_cell
from deft_benchmarks.matrix.recipes import Recipe, TrueData, load_data
from deft_benchmarks.noise.instance import put_noise_in, read_pixels
from deft_benchmarks.speed.memory import held_bytes
from deft_plugin.errors import InputError
from deft_plugin.judging import judge
from deft_plugin.runs import PreparedRun, prepare_run, relabel
from deft_plugin.settings import RunSettings
from deft_plugin.types import DescribedNoise

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins

HUMAN = "human"


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A noise model and its nominal ratio; "human" has none."""

    mode: str
    ratio: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Noise:
        """Read "sym:0.4" or "human".

        Raises
        ------
        InputError
            If it is neither.

        Examples
        --------
        >>> Noise.parse("sym:0.4")
        Noise(mode='sym', ratio=0.4)
        """
        mode, colon, ratio = text.partition(":")
        if (mode == HUMAN) != (not colon):
            raise InputError(f"Expected a noise as model:ratio, such as sym:0.4, or 'human', but got {text!r}.")
        try:
            return cls(mode=mode, ratio=float(ratio) if colon else 0.0)
        except ValueError as error:
            raise InputError(f"Expected a noise ratio such as 0.4 in {text!r}.") from error


@dataclass(frozen=True, kw_only=True)
class MatrixSettings:
    """What all cells of a matrix have in common.

    Attributes
    ----------
    selectors : sequence of str
    noises : sequence of Noise
        "human" is skipped for a data set that has no human labels.
    seeds : sequence of int
    model, tuning, device : str
    data_root : Path, optional
        Folder of the files that recipes name.
    results : Path
        Where cells are kept.
    force : bool
        Run cells that are there, too.
    per_class : bool
        Keep metrics of each class.
    cache_dir : Path, optional
    """

    selectors: Sequence[str]
    noises: Sequence[Noise]
    seeds: Sequence[int]
    model: str = "bridge-lite0"
    tuning: str = "auto"
    device: str = "auto"
    data_root: Path | None = None
    results: Path = field(default_factory=lambda: Path("results"))
    force: bool = False
    per_class: bool = False
    cache_dir: Path | None = None


def runnable_selectors(plugins: Plugins, *, model: str, tuning: str, device: str) -> tuple[list[str], dict[str, str]]:
    """Names of the registered selectors that can run, and of the others with what they lack."""
    from deft_plugin.compute import this_process
    from deft_plugin.settings import FROZEN
    from deft_plugin.tuning import pick_tuning

    backbone = plugins.backbones.load(model, model)
    is_frozen = pick_tuning(tuning, backbone, this_process(device).device) == FROZEN
    there = {"cone": backbone.has_cone, "frozen": is_frozen}
    names = [entry.name for entry in plugins.selectors]
    lacks = {entry.name: [need for need in entry.traits.needs if not there[need]] for entry in plugins.selectors}
    return [name for name in names if not lacks[name]], {name: lacks[name][0] for name in names if lacks[name]}


def run_matrix(
    recipes: Sequence[Recipe], settings: MatrixSettings, plugins: Plugins, *, report: Callable[[Cell, bool], None]
) -> list[Cell]:
    """Run all cells that are missing or have failed; a cell that fails does not stop the others.

    Parameters
    ----------
    report : callable
        Told of each cell, and whether it was there already.

    Returns
    -------
    list of Cell
        Of the whole matrix.

    Raises
    ------
    InputError, UnknownNameError
        If a name is unknown, or data cannot be loaded: before anything is run.
    """
    for name in settings.selectors:
        plugins.selectors.load(name)
    for noise in settings.noises:
        if noise.mode != HUMAN:
            plugins.noise_models.load(noise.mode)
    cells: list[Cell] = []
    for recipe in recipes:
        bench = _DataBench(recipe, settings, plugins)
        for cell, is_old in bench.cells():
            cells.append(cell)
            report(cell, is_old)
    return cells


class _DataBench:
    """All cells of one data set: images, features and zero-shot logits are shared by all of them."""

    def __init__(self, recipe: Recipe, settings: MatrixSettings, plugins: Plugins) -> None:
        self._recipe, self._settings, self._plugins = recipe, settings, plugins
        self._base: PreparedRun | None = None

    def cells(self) -> Iterator[tuple[Cell, bool]]:
        """Cells in order, with whether they were there already."""
        for noise in self._settings.noises:
            if noise.mode == HUMAN and (self._recipe.human_labels is None or self._truth.human_labels is None):
                continue
            for seed in self._settings.seeds:
                yield from self._block(noise, seed)

    def _block(self, noise: Noise, seed: int) -> Iterator[tuple[Cell, bool]]:
        """Cells of one noise and seed: all their selectors share one run."""
        files = {name: self._file(name, noise, seed) for name in self._settings.selectors}
        old = {name: cell for name, file in files.items() if (cell := self._read_old(file)) is not None}
        missing = sorted((name for name in files if name not in old), key=self._is_variant)
        yield from ((cell, True) for cell in old.values())
        if not missing:
            return
        given, actual, details = self._noisy_labels(noise, seed)
        labels_file = next(iter(files.values())).parent / "labels.npz"
        labels_file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(labels_file, given_labels=given.astype(np.int32))
        prepared = self._prepare(given, seed, actual)
        is_right = given == self._truth.data.labels
        for name in missing:
            common = {
                "data": self._recipe.name,
                "num_examples": len(given),
                "num_classes": len(self._truth.data.class_names),
                "noise": noise.mode,
                "noise_ratio": actual if noise.mode == HUMAN else noise.ratio,
                "actual_noise_ratio": actual,
                "noise_details": details,
                "labels_hash": hashlib.sha256(np.ascontiguousarray(given, np.int64).tobytes()).hexdigest(),
                "seed": seed,
                "order": missing,
            }
            cell = self._run(name, prepared, is_right, common)
            write_cell(files[name], cell)
            yield cell, False

    def _is_variant(self, name: str) -> bool:
        """Variants go last: what they share with their selector counts as its time."""
        return self._plugins.selectors.get(name).traits.variant_of is not None

    def _run(self, name: str, prepared: PreparedRun, is_right: np.ndarray, common: dict[str, Any]) -> Cell:
        from deft_plugin.compute import compute_dtype

        device = prepared.run.device
        held_bytes("cpu", reset=True)
        started = time.perf_counter()
        selector, traits = self._plugins.selectors.load(name), self._plugins.selectors.get(name).traits
        metrics: dict[str, float | None] = {}
        details: dict[str, Any] = {}
        per_class, histogram, error = None, None, None
        try:
            detection = judge(prepared, name, selector)
            is_clean, quality = ~detection.is_label_issue, detection.label_quality
            metrics, details = cell_metrics(is_clean, quality, is_right), dict(detection.details)
            precision, recall = batch_means(detection, is_right)
            if precision is not None:
                metrics |= {"batch_mean_clean_precision": precision, "batch_mean_clean_recall": recall}
            histogram = quality_histogram(quality, is_right)
            if self._settings.per_class:
                per_class = metrics_of_classes(is_clean, quality, is_right, detection)
        except Exception as raised:
            error = "".join(traceback.format_exception_only(raised)).strip()
        return Cell(
            **common,
            model=self._settings.model,
            tuning=self._tuning(prepared),
            device=device,
            dtype=str(compute_dtype(device)).removeprefix("torch."),
            selector=name,
            consumes=list(traits.consumes),
            is_told_noise_ratio=details.get("noise_ratio_source") == "oracle",
            variant_of=traits.variant_of,
            metrics=metrics,
            per_class=per_class,
            details=details,
            seconds=round(time.perf_counter() - started, 3),
            peak_memory_mb=round(held_bytes("cpu", peak=True) / 2**20, 1),
            encoder_passes=int(prepared.feature_seconds > 0),
            **self._origin,
            error=error,
            quality_histogram=histogram,
        )

    @cached_property
    def _truth(self) -> TrueData:
        return load_data(self._recipe, self._plugins, self._settings.data_root)

    @cached_property
    def _pixels(self) -> np.ndarray:
        return read_pixels(self._truth.data.images)

    @cached_property
    def _origin(self) -> dict[str, Any]:
        """What code ran, the same for all cells of the data set."""
        return {"versions": _versions(), "machine": _machine(), "git_commit": _git_commit()}

    def _read_old(self, file: Path) -> Cell | None:
        """Read a cell that is there and did not fail."""
        if self._settings.force or not file.is_file():
            return None
        cell = read_cell(file)
        return None if cell.error else cell

    def _file(self, selector: str, noise: Noise, seed: int) -> Path:
        return cell_file(
            self._settings.results,
            data=self._recipe.name,
            model=self._settings.model,
            tuning=self._settings.tuning,
            setting=setting_name(noise.mode, noise.ratio),
            seed=seed,
            selector=selector,
        )

    def _noisy_labels(self, noise: Noise, seed: int) -> tuple[np.ndarray, float, dict[str, Any]]:
        """Noisy labels (N,), their actual ratio, and what they depend on."""
        truth = self._truth.data
        details: dict[str, Any] = {}
        if noise.mode == HUMAN:
            given = self._truth.human_labels
            assert given is not None
        else:
            models = self._plugins.noise_models
            model, traits = models.load(noise.mode), models.get(noise.mode).traits
            given = put_noise_in(
                model, truth, traits=traits, noise_ratio=noise.ratio, seed=seed, pixels=lambda: self._pixels
            )
            details = model.describe(len(truth.class_names)) if isinstance(model, DescribedNoise) else {}
        return given, float((given != truth.labels).mean()), details

    def _prepare(self, given: np.ndarray, seed: int, actual: float) -> PreparedRun:
        chosen = self._settings
        settings = RunSettings(
            model=chosen.model,
            tuning=chosen.tuning,
            training=self._recipe.training,
            device=chosen.device,
            seed=seed,
            cache_dir=chosen.cache_dir,
            noise_ratio=actual,
            noise_ratio_source="oracle",
        )
        if self._base is None:
            self._base = prepare_run(self._truth.data, settings=settings, plugins=self._plugins)
        return relabel(self._base, given, settings, plugins=self._plugins)

    def _tuning(self, prepared: PreparedRun) -> str:
        from deft_plugin.tuning import pick_tuning

        backbone, _ = prepared.run.require_images()
        return pick_tuning(self._settings.tuning, backbone, prepared.run.device)


def _versions() -> dict[str, str]:
    names = ("deft-plugin", "torch", "numpy", "scikit-learn", "cleanlab", "open_clip_torch", "timm", "peft")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not a Linux, or none that says
        processor = platform.processor() or platform.machine()
    return f"{processor}, {cores} cores"


def _git_commit() -> str | None:
    """Commit of this code, with "+" if it was changed since; None outside a repository."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
