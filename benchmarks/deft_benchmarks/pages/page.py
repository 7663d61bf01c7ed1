"""The results of a benchmark as one HTML file: tables, ranks and plots, and what was run on what.

Like the page of a detection it is made for `file://`: its content security policy allows its styles and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deft_benchmarks.matrix.cells import Cell
from deft_benchmarks.pages.marks import Mark, draw_key, marks_of
from deft_benchmarks.pages.rank_diagram import rank_diagram
from deft_benchmarks.pages.report_plots import PlotSection, plot_sections
from deft_benchmarks.pages.svg import drawing_style, require_matplotlib, to_svg
from deft_benchmarks.tables.layout import ScoreTable, overview, score_tables, variant_tables
from deft_benchmarks.tables.lines import Line, by_model, summarise
from deft_benchmarks.tables.metrics import LOWER_IS_BETTER
from deft_benchmarks.tables.published import PUBLISHED_MODEL, Published
from deft_benchmarks.tables.ranks import Ranking, rank_selectors
from deft_benchmarks.tables.writing import ranking_rows
from deft_plugin.compute import write_text
from deft_plugin.errors import InputError
from deft_plugin.report import csp_hash, read_asset, read_template

if TYPE_CHECKING:
    from markupsafe import Markup

METRICS = {"clean_f1": "Clean F1 (%)", "auroc": "AUROC of label quality"}
STYLES = (("deft_plugin.report", "base.css"), ("deft_benchmarks", "bench_report.css"))


@dataclass(frozen=True, kw_only=True)
class MetricSection:
    """Tables of a metric, and mean ranks by it.

    Attributes
    ----------
    anchor, title : str
    is_higher_better : bool
    tables : list of ScoreTable
        Of each data set, of all, and of variants.
    ranks : list of list of str
        Selector, mean rank, wins, wins with seeds apart.
    note : str
        What the tests say.
    diagram : Markup, optional
        None for fewer than two selectors.
    """

    anchor: str
    title: str
    is_higher_better: bool
    tables: list[ScoreTable]
    ranks: list[list[str]]
    note: str
    diagram: Markup | None

    def has(self, field: str) -> bool:
        """Tell whether any entry has, such as, a published figure."""
        return any(table.has(field) for table in self.tables)


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """All sections of one model."""

    name: str
    metrics: list[MetricSection]
    plots: list[PlotSection]


def write_report_page(
    cells: Sequence[Cell], file: Path, *, published: Published | None = None, title: str = "Selectors compared"
) -> Path:
    """Write the page.

    Parameters
    ----------
    cells : sequence of Cell
    file : Path
    published : dict, optional
        See `deft_benchmarks.tables.published.read_published`.
    title : str

    Raises
    ------
    InputError
        If there is no cell, the file is a folder, or matplotlib is not installed.
    """
    if file.is_dir():
        raise InputError(f"Expected a file to write, such as {file / 'report.html'}, but {file} is a folder.")
    page = render_report_page(cells, published=published, title=title)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, page.encode("utf-8", "replace").decode("utf-8"))  # a name may have lone surrogates
    return file


def render_report_page(
    cells: Sequence[Cell], *, published: Published | None = None, title: str = "Selectors compared"
) -> str:
    """Make the HTML of the page."""
    if not cells:
        raise InputError("Expected cells of deft bench run, but there is none.")
    require_matplotlib()
    from markupsafe import Markup

    oracles = {cell.selector for cell in cells if cell.is_told_noise_ratio}
    marks = marks_of((cell.selector for cell in cells), oracles)
    models = by_model(cells)
    style = "\n".join(read_asset(package, name) for package, name in STYLES)
    with drawing_style():
        keys = [to_svg(draw_key(mark), label="", name=f"mark-{k}") for k, mark in enumerate(marks.values())]
        parts = [
            _model_part(name, own, published, marks, f"model-{k}-" if len(models) > 1 else "")
            for k, (name, own) in enumerate(models.items())
        ]
    return read_template("deft_benchmarks", "bench_report.html.j2").render(
        title=title,
        cells=cells,
        data=_data_rows(cells),
        facts=_facts(cells),
        failed=[cell for cell in cells if cell.error],
        parts=parts,
        marks=marks,
        oracles=[name for name in marks if name in oracles],
        keys=dict(zip(marks, keys, strict=True)),
        key_ids={name: f"key-{k}" for k, name in enumerate(marks)},
        published_model=PUBLISHED_MODEL,
        style=Markup(style),
        style_hash=csp_hash(style),
    )


def _model_part(
    name: str, cells: list[Cell], published: Published | None, marks: Mapping[str, Mark], prefix: str
) -> ModelPart:
    lines = summarise(cells, published)
    metrics = [_metric_section(cells, lines, metric, marks, prefix) for metric in METRICS]
    return ModelPart(
        name=name,
        metrics=metrics,
        plots=plot_sections(cells, [line for line in lines if line.variant_of is None], marks, prefix),
    )


def _metric_section(
    cells: list[Cell], lines: list[Line], metric: str, marks: Mapping[str, Mark], prefix: str
) -> MetricSection:
    lower = metric in LOWER_IS_BETTER
    ranking = rank_selectors(cells, metric, lower_is_better=lower)
    _, ranks, note = ranking_rows(ranking)
    of_data = score_tables(lines, metric)
    tables = [*of_data, overview(lines, metric), *variant_tables(lines, metric)]
    settings = sum(len(table.settings) for table in of_data)
    if left_out := settings - ranking.num_blocks:
        note += f" {left_out} of {settings} settings are left out: a selector is missing or has failed there."
    return MetricSection(
        anchor=f"{prefix}{metric.replace('_', '-')}",
        title=METRICS[metric],
        is_higher_better=not lower,
        tables=tables,
        ranks=ranks,
        note=note,
        diagram=_diagram(ranking, marks, f"{prefix}ranks-{metric}"),
    )


def _diagram(ranking: Ranking, marks: Mapping[str, Mark], name: str) -> Markup | None:
    if len(ranking.selectors) < 2:
        return None
    return to_svg(rank_diagram(ranking, marks), label="Critical-difference diagram of mean ranks", name=name)


def _data_rows(cells: Sequence[Cell]) -> list[dict[str, str]]:
    """Tell what was run on each data set."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.data, []).append(cell)
    return [
        {
            "name": name,
            "examples": _listed(f"{cell.num_examples:,}" for cell in own),
            "classes": _listed(f"{cell.num_classes:,}" for cell in own),
            "settings": _listed(f"{cell.setting} ({_actual(own, cell.setting)})" for cell in own),
            "seeds": _listed(cell.seed for cell in own),
        }
        for name, own in sorted(found.items())
    ]


