"""Runs a matrix of cells: data sets, noises, seeds and selectors; what is there already is not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deft_benchmarks.matrix.blocks import DataBench
from deft_benchmarks.matrix.cells import Cell, cell_file, read_cell, setting_name, write_cell
from deft_benchmarks.matrix.recipes import Recipe
from deft_benchmarks.matrix.settings import HUMAN, MatrixSettings, Noise

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
        If a name is unknown, or data cannot be loaded: before anything is run.
    """
    cells: list[Cell] = []
    for recipe in recipes:
        bench = DataBench(recipe, settings, plugins)
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
    old = {} if settings.force else {name: cell for name, file in files.items() if (cell := _read_old(file))}
    yield from ((cell, True) for cell in old.values())
    missing = [name for name in files if name not in old]
    if not missing:
        return
    block = bench.block(noise, seed)
    labels_file = next(iter(files.values())).parent / "labels.npz"
    labels_file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(labels_file, given_labels=block.given_labels.astype(np.int32))
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


def _read_old(file: Path) -> Cell | None:
    """Read a cell that is there and did not fail."""
    cell = read_cell(file) if file.is_file() else None
    return None if cell is None or cell.error else cell
