"""The sections of plots in a report: panels by data set and setting, with what is to be read in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from deft_benchmarks.matrix.cells import Cell
from deft_benchmarks.pages.marks import OURS, Mark
from deft_benchmarks.pages.plots import (
    axis_start,
    precision_and_recall,
    quality_histograms,
    scores_with_intervals,
    seconds_and_f1,
)
from deft_benchmarks.pages.svg import to_svg
from deft_benchmarks.tables.lines import Line, order_selectors

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

HISTOGRAMS = 4  # selectors whose label quality is shown: DeFT and the best others


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A plot and what is written over it."""

    caption: str
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class PlotSection:
    """Panels of one kind.

    Attributes
    ----------
    anchor, title, note : str
    groups : list of (str, list of Panel)
        By data set; its name may be empty.
    marks : list of str
        Selectors that a legend is needed for.
    has_kinds : bool
        True if right and wrong labels are told apart.
    """

    anchor: str
    title: str
    note: str
    groups: list[tuple[str, list[Panel]]]
    marks: list[str]
    has_kinds: bool = False


def plot_sections(
    cells: Sequence[Cell], lines: Sequence[Line], marks: Mapping[str, Mark], prefix: str
) -> list[PlotSection]:
    """Draw all plots of the cells of one model, but the rank diagrams; sections without any panel are left out.

    Parameters
    ----------
    cells : sequence of Cell
    lines : sequence of Line
        Of the same cells.
    marks : mapping of str to Mark
    prefix : str
        Of names in the page.
    """
    sections = (
        _precision_section(lines, marks, f"{prefix}precision"),
        _auroc_section(lines, marks, f"{prefix}auroc-plots"),
        _quality_section(cells, lines, marks, f"{prefix}quality"),
        _seconds_section(lines, marks, f"{prefix}seconds"),
    )
    return [section for section in sections if section.groups]


def _precision_section(lines: Sequence[Line], marks: Mapping[str, Mark], anchor: str) -> PlotSection:
    def draw(found: list[Line], of_data: list[Line]) -> Figure | None:
        chosen = {line.selector: point for line in found if (point := _point(line))}
        known = [point for line in of_data if (point := _point(line))]
        start = axis_start([recall for recall, _ in known]), axis_start([precision for _, precision in known])
        return precision_and_recall(chosen, marks, start) if chosen else None

    return PlotSection(
        anchor=anchor,
        title="Clean precision and recall",
        note="Of the labels that were kept: how many are right, and how many of the right ones are among them. Means "
        "over seeds. Dotted lines have the same F1; the axes are stretched towards 100 %.",
        groups=_panels(lines, draw, "Clean precision against clean recall", anchor),
        marks=_legend(lines, marks, "clean_f1"),
    )


def _auroc_section(lines: Sequence[Line], marks: Mapping[str, Mark], anchor: str) -> PlotSection:
    order = order_selectors(lines, "auroc")

    def draw(found: list[Line], of_data: list[Line]) -> Figure | None:
        means = {line.selector: line.means.get("auroc") for line in found}
        if not any(means.values()):
            return None
        low = axis_start([mean.value for line in of_data if (mean := line.means.get("auroc"))])
        chosen = {name: means[name] for name in order if name in means}
        return scores_with_intervals(chosen, marks, low, "AUROC of label quality → better")

    return PlotSection(
        anchor=anchor,
        title="AUROC with intervals",
        note="Chance that a right label has a higher label quality than a wrong one; 0.5 is guessing. Lines are 95 % "
        "intervals over seeds (Student's t), cut at the edge of a plot; one seed alone has none. The axis is stretched "
        "towards 1.",
        groups=_panels(lines, draw, "AUROC of label quality", anchor),
        marks=[],
    )