def _actual(cells: list[Cell], setting: str) -> str:
    """Share of labels that are wrong in a setting, over its seeds.

    A nominal ratio of redrawn labels is higher than the share that comes out wrong.
    """
    ratios = [cell.actual_noise_ratio for cell in cells if cell.setting == setting]
    texts = sorted({f"{100 * ratio:.1f}" for ratio in (min(ratios), max(ratios))}, key=float)
    return f"{' to '.join(texts)} % wrong"


def _facts(cells: Sequence[Cell]) -> dict[str, str]:
    """Tell in the header how it was run."""
    versions: dict[str, set[str]] = {}
    for cell in cells:
        for package, version in cell.versions.items():
            versions.setdefault(package, set()).add(version)
    return {
        "data": _listed(cell.data for cell in cells),
        "models": _listed(cell.model_and_tuning for cell in cells),
        "devices": _listed(f"{cell.device}, {cell.dtype} ({cell.machine})" for cell in cells),
        "seeds": _listed(cell.seed for cell in cells),
        "commits": _listed(cell.git_commit or "unknown" for cell in cells),
        "versions": "; ".join(f"{package} {_listed(found)}" for package, found in versions.items()),
    }


def _listed(values: Iterable[str | int]) -> str:
    return ", ".join(map(str, sorted(set(values), key=lambda value: (not isinstance(value, int), value))))
