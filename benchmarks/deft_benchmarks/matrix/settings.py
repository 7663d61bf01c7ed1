"""What a matrix is of: its selectors, noises and seeds, and what all of its cells have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deft_plugin.errors import InputError
from deft_plugin.settings import RunSettings

HUMAN = "human"


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A noise model and its nominal ratio; "human" has none."""

    mode: str
    ratio: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise InputError(f"Expected noise_ratio in [0, 1), such as 0.4 for 40 %, but got {self.ratio!r}.")

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
            number = float(ratio) if colon else 0.0
        except ValueError as error:
            raise InputError(f"Expected a noise ratio such as 0.4 in {text!r}.") from error
        return cls(mode=mode, ratio=number)


@dataclass(frozen=True, kw_only=True)
class MatrixSettings:
    """What all cells of a matrix have in common.

    Attributes
    ----------
    selectors : sequence of str
    noises : sequence of Noise
        "human" is skipped for a data set that has no human labels.
    seeds : sequence of int
    run : RunSettings
        Model, tuning, device and so on; seed, noise ratio and training are those of a cell.
    data_root : Path, optional
        Folder of the files that recipes name.
    results : Path
        Where cells are kept.
    force : bool
        Run cells that are there, too.
    per_class : bool
        Keep metrics of each class.
    """

    selectors: Sequence[str]
    noises: Sequence[Noise]
    seeds: Sequence[int]
    run: RunSettings = field(default_factory=RunSettings)
    data_root: Path | None = None
    results: Path = field(default_factory=lambda: Path("results"))
    force: bool = False
    per_class: bool = False