def _quality_section(
    cells: Sequence[Cell], lines: Sequence[Line], marks: Mapping[str, Mark], anchor: str
) -> PlotSection:
    counts = _histograms(cells)
    have = {selector for _, _, selector in counts}
    order = [name for name in order_selectors(lines, "auroc") if name in have]
    chosen = sorted(order, key=lambda name: name != OURS)[:HISTOGRAMS]

    def draw(found: list[Line], of_data: list[Line]) -> Figure | None:
        key = found[0].data, found[0].setting
        shown = {name: counts[(*key, name)] for name in chosen if (*key, name) in counts}
        return quality_histograms(shown, marks) if shown else None

    return PlotSection(
        anchor=anchor,
        title="Label quality of right and wrong labels",
        note=f"Of {', '.join(chosen)}: DeFT, if it ran, and the best others by AUROC. Over all seeds; right labels are "
        "counted up, wrong ones down, as shares of their own number. The further apart, the better.",
        groups=_panels(lines, draw, "Histograms of label quality", anchor),
        marks=[],
        has_kinds=True,
    )


def _seconds_section(lines: Sequence[Line], marks: Mapping[str, Mark], anchor: str) -> PlotSection:
    panels: list[Panel] = []
    for number, (data, found) in enumerate(groupby(lines, key=lambda line: line.data)):
        if points := _seconds_and_f1(list(found)):
            svg = to_svg(
                seconds_and_f1(points, marks), label=f"Seconds against clean F1, {data}", name=f"{anchor}-{number}"
            )
            panels.append(Panel(caption=data, svg=svg))
    return PlotSection(
        anchor=anchor,
        title="Time and clean F1",
        note="Means over settings in which all selectors have a score, or over those a selector has if there are none. "
        "The axis of F1 is stretched towards 100 %. Image features are not counted; what a selector shares with one "
        "that ran before it, such as the training of prompts, is counted where it was done first.",
        groups=[("", panels)] if panels else [],
        marks=_legend(lines, marks, "clean_f1"),
    )


def _seconds_and_f1(lines: list[Line]) -> dict[str, tuple[float, float]]:
    """Mean seconds and F1 of each selector over the settings that all of them share."""
    scored = [line for line in lines if "clean_f1" in line.means]
    names = {line.selector for line in scored}
    settings = {line.setting for line in scored}
    shared = {one for one in settings if {line.selector for line in scored if line.setting == one} == names}
    chosen = [line for line in scored if not shared or line.setting in shared]
    found = {name: [line for line in chosen if line.selector == name] for name in sorted(names)}
    return {
        name: (
            float(np.mean([line.seconds for line in own])),
            float(np.mean([line.means["clean_f1"].value for line in own])),
        )
        for name, own in found.items()
    }


def _panels(
    lines: Sequence[Line], draw: Callable[[list[Line], list[Line]], Figure | None], what: str, anchor: str
) -> list[tuple[str, list[Panel]]]:
    """Draw a panel for each setting, told of the lines of the setting and of those of the whole data set."""
    groups: list[tuple[str, list[Panel]]] = []
    for number, (data, of_data) in enumerate(_by_data(lines)):
        panels: list[Panel] = []
        for setting, found in groupby(of_data, key=lambda line: line.setting):
            if (figure := draw(list(found), of_data)) is not None:
                name = f"{anchor}-{number}-{len(panels)}"
                panels.append(Panel(caption=setting, svg=to_svg(figure, label=f"{what}, {data}, {setting}", name=name)))
        if panels:
            groups.append((data, panels))
    return groups


def _by_data(lines: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    for data, found in groupby(lines, key=lambda line: line.data):
        yield data, list(found)


def _point(line: Line) -> tuple[float, float] | None:
    recall, precision = line.means.get("clean_recall"), line.means.get("clean_precision")
    return None if recall is None or precision is None else (recall.value, precision.value)


def _legend(lines: Sequence[Line], marks: Mapping[str, Mark], metric: str) -> list[str]:
    known = {line.selector for line in lines if metric in line.means}
    return [name for name in marks if name in known]


def _histograms(cells: Sequence[Cell]) -> dict[tuple[str, str, str], dict[str, list[int]]]:
    """Sum the histograms over seeds, by data set, setting and selector."""
    found: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    for cell in cells:
        if cell.quality_histogram is not None:
            key = cell.data, cell.setting, cell.selector
            old = found.get(key)
            new = cell.quality_histogram
            found[key] = (
                new
                if old is None
                else {kind: [a + b for a, b in zip(old[kind], new[kind], strict=True)] for kind in new}
            )
    return found
