"""Selectors over many blocks: mean ranks, and whether they differ by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deft_benchmarks.matrix.cells import Cell


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Mean ranks of selectors over blocks in which all of them ran; rank 1 is the best, ties share their mean.

    Attributes
    ----------
    selectors : tuple of str
        The best first.
    mean_ranks : tuple of float
    wins : tuple of int
        Blocks in which a selector was best, alone or with others.
    num_blocks : int
    wins_of_seeds : tuple of int
        The same with a block for each seed.
    num_blocks_of_seeds : int
    p_value : float, optional
        Of the Friedman test: how likely such differences are if all were equally good. None for fewer than three
        selectors or two blocks.
    critical_difference : float, optional
        Nemenyi, alpha 0.05: mean ranks that differ by less are not told apart.
    left_out : tuple of str
        Selectors that are not ranked.

    References
    ----------
    Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006.
    """

    selectors: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    wins: tuple[int, ...]
    num_blocks: int
    wins_of_seeds: tuple[int, ...]
    num_blocks_of_seeds: int
    p_value: float | None
    critical_difference: float | None
    left_out: tuple[str, ...]


def rank_selectors(cells: Sequence[Cell], metric: str, *, lower_is_better: bool = False) -> Ranking:
    """Rank the selectors in each block, and average.

    Variants, selectors that are told the true noise ratio, and those without any score are not ranked. Blocks in which
    a selector is missing or has failed are left out. Seeds of one setting are not independent, so the
    blocks are settings: scores are averaged over seeds first.

    Parameters
    ----------
    cells : sequence of Cell
    metric : str
    lower_is_better : bool
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    oracles = {cell.selector for cell in cells if cell.is_told_noise_ratio}
    ranked = [cell for cell in cells if cell.variant_of is None and cell.selector not in oracles]
    names = sorted({cell.selector for cell in ranked if cell.metrics.get(metric) is not None})
    scores = _scores(ranked, metric, names)  # (blocks, selectors)
    of_seeds = _scores(ranked, metric, names, seeds_apart=True)
    left_out = tuple(sorted({cell.selector for cell in cells} - set(names)))
    if not len(scores):
        return Ranking(
            selectors=(),
            mean_ranks=(),
            wins=(),
            num_blocks=0,
            wins_of_seeds=(),
            num_blocks_of_seeds=0,
            p_value=None,
            critical_difference=None,
            left_out=left_out,
        )
    ranks, ranks_of_seeds = (rankdata(each if lower_is_better else -each, axis=1) for each in (scores, of_seeds))
    wins, wins_of_seeds = ((each == each.min(1, keepdims=True)).sum(0) for each in (ranks, ranks_of_seeds))
    mean_ranks = ranks.mean(0)
    size, count = len(names), len(scores)
    p_value, critical = None, None
    if size >= 3 and count >= 2:
        all_tied = (ranks == ranks.mean()).all()  # scipy divides by zero then
        p_value = 1.0 if all_tied else float(friedmanchisquare(*scores.T).pvalue)
        quantile = float(studentized_range.ppf(0.95, size, np.inf)) / np.sqrt(2)
        critical = float(quantile * np.sqrt(size * (size + 1) / (6 * count)))
    order = np.argsort(mean_ranks, kind="stable")
    return Ranking(
        selectors=tuple(names[k] for k in order),
        mean_ranks=tuple(float(mean_ranks[k]) for k in order),
        wins=tuple(int(wins[k]) for k in order),
        num_blocks=count,
        wins_of_seeds=tuple(int(wins_of_seeds[k]) for k in order),
        num_blocks_of_seeds=len(of_seeds),
        p_value=p_value,
        critical_difference=critical,
        left_out=left_out,
    )


def _scores(cells: Sequence[Cell], metric: str, names: list[str], *, seeds_apart: bool = False) -> np.ndarray:
    """Mean over seeds (blocks, selectors) of the settings in which every selector has a score."""
    found: dict[tuple[str, str, int | None], dict[str, list[float]]] = {}
    for cell in cells:
        if cell.selector in names and (value := cell.metrics.get(metric)) is not None:
            block = cell.data, cell.setting, cell.seed if seeds_apart else None
            found.setdefault(block, {}).setdefault(cell.selector, []).append(value)
    whole = [values for values in found.values() if set(values) == set(names)]
    return np.array([[np.mean(values[name]) for name in names] for values in whole]).reshape(len(whole), len(names))
