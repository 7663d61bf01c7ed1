"""The plots of a report, one panel each, in the style of `deft_benchmarks.pages.svg.drawing_style`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_benchmarks.matrix.cell_metrics import HISTOGRAM_BINS
from deft_benchmarks.pages.marks import Mark, draw_mark
from deft_benchmarks.pages.svg import TIP, colour
from deft_benchmarks.tables.lines import Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 340  # pixels of a panel
F1_LEVELS = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99)
SCORE_TICKS = (0, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 1)
SHARE_TICKS = (-50, -10, 10, 50)
_LABEL_WIDTH, _LABEL_HEIGHT = 0.09, 0.045  # of a panel
_ROW, _HISTOGRAM_ROW = 17, 78


def precision_and_recall(
    points: Mapping[str, tuple[float, float]], marks: Mapping[str, Mark], start: tuple[float, float]
) -> Figure:
    """Draw clean precision against clean recall, over lines of equal F1.

    Parameters
    ----------
    points : mapping of str to (float, float)
        Recall and precision in [0, 1], by selector.
    marks : mapping of str to Mark
    start : (float, float)
        Where the axes of recall and precision begin, in [0, 1); they end at 1.
    """
    figure, axes = _panel(300, left=44, right=40, bottom=38, top=24)
    _stretch(axes, "x", start[0])
    _stretch(axes, "y", start[1])
    axes.set_xlabel("clean recall (%) → better")
    axes.set_ylabel("clean precision (%) → better")
    _draw_f1_lines(axes, *start)
    for name, (recall, precision) in points.items():
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        tip = f"{marks[name].label}: recall {recall:.1%}, precision {precision:.1%}, F1 {f1:.1%}"
        draw_mark(axes, marks[name], 100 * recall, 100 * precision, tip=TIP + tip)
    return figure


def _draw_f1_lines(axes: Axes, recall_start: float, precision_start: float) -> None:
    """Draw lines that are named where they meet the upper edge, or else the right one, as far as there is room."""
    to_axes = axes.transData - axes.transAxes
    upper = right = -math.inf
    for level in F1_LEVELS:
        lowest = level / (2 - level)  # recall where precision is 1, and the other way round
        x, y = to_axes.transform((100 * lowest, 100 * lowest))
        if lowest >= recall_start and x > upper + _LABEL_WIDTH:
            name = f"{100 * level:g}" if math.isfinite(upper) else f"F1 {100 * level:g}"
            upper, place = x, (x, 1.05, "center", "baseline")
        elif precision_start <= lowest < recall_start and y > right + _LABEL_HEIGHT:
            name = f"F1 {100 * level:g}"
            right, place = y, (1.03, y, "left", "center")
        else:
            continue
        recall = np.linspace(max(recall_start, lowest), 1, 200)
        precision = level * recall / (2 * recall - level)
        shown, dots = precision >= precision_start, (0, (2, 3))
        line = 100 * recall[shown], 100 * precision[shown]
        axes.plot(*line, color=colour("muted"), linewidth=0.7, linestyle=dots, zorder=1)
        text = axes.text(*place[:2], name, transform=axes.transAxes, size=8.5, color=colour("muted"))
        text.set(ha=place[2], va=place[3])


def _stretch(axes: Axes, which: str, start: float, *, unit: float = 100) -> None:
    """Scale an axis that ends at 1 by the logarithm of what is missing, plus 0.01: most scores are near 1.

    Parameters
    ----------
    axes : Axes
    which : {"x", "y"}
    start : float in [0, 1)
    unit : float
        What 1 is on the axis, such as 100 for %.
    """

    def missing(values: np.ndarray) -> np.ndarray:
        return -np.log(1.01 - np.minimum(values / unit, 1))

    def back(scaled: np.ndarray) -> np.ndarray:
        return unit * (1.01 - np.exp(-scaled))

    scale: Any = axes.set_xscale if which == "x" else axes.set_yscale
    scale("function", functions=(missing, back))
    ticks = [tick for tick in SCORE_TICKS if tick >= start]
    axes.set(**{f"{which}lim": (unit * start, unit), f"{which}ticks": [unit * tick for tick in ticks]})
    axes.set(**{f"{which}ticklabels": [f"{unit * tick:g}" for tick in ticks]})


def scores_with_intervals(
    means: Mapping[str, Mean | None], marks: Mapping[str, Mark], low: float, label: str
) -> Figure:
    """Draw a score in [0, 1] of each selector, and its 95 % interval if it has one; None has failed.

    Parameters
    ----------
    means : mapping of str to (Mean or None)
        From top to bottom.
    marks : mapping of str to Mark
    low : float in [0, 1)
        Where the axis begins; it ends at 1.
    label : str
        Of the axis.
    """
    figure, axes = _panel(_ROW * len(means) + 48, left=152, right=12, bottom=38, top=10)
    axes.set_ylim(len(means) - 0.5, -0.5)
    _stretch(axes, "x", low, unit=1)
    axes.set_xlabel(label, x=1, ha="right")
    axes.set_yticks(range(len(means)), [marks[name].label for name in means])
    axes.tick_params(axis="y", length=0, labelcolor=colour("ink"))
    for row, (name, mean) in enumerate(means.items()):
        if mean is None:
            axes.text(low, row, " failed", va="center", color=colour("muted"))
            continue
        tip = f"{marks[name].label}: {mean.value:.3f}"
        if mean.half_width is not None:
            ends = [mean.value - mean.half_width, mean.value + mean.half_width]
            axes.plot(ends, [row, row], color=marks[name].colour, linewidth=1.8, solid_capstyle="butt")
            tip += f" ± {mean.half_width:.3f}"
        draw_mark(axes, marks[name], mean.value, row, tip=TIP + tip)
    return figure


def quality_histograms(counts: Mapping[str, Mapping[str, Sequence[int]]], marks: Mapping[str, Mark]) -> Figure:
    """Draw label quality of right labels (up) and wrong labels (down), each as shares of their number.

    Parameters
    ----------
    counts : mapping of str to mapping of str to sequence of int
        See `deft_benchmarks.matrix.cell_metrics.quality_histogram`, by selector, from top to bottom.
    marks : mapping of str to Mark
    """
    figure = _figure(_HISTOGRAM_ROW * len(counts) + 40)
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    for row, (name, kinds) in enumerate(counts.items()):
        bottom = 38 + _HISTOGRAM_ROW * (len(counts) - 1 - row)
        axes = _axes(figure, 52, bottom, WIDTH - 12, bottom + _HISTOGRAM_ROW - 22)
        axes.set(xlim=(0, 1), ylim=(-100, 100))
        axes.set_yscale("function", functions=(_signed_root, _signed_square))
        axes.set_yticks(SHARE_TICKS, [str(abs(tick)) for tick in SHARE_TICKS])
        axes.set_title(marks[name].label, loc="left", size=10, pad=4)
        for kind, sign in (("right", 1), ("wrong", -1)):
            tip = f"{TIP}{marks[name].label}: {sum(kinds[kind]):,} {kind} labels"
            axes.stairs(sign * _shares(kinds[kind]), edges, fill=True, color=colour(kind), linewidth=0, gid=tip)
        axes.axhline(0, color=colour("ink"), linewidth=0.7)
        is_last = row == len(counts) - 1
        axes.tick_params(axis="x", labelbottom=is_last)
        axes.set_xlabel("label quality (0 = surely wrong, 1 = surely right)" if is_last else "")
    text = "share of the labels (%), square-root scale"
    figure.text(10 / WIDTH, 0.5, text, rotation=90, va="center", ha="center", color=colour("muted"))
    return figure


def _shares(counts: Sequence[int]) -> np.ndarray:
    """Turn counts into % of their sum."""
    array = np.asarray(counts, np.float64)
    return 100 * array / max(array.sum(), 1.0)


def _signed_root(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.square(values)


def seconds_and_f1(points: Mapping[str, tuple[float, float]], marks: Mapping[str, Mark]) -> Figure:
    """Draw clean F1 against seconds on a logarithmic axis.

    Parameters
    ----------
    points : mapping of str to (float, float)
        Seconds, and F1 in [0, 1], by selector.
    marks : mapping of str to Mark
    """
    figure, axes = _panel(300, left=44, right=14, bottom=38, top=10)
    seconds = {name: max(value, 1e-3) for name, (value, _) in points.items()}
    lowest, highest = min(seconds.values()), max(seconds.values())
    room = max(1.25, math.sqrt(10 * lowest / highest))  # the axis spans ten times at least
    axes.set_xscale("log")
    axes.set_xlim(lowest / room, highest * room)
    _stretch(axes, "y", axis_start([f1 for _, f1 in points.values()]))
    ticker = _ticker()
    span = math.log10(highest / lowest) + 2 * math.log10(room)
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0) if span < 2.2 else (1.0,)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xlabel("better ← seconds per run, log scale")
    axes.set_ylabel("clean F1 (%) → better")
    for name, (_, f1) in points.items():
        tip = f"{marks[name].label}: {seconds[name]:.3g} s, F1 {f1:.1%}"
        draw_mark(axes, marks[name], seconds[name], 100 * f1, tip=TIP + tip)
    return figure


def axis_start(scores: Sequence[float], step: float = 0.05) -> float:
    """Find where an axis that ends at 1 begins: at a multiple of a step, a little below all scores.

    Examples
    --------
    >>> axis_start([0.93, 0.68]), axis_start([0.01])
    (0.65, 0.0)
    """
    lowest = min(scores, default=0.0)
    return round(min(max(math.floor((lowest - step / 5) / step) * step, 0.0), 1 - 2 * step), 10)


def _panel(height: int, *, left: int, right: int, bottom: int, top: int) -> tuple[Figure, Axes]:
    figure = _figure(height)
    return figure, _axes(figure, left, bottom, WIDTH - right, height - top)


def _figure(height: int) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH / 72, height / 72))


def _axes(figure: Figure, left: float, bottom: float, right: float, top: float) -> Axes:
    """Add axes between edges in pixels from the lower left: panels side by side are alike."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes((left / width, bottom / height, (right - left) / width, (top - bottom) / height))


def _ticker() -> Any:
    import matplotlib.ticker

    return matplotlib.ticker
