"""How selectors look in plots: each has a colour and a marker of its own, the same in all plots of a page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deft_benchmarks.pages.svg import SERIES, colour, drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS = "deft"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # as many as have no divisor in common with the colours
LARGER = {"*": 1.5, "^": 1.15, "v": 1.15, "P": 1.15, "X": 1.15, "D": 0.9}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Look of a selector; `label` is its name, with "*" for an oracle."""

    label: str
    colour: str
    marker: str


def marks_of(selectors: Iterable[str], oracles: Iterable[str] = ()) -> dict[str, Mark]:
    """Give selectors their looks, DeFT first, the others by the alphabet: neighbours differ in colour and marker.

    Examples
    --------
    >>> marks = marks_of(["gmm", "deft", "aum"], oracles=["gmm"])
    >>> list(marks), marks["gmm"].label
    (['deft', 'aum', 'gmm'], 'gmm *')
    """
    told = set(oracles)
    names = sorted(set(selectors), key=lambda name: (name != OURS, name))
    return {
        name: Mark(
            label=drawable(name) + (" *" if name in told else ""),
            colour=colour(f"series-{index % SERIES}"),
            marker=MARKERS[index % len(MARKERS)],
        )
        for index, name in enumerate(names)
    }


def draw_mark(axes: Axes, mark: Mark, x: float, y: float, *, tip: str | None = None, size: float = 7.5) -> None:
    """Draw a marker, in full even at the edge, with a rim that parts it from others."""
    axes.plot(
        [x],
        [y],
        linestyle="none",
        marker=mark.marker,
        color=mark.colour,
        markersize=size * LARGER.get(mark.marker, 1.0),
        markeredgecolor=colour("surface"),
        markeredgewidth=0.8,
        clip_on=False,
        zorder=5,
        gid=tip,
    )


def draw_key(mark: Mark) -> Figure:
    """Draw a marker alone, for a legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16 / 72, 16 / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-1, 1), ylim=(-1, 1))
    axes.set_axis_off()
    draw_mark(axes, mark, 0, 0, size=9)
    return figure
