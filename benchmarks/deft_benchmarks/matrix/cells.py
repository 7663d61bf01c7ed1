"""Results of a benchmark: one JSON file for each cell, a selector on one data set with one noise and seed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deft_benchmarks.matrix.json_fields import check_fields
from deft_plugin.compute import write_json
from deft_plugin.errors import InputError
from deft_plugin.settings import read_json

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one selector did in one setting.

    Attributes
    ----------
    data : str
        Name of the data set.
    num_examples, num_classes : int
    noise : str
        Name of the noise model, or "human".
    noise_ratio : float
        Nominal; of human labels the actual one.
    actual_noise_ratio : float
    noise_details : dict
        What the noise depends on beside ratio and seed.
    labels_hash : str
        SHA-256 of the noisy labels as int64; the same for all selectors of a setting.
    seed : int
    model, tuning, device, dtype : str
    selector : str
    consumes : list of str
        What the selector reads.
    is_told_noise_ratio : bool
        True for an oracle.
    variant_of : str, optional
        The selector that this one changes in one respect; variants are compared with it, and not ranked.
    metrics : dict of str to (float or None)
        See `deft_benchmarks.matrix.cell_metrics.cell_metrics`; of the faithful protocol also means over mini-batches.
        Empty if the cell failed.
    per_class : dict, optional
    details : dict
        What the selector says of itself.
    seconds : float
        Of this selector, in a run that others have used before it in the order of `order`.
    order : list of str
        Selectors of the run, in the order in which they ran.
    peak_memory_mb : float, optional
        Highest resident memory of the process while the selector ran; None where the system does not tell.
    encoder_passes : int
        Passes over all images that this data set has cost in this command: 0 if the features were cached, else 1.
    versions : dict of str to str
    machine : str
        Processor, and the cores that the process may use.
    git_commit : str, optional
    error : str, optional
        Why the cell failed.
    quality_histogram : dict of str to list of int, optional
        See `deft_benchmarks.matrix.cell_metrics.quality_histogram`; None if the cell failed.
    fingerprint : str, optional
        Hex digest of all that the verdicts follow from: images, true and noisy labels, class names, settings, selector
        and backbone. None of cells from before there were fingerprints: tables read them, a run does them anew.
    schema_version : int
    """

    data: str
    num_examples: int
    num_classes: int
    noise: str
    noise_ratio: float
    actual_noise_ratio: float
    noise_details: dict[str, Any]
    labels_hash: str
    seed: int
    model: str
    tuning: str
    device: str
    dtype: str
    selector: str
    consumes: list[str]
    is_told_noise_ratio: bool
    variant_of: str | None
    metrics: dict[str, float | None]
    per_class: dict[str, dict[str, float | None]] | None
    details: dict[str, Any]
    seconds: float
    order: list[str]
    peak_memory_mb: float | None
    encoder_passes: int
    versions: dict[str, str]
    machine: str
    git_commit: str | None
    error: str | None = None
    quality_histogram: dict[str, list[int]] | None = None
    fingerprint: str | None = None
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def setting(self) -> str:
        """Noise and ratio, as in tables: "sym 0.4"; "human" has no ratio of its own."""
        return setting_name(self.noise, self.noise_ratio)

    @property
    def model_and_tuning(self) -> str:
        """What cells must have in common to be averaged or ranked together."""
        return f"{self.model}, {self.tuning}"

    @property
    def block(self) -> tuple[str, str, int]:
        """What selectors are compared in: data set, setting and seed."""
        return self.data, self.setting, self.seed


def setting_name(noise: str, ratio: float) -> str:
    """Name a noise for people.

    Examples
    --------
    >>> setting_name("sym", 0.4), setting_name("human", 0.402)
    ('sym 0.4', 'human')
    """
    return noise if noise == "human" else f"{noise} {ratio:g}"


