"""Runs a matrix of cells: data sets, noises, seeds and selectors; what is there already is not run again."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deft_benchmarks.matrix.blocks import DataBench
from deft_benchmarks.matrix.cells import Cell, cell_file, read_cell, setting_name, why_not_again, write_cell
from deft_benchmarks.matrix.recipes import Recipe
from deft_benchmarks.matrix.settings import HUMAN, MatrixSettings, Noise
from deft_plugin.compute import check_folder_can_be_written, write_bytes
from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins


def runnable_selectors(plugins: Plugins, *, model: str, tuning: str, device: str) -> tuple[list[str], dict[str, str]]:
    """Names of the registered selectors that can run, and of the others with what they lack."""
    from deft_plugin.compute import this_process
    from deft_plugin.settings import FROZEN
    from deft_plugin.tuning import pick_tuning

    backbone = plugins.backbones.load(model, model)
    is_frozen = pick_tuning(tuning, backbone, this_process(device).device) == FROZEN
    there = {"cone": backbone.has_cone, "frozen": is_frozen}
    lacks = {entry.name: [need for need in entry.traits.needs if not there[need]] for entry in plugins.selectors}
    can_run = [name for name, needs in lacks.items() if not needs]
    return can_run, {name: needs[0] for name, needs in lacks.items() if needs}


def run_matrix(
    recipes: Sequence[Recipe], settings: MatrixSettings, plugins: Plugins, *, report: Callable[[Cell, bool], None]
) -> list[Cell]:
    """Run all cells that are missing or have failed; a cell that fails does not stop the others.

    A file that is there is used if its fingerprint is that of the cell: of the same data, labels and settings. Else
    a warning says so, the cell is run anew, and the file kept beside it.

    Parameters
    ----------
    recipes : sequence of Recipe
    settings : MatrixSettings
    plugins : Plugins
    report : callable
        Told of each cell, and whether it was there already.

    Returns
    -------
    list of Cell
        Of the whole matrix.

    Raises
    ------
    InputError, UnknownNameError
        If a name is unknown, data cannot be loaded, or results cannot be written: before anything is run.
    """
    _check_folder(settings.results)
    names = {
        cell_file(Path(), data=recipe.name, model="", tuning="", setting="", seed=0, selector="") for recipe in recipes
    }
    if len(names) < len(recipes):
        given = ", ".join(repr(recipe.name) for recipe in recipes)
        raise InputError(
            f"Expected data sets of different names, but got {given}. Run them into --results of their own."
        )
    benches = [(recipe, DataBench(recipe, settings, plugins)) for recipe in recipes]
    for _, bench in benches:
        _ = bench.truth
    cells: list[Cell] = []
    for recipe, bench in benches:
        for noise in settings.noises:
            if noise.mode == HUMAN and not bench.has_human_labels:
                continue
            for seed in settings.seeds:
                for cell, is_old in _run_block(bench, recipe, settings, noise, seed):
                    cells.append(cell)
                    report(cell, is_old)
    return cells


def _run_block(
    bench: DataBench, recipe: Recipe, settings: MatrixSettings, noise: Noise, seed: int
) -> Iterator[tuple[Cell, bool]]:
    """Cells of one block, with whether they were there already; those that were not are written."""
    files = {name: _file(recipe, settings, name, noise, seed) for name in settings.selectors}
    block = bench.block(noise, seed)
    old: dict[str, Cell] = {}
    for name, file in files.items():
        if file.exists() and not settings.force and (cell := _read_old(file, bench.fingerprint(block, name), settings)):
            old[name] = cell
    yield from ((cell, True) for cell in old.values())
    missing = [name for name in files if name not in old]
    if not missing:
        return
    _write_labels(next(iter(files.values())).parent / "labels.npz", block.given_labels)
    for judged in bench.judge(block, missing):
        write_cell(files[judged.cell.selector], judged.cell)
        yield judged.cell, False


def _file(recipe: Recipe, settings: MatrixSettings, selector: str, noise: Noise, seed: int) -> Path:
    return cell_file(
        settings.results,
        data=recipe.name,
        model=settings.run.model,
        tuning=settings.run.tuning,
        setting=setting_name(noise.mode, noise.ratio),
        seed=seed,
        selector=selector,
    )


def _read_old(file: Path, fingerprint: str, settings: MatrixSettings) -> Cell | None:
    """Read a cell that is there, is the one that would be run, has what is asked for, and did not fail."""
    if (why := why_not_again(file, fingerprint)) is not None:
        warnings.warn(f"{why} It is kept beside the new one, which is run now.", stacklevel=2)
        return None
    cell = read_cell(file)
    lacks_classes = settings.per_class and cell.per_class is None
    return None if cell.error or lacks_classes else cell


def _write_labels(file: Path, labels: np.ndarray) -> None:
    """Write noisy labels as a whole, or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, given_labels=labels.astype(np.int32))
    write_bytes(file, content.getvalue())


def _check_folder(folder: Path) -> None:
    """Find out before the work whether results can be written."""
    try:
        check_folder_can_be_written(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"Expected --results to be a folder that can be written, but {folder}: {error}.") from error
