"""Mean ranks as a critical-difference diagram: a bar joins selectors that the Nemenyi test does not tell apart.

References
----------
Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, figure 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from deft_benchmarks.pages.marks import Mark, draw_mark
from deft_benchmarks.pages.svg import TIP, colour
from deft_benchmarks.tables.ranks import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 680  # pixels; the others are, too
_LEFT, _RIGHT = 200, 480
_AXIS, _FIRST_CLIQUE, _CLIQUE_STEP, _ROW = 56, 66, 7, 19


def cliques(mean_ranks: Sequence[float], critical_difference: float) -> list[tuple[int, int]]:
    """Find the largest groups whose mean ranks differ by less than the critical difference.

    Parameters
    ----------
    mean_ranks : sequence of float
        The best first.
    critical_difference : float

    Returns
    -------
    list of (int, int)
        First and last member of each group of two or more.

    Examples
    --------
    >>> cliques([1.0, 2.0, 2.5, 4.0], 1.6)
    [(0, 2), (2, 3)]
    """
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(mean_ranks):
        last = max(k for k in range(first, len(mean_ranks)) if k == first or mean_ranks[k] - rank < critical_difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def rank_diagram(ranking: Ranking, marks: Mapping[str, Mark]) -> Figure:
    """Draw the diagram of two selectors or more, the best on the left."""
    from matplotlib.figure import Figure

    critical, size = ranking.critical_difference, len(ranking.selectors)
    groups = [] if critical is None else cliques(ranking.mean_ranks, critical)
    first_row = _FIRST_CLIQUE + _CLIQUE_STEP * len(groups) + 12
    height = first_row + _ROW * ((size + 1) // 2 - 1) + 12
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    places = [_place(rank, size) for rank in ranking.mean_ranks]
    _draw_axis(axes, size)
    if critical is not None:
        _draw_critical_difference(axes, critical, size)
    for row, (first, last) in enumerate(groups):
        y = _FIRST_CLIQUE + _CLIQUE_STEP * row
        axes.plot(
            [places[first] - 3, places[last] + 3],
            [y, y],
            color=colour("ink"),
            linewidth=3.5,
            gid=f"{TIP}not told apart: {', '.join(marks[name].label for name in ranking.selectors[first : last + 1])}",
        )
    for index, name in enumerate(ranking.selectors):
        is_left = index < (size + 1) // 2
        y = first_row + _ROW * (index if is_left else size - 1 - index)
        _draw_selector(axes, marks[name], ranking.mean_ranks[index], (places[index], y), is_left=is_left)
    return figure


def _place(rank: float, size: int) -> float:
    return _LEFT + (rank - 1) / (size - 1) * (_RIGHT - _LEFT)


def _draw_axis(axes: Axes, size: int) -> None:
    axes.plot([_LEFT, _RIGHT], [_AXIS, _AXIS], color=colour("ink"), linewidth=1)
    step = 1 if size <= 12 else 2
    for rank in range(1, size + 1):
        x, is_named = _place(rank, size), (rank - 1) % step == 0
        axes.plot([x, x], [_AXIS - (6 if is_named else 3), _AXIS], color=colour("ink"), linewidth=1)
        if is_named:
            axes.text(x, _AXIS - 9, str(rank), ha="center", va="baseline", color=colour("muted"))
    axes.text(_LEFT - 12, _AXIS, "better ← mean rank", ha="right", va="center", color=colour("muted"))


def _draw_critical_difference(axes: Axes, critical: float, size: int) -> None:
    """Draw its length over the axis; it may be longer."""
    end, text = _place(1 + min(critical, size - 1), size), f"critical difference {critical:.2f}"
    axes.plot([_LEFT, _LEFT, _LEFT, end, end, end], [13, 21, 17, 17, 13, 21], color=colour("ink"), linewidth=1.2)
    note = ", longer than the axis" if critical > size - 1 else ""
    axes.text(end + 8, 17, text + note, va="center_baseline", color=colour("ink"))


def _draw_selector(axes: Axes, mark: Mark, rank: float, place: tuple[float, float], *, is_left: bool) -> None:
    x, y = place
    end = _LEFT - 12 if is_left else _RIGHT + 12
    axes.plot([x, x, end], [_AXIS, y, y], color=colour("muted"), linewidth=0.9)
    draw_mark(axes, mark, end, y, tip=f"{TIP}{mark.label}: mean rank {rank:.2f}")
    text = f"{mark.label} ({rank:.2f})"
    axes.text(end + (-9 if is_left else 9), y, text, ha="right" if is_left else "left", va="center_baseline")