def cell_file(folder: Path, *, data: str, model: str, tuning: str, setting: str, seed: int, selector: str) -> Path:
    """Where a cell is kept: the path follows from what the cell is, and is below the folder whatever the names are.

    Examples
    --------
    >>> cell_file(Path("r"), data="CIFAR-100", model="a/b", tuning="frozen", setting="sym 0.4", seed=1, selector="gmm")
    PosixPath('r/cifar-100/a-b-frozen/sym-0.4/seed-1/gmm.json')
    """
    where = folder / _slug(data.lower()) / f"{_slug(model.lower())}-{_slug(tuning)}" / _slug(setting.lower())
    return where / f"seed-{seed}" / f"{_slug(selector)}.json"


def write_cell(file: Path, cell: Cell) -> None:
    """Write a cell as a whole, or not at all; one of other data that is there is kept beside it.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    try:
        if file.exists() and why_not_again(file, cell.fingerprint) is not None:
            os.replace(file, _free_name_beside(file))
        write_json(file, dataclasses.asdict(cell))
    except OSError as error:
        raise InputError(
            f"Expected to write {file}, but: {error}. Free some space, or pass other --results."
        ) from error


def why_not_again(file: Path, fingerprint: str | None) -> str | None:
    """Say in words why a file is not the cell that a run would write there; None if it is, or failed.

    Parameters
    ----------
    file : Path
    fingerprint : str, optional
        Of the cell that the run would write.
    """
    try:
        cell = read_cell(file)
    except InputError as error:
        return str(error)
    if cell.fingerprint is None and not cell.error:
        return f"{file} does not say by a fingerprint of which data it is."
    if cell.fingerprint != fingerprint and not cell.error:
        return f"{file} is of other data, labels or settings."
    return None


def read_cell(file: Path) -> Cell:
    """Read a cell.

    Raises
    ------
    InputError
        If the file is no cell of this version.
    """
    content = read_json(file, what="a cell of a benchmark")
    if (found := content.get("schema_version")) != SCHEMA_VERSION:
        raise InputError(f"Expected {file} to be a cell of version {SCHEMA_VERSION}, but it has {found!r:.40}.")
    check_fields(Cell, content, str(file))
    try:
        return Cell(**content)
    except TypeError as error:  # a field too few, or too many
        raise InputError(f"Expected {file} to be a cell of a benchmark, but: {error}.") from error


def read_cells(folders: Iterator[Path] | list[Path]) -> list[Cell]:
    """Read all cells below some folders; a file that is none is left out with a warning.

    Raises
    ------
    InputError
        If there is none, or two cells are of one block (data, model, setting and seed) but of different labels.
    """
    files = sorted(file for folder in folders for file in folder.rglob("*.json"))
    cells = {file: cell for file in files if (cell := _read_or_warn(file)) is not None}
    if not cells:
        raise InputError("Expected results of deft bench run, but found no cell there.")
    first: dict[object, Path] = {}
    for file, cell in cells.items():
        other = first.setdefault((cell.block, cell.model_and_tuning), file)
        if cell.labels_hash != cells[other].labels_hash:
            raise InputError(
                f"Expected cells of one block to be of the same labels, but {other} and {file} are not. Run the older "
                "one again, or move it elsewhere."
            )
    return list(cells.values())


def _read_or_warn(file: Path) -> Cell | None:
    try:
        return read_cell(file)
    except InputError as error:
        warnings.warn(f"{error} It is left out; run again, or remove it.", stacklevel=3)
        return None


_LONGEST_NAME = 100
"""Bytes: file systems take 255, and a name is one of several parts."""


def _free_name_beside(file: Path) -> Path:
    """Give a name that no table reads."""
    return next(
        free for number in range(1, 10**6) if not (free := file.with_name(f"{file.name}.kept-{number}")).exists()
    )


def _slug(name: str) -> str:
    """Make a name the part of a path: letters, digits, dots and underscores, and neither hidden nor ``..``."""
    slug = "-".join("".join(c if c.isalnum() or c in "._" else " " for c in name).split()).lstrip(".-")
    if slug and len(slug.encode()) <= _LONGEST_NAME:
        return slug
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{slug[:20]}-{digest}".lstrip("-")
