"""The page of a benchmark: what is in it, that nothing breaks out of it, and how it looks in a narrow window."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from deft_benchmarks.commands.bench import bench
from deft_benchmarks.matrix.cell_metrics import cell_metrics, quality_histogram
from deft_benchmarks.matrix.cells import cell_file, read_cell, write_cell
from deft_benchmarks.pages.marks import MARKERS, marks_of
from deft_benchmarks.pages.page import render_report_page, write_report_page
from deft_benchmarks.pages.svg import SERIES
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deft_plugin.errors import InputError

SELECTORS = ("deft", "aum", "gmm", "knn_vote", "label_match", "small_loss")
SETTINGS = (("idn", 0.3), ("sym", 0.2), ("sym", 0.6), ("human", 0.35))
HOSTILE = {
    "data": "<img src=x onerror=alert(1)>",
    "noise": "</style><b>",
    "selectors": (
        "deft",
        "</script><script>alert(2)</script>",
        "$a_{b",
        "a\x00\u202e\nb",
        "é 🎉 \ud800",
        "{{ 7 * 7 }}&amp;",
    ),
}


@pytest.fixture(scope="session")
def measured(make_cell):
    """Builder of a cell of 200 labels; selectors with a higher place are worse, with the same random numbers."""

    def build(selector, *, place=0, data="photos", noise="sym", ratio=0.2, seed=0, **changes):
        rng = np.random.default_rng([seed, int(100 * ratio), len(data)])
        is_right = rng.random(200) > ratio
        quality = 1 / (1 + np.exp(-rng.normal(np.where(is_right, 1, -1) * (2.4 - 0.3 * place), 1)))
        fields = {
            "num_examples": 200,
            "num_classes": 10,
            "actual_noise_ratio": float((~is_right).mean()),
            "metrics": cell_metrics(quality > 0.5, quality, is_right),
            "seconds": 0.1 * 3**place,
            "order": list(SELECTORS),
            "quality_histogram": quality_histogram(quality, is_right),
        }
        return make_cell(selector, data=data, noise=noise, ratio=ratio, seed=seed, **{**fields, **changes})

    return build


@pytest.fixture(scope="session")
def make_cells(measured):
    """Builder of the cells of a matrix."""

    def build(*, data=("photos", "clothes"), noises=SETTINGS, seeds=(0, 1, 2), selectors=SELECTORS):
        return [
            measured(selector, place=place, data=name, noise=noise, ratio=ratio, seed=seed)
            for name in data
            for noise, ratio in noises
            for seed in seeds
            for place, selector in enumerate(selectors)
        ]

    return build


def failed(cell, error="RuntimeError: <b>no</b> luck"):
    return dataclasses.replace(cell, metrics={}, quality_histogram=None, error=error)


def texts(elements):
    return [" ".join(each["text"].split()) for each in elements]


def rows_of(page, section, table):
    """Texts of the rows of a table, by their first entry."""
    start = page.elements.index(page.all("table", section=section)[table])
    rows = {}
    for element in page.elements[start + 1 :]:
        if element["tag"] == "table" or element["section"] != section:
            break
        if element["tag"] == "tr":
            current = []
        if element["tag"] in ("th", "td"):
            current.append(" ".join(element["text"].split()))
            rows[current[0]] = current[1:]
    return rows


@pytest.fixture(scope="module")
def cells(make_cells):
    made = make_cells()
    index = next(k for k, one in enumerate(made) if one.selector == "aum" and one.block == ("photos", "sym 0.2", 1))
    made[index] = failed(made[index])
    return made


@pytest.fixture(scope="module")
def html(cells):
    published = {("photos", "sym 0.2", "deft"): {"clean_f1": 0.914, "clean_precision": 0.9, "clean_recall": 0.93}}
    return render_report_page(cells, published=published, title="A & B")


@pytest.fixture(scope="module")
def page(html, parse_page):
    return parse_page(html)


def mean_and_half_width(values):
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return float(np.mean(values)), (high - low) / 2


def scores(cells, metric, selector, data="photos", setting="sym 0.6"):
    chosen = [one for one in cells if (one.data, one.setting, one.selector) == (data, setting, selector)]
    return [one.metrics[metric] for one in chosen if not one.error]


class TestContents:
    def test_header(self, page):
        facts = dict(zip(texts(page.all("dt")), texts(page.all("dd")), strict=True))
        assert facts["Data sets"] == "clothes, photos"
        assert (facts["Selectors"], facts["Seeds"], facts["Cells"], facts["Failed cells"]) == (
            "6",
            "0, 1, 2",
            "144",
            "1",
        )
        assert (facts["Models and tuning"], facts["Device"]) == (
            "bridge-lite0, frozen",
            "cpu, bfloat16 (a processor, 2 cores)",
        )
        assert (facts["Git commits"], facts["Versions"]) == ("abc123", "python 3.11.7; torch 2.9")
        assert texts(page.all("h1")) == texts(page.all("title"))[:1] == ["A & B"]

    def test_contents_lead_to_all_sections(self, page):
        links = [one["href"].removeprefix("#") for one in page.all("a")]
        assert links == [one["aria-labelledby"] for one in page.all("section")]
        assert set(links) <= {one.get("id") for one in page.all("h2")}

    def test_failed_cells(self, page):
        assert rows_of(page, "failed", 0)["photos"] == ["sym 0.2", "1", "aum", "RuntimeError: <b>no</b> luck"]

    def test_scores(self, page, cells):
        for section, metric, scale, digits in (("clean-f1", "clean_f1", 100, 1), ("auroc", "auroc", 1, 3)):
            rows = rows_of(page, section, 1)
            assert rows["selector"] == ["idn 0.3", "sym 0.2", "sym 0.6", "human"]
            mean, half = mean_and_half_width(scores(cells, metric, "gmm"))
            assert rows["gmm"][2] == f"{scale * mean:.{digits}f} ± {scale * half:.{digits}f}"
        assert rows_of(page, "clean-f1", 1)["deft"][1].endswith("(91.4)")
        assert " ! ±" in rows_of(page, "clean-f1", 1)["aum"][1]
        note = " ".join(texts(page.all("p", section="clean-f1")))
        assert "CLIP ViT-B/16" in note
        assert "bridge-lite0, frozen" in note

    def test_variants(self, measured, make_cells, parse_page):
        made = make_cells(data=("photos",), noises=SETTINGS[:2])
        made += [
            measured("deft_too", place=0.5, noise=noise, ratio=ratio, seed=seed, variant_of="deft")
            for noise, ratio in SETTINGS[:2]
            for seed in range(3)
        ]
        page = parse_page(render_report_page(made))
        assert texts(page.all("h3", section="clean-f1")) == [
            *("photos", "mean over ratios", "variants of deft", "Mean ranks"),
        ]
        rows = rows_of(page, "clean-f1", 2)
        assert list(rows) == ["selector", "deft", "deft_too", "best of the others"]
        assert rows["best of the others"] == rows_of(page, "clean-f1", 1)["aum"]
        assert "deft_too" not in {row for table in (0, 1, 3) for row in rows_of(page, "clean-f1", table)}
        assert not any(text.startswith("deft_too") for text in texts(page.all("title")))

    def test_the_best_are_marked(self, page, cells):
        marked = [one for one in page.all("td", section="clean-f1") if one.get("class") == "best"]
        assert len(marked) == 2 * 4 + 2 * 3  # of each data set, and over ratios
        best = max(np.mean(scores(cells, "clean_f1", name)) for name in SELECTORS)
        assert f"{100 * best:.1f}" in [text.split()[0] for text in texts(marked)]

    def test_oracles_are_marked(self, page):
        assert "small_loss *" in rows_of(page, "clean-f1", 0)
        assert "small_loss *" in texts(page.all("li", section="precision"))
        assert not any("small_loss" in text for text in texts(page.all("text", section="clean-f1")))  # not ranked

    def test_ranks(self, page):
        rows = rows_of(page, "auroc", 3)
        assert rows["deft"] == ["1.00", "8 of 8", "23 of 23"]
        assert "Friedman test: p = " in " ".join(texts(page.all("p", section="auroc")))
        assert "critical difference" in " ".join(texts(page.all("text", section="auroc")))

    def test_settings_without_all_selectors_are_left_out_of_ranks(self, make_cells, parse_page):
        made = [
            one for one in make_cells(data=("photos",), seeds=(0,)) if (one.selector, one.noise) != ("gmm", "human")
        ]
        note = " ".join(texts(parse_page(render_report_page(made)).all("p", section="auroc")))
        assert "3 settings, means over seeds." in note
        assert "1 of 4 settings are left out" in note

    def test_what_was_run(self, page, cells):
        ratios = sorted(100 * one.actual_noise_ratio for one in cells if one.data == "photos" and one.noise == "idn")
        row = rows_of(page, "runs", 0)["photos"]
        assert row[:2] == ["200", "10"]
        assert f"idn 0.3 ({ratios[0]:.1f} to {ratios[-1]:.1f} % wrong)" in row[2]

    def test_models_are_kept_apart(self, make_cells, parse_page):
        made = make_cells(data=("photos",), seeds=(0,), noises=SETTINGS[:1])
        other = [dataclasses.replace(one, model="other", metrics={**one.metrics, "clean_f1": 0.25}) for one in made]
        page = parse_page(render_report_page(made + other))
        assert [text for text in texts(page.all("h2")) if "frozen" in text] == ["bridge-lite0, frozen", "other, frozen"]
        assert rows_of(page, "model-1-clean-f1", 0)["gmm"] == ["25.0"]
        assert rows_of(page, "model-0-clean-f1", 0)["gmm"] != ["25.0"]
        ids = [one["id"] for one in page.elements if "id" in one]
        assert len(ids) == len(set(ids))


class TestPlots:
    def test_a_panel_for_each_setting(self, page):
        for section in ("precision", "auroc-plots", "quality"):
            captions = texts(page.all("figcaption", section=section))
            assert captions == ["idn 0.3", "sym 0.2", "sym 0.6", "human"] * 2
        assert texts(page.all("figcaption", section="seconds")) == ["clothes", "photos"]

    def test_points_say_what_they_are(self, page, cells):
        recall, precision = (np.mean(scores(cells, f"clean_{one}", "gmm")) for one in ("recall", "precision"))
        f1 = 2 * precision * recall / (precision + recall)
        tip = f"gmm: recall {recall:.1%}, precision {precision:.1%}, F1 {f1:.1%}"
        assert tip in texts(page.all("title", section="precision"))
        mean, half = mean_and_half_width(scores(cells, "auroc", "small_loss"))
        assert f"small_loss *: {mean:.3f} ± {half:.3f}" in texts(page.all("title", section="auroc-plots"))
        f1 = np.mean([np.mean(scores(cells, "clean_f1", "gmm", setting=one)) for one in _names(SETTINGS)])
        assert f"gmm: 0.9 s, F1 {f1:.1%}" in texts(page.all("title", section="seconds"))

    def test_points_are_in_order_of_their_scores(self, page, cells):
        """The third panel of the second data set: six markers after the ticks, from the left to the right by AUROC."""
        (figure,) = page.all("svg", **{"aria-label": "AUROC of label quality, photos, sym 0.6"})
        start = page.elements.index(figure)
        end = next(k for k, one in enumerate(page.elements[start + 1 :], start + 1) if one["tag"] == "svg")
        places, tip = {}, None
        for element in page.elements[start:end]:
            tip = element["text"].split(":")[0].removesuffix(" *") if element["tag"] == "title" else tip
            if element["tag"] == "use" and tip:
                places[tip] = float(element["x"])
        means = {name: np.mean(scores(cells, "auroc", name)) for name in SELECTORS}
        assert sorted(places, key=places.get) == sorted(means, key=means.get)

    def test_histograms_are_summed_over_seeds(self, page, cells):
        chosen = [one for one in cells if (one.data, one.setting, one.selector) == ("photos", "sym 0.6", "deft")]
        wrong = sum(sum(one.quality_histogram["wrong"]) for one in chosen)
        assert wrong == sum(round(200 * one.actual_noise_ratio) for one in chosen)
        assert f"deft: {wrong} wrong labels" in texts(page.all("title", section="quality"))

    def test_deft_and_the_best_others_have_histograms(self, make_cells, parse_page):
        made = make_cells(data=("photos",), seeds=(0,), noises=SETTINGS[:1], selectors=("aum", "gmm", "b", "c", "deft"))
        titles = texts(parse_page(render_report_page(made)).all("title", section="quality"))
        assert list(dict.fromkeys(text.split(":")[0] for text in titles)) == ["deft", "aum", "gmm", "b"]

    def test_looks_are_the_same_throughout(self, html, page):
        sections = re.sub(r'(?s)aria-labelledby="quality".*?</section>', "", html)
        looks = re.findall(r'<title>gmm: .*?<path[^>]*? d="([^"]+)".*?<use [^>]*fill="([^"]+)"', sections)
        assert len(looks) == 2 * 4 * 2 + 2 + 2
        assert len(set(looks)) == 1
        used = [one["href"] for one in page.all("use") if one["href"].startswith("#key-")]
        assert set(used) == {f"#key-{k}" for k in range(6)}

    def test_no_two_selectors_look_alike(self):
        marks = marks_of(f"selector {k}" for k in range(SERIES * len(MARKERS)))
        assert len({(mark.colour, mark.marker) for mark in marks.values()}) == SERIES * len(MARKERS)


def _names(noises):
    return ["human" if noise == "human" else f"{noise} {ratio:g}" for noise, ratio in noises]


class TestSafety:
    def test_nothing_but_styles_of_its_own(self, html, page):
        (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
        (style,) = page.all("style")
        hash_ = base64.b64encode(hashlib.sha256(style["text"].encode()).digest()).decode()
        assert (
            policy
            == f"default-src 'none'; img-src data:; style-src 'sha256-{hash_}'; base-uri 'none'; form-action 'none'"
        )
        assert not page.all("script")
        assert not [one for one in page.elements if "style" in one or any(name.startswith("on") for name in one)]
        assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)

    def test_references_stay_inside(self, page):
        ids = [one["id"] for one in page.elements if "id" in one]
        assert len(ids) == len(set(ids))
        links = [value for one in page.elements for name, value in one.items() if name in ("href", "src", "clip-path")]
        inner = {re.sub(r"^(url\()?#|\)$", "", link) for link in links} - {"data:,"}
        assert len(inner) > 20
        assert inner <= set(ids)
        described = {one[name] for one in page.elements for name in ("aria-labelledby",) if name in one}
        assert described <= set(ids)

    def test_colours_are_those_of_the_page(self, page):
        (style,) = page.all("style")
        colours = {one.get(name) for one in page.elements for name in ("fill", "stroke")} - {None, "none"}
        assert colours
        assert all(re.fullmatch(r"var\(--[a-z0-9-]+\)", one) and f"{one[4:-1]}:" in style["text"] for one in colours)

    def test_hostile_names(self, tmp_path, make_cells, parse_page):
        made = make_cells(data=(HOSTILE["data"],), noises=((HOSTILE["noise"], 0.2),), selectors=HOSTILE["selectors"])
        made = [dataclasses.replace(one, is_told_noise_ratio=True, model="<i>", git_commit="<u>") for one in made]
        made.append(failed(dataclasses.replace(made[0], seed=9)))
        file = write_report_page(made, tmp_path / "new" / "page.html", title="</title><script>alert(0)</script>")
        page = parse_page(file.read_text(encoding="utf-8"))
        assert not {one["tag"] for one in page.elements} & {"script", "img", "b", "i", "u"}
        assert texts(page.all("h3", section="clean-f1"))[0] == HOSTILE["data"]
        assert "</script><script>alert(2)</script> *" in rows_of(page, "clean-f1", 0)
        assert "{{ 7 * 7 }}&amp; *" in rows_of(page, "clean-f1", 0)
        assert any("$a_{b" in text for text in texts(page.all("text")))

    def test_settings_of_matplotlib_are_left_alone(self, monkeypatch, make_cells):
        import matplotlib

        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
        before = matplotlib.rcParams.copy()
        first = render_report_page(make_cells(data=("photos",), noises=SETTINGS[:1], seeds=(0,)))
        assert matplotlib.rcParams.copy() == before
        with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
            assert render_report_page(make_cells(data=("photos",), noises=SETTINGS[:1], seeds=(0,))) == first


class TestLittle:
    @pytest.mark.parametrize(
        "little", [{"seeds": (4,)}, {"selectors": ("gmm",)}, {"noises": SETTINGS[3:]}], ids=lambda one: next(iter(one))
    )
    def test_one_alone(self, little, make_cells, parse_page):
        page = parse_page(render_report_page(make_cells(**{"data": ("photos",), "noises": SETTINGS[:2], **little})))
        note = " ".join(texts(page.all("p")))
        assert len(page.all("figcaption", section="precision")) == len(little.get("noises", SETTINGS[:2]))
        assert ("Friedman" in note) == ("seeds" in little)
        assert ("with 95 % intervals" in note) == ("seeds" not in little)
        assert bool(page.all("div", **{"aria-label": "Critical-difference diagram"})) == ("selectors" not in little)
        assert any("±" in text for text in texts(page.all("td"))) == ("seeds" not in little)

    def test_all_failed(self, make_cells, parse_page):
        page = parse_page(render_report_page([failed(one) for one in make_cells(data=("photos",), seeds=(0,))]))
        assert [one["aria-labelledby"] for one in page.all("section")] == ["failed", "clean-f1", "auroc", "runs"]
        assert set(rows_of(page, "auroc", 0)["gmm"]) == {"failed"}

    def test_scores_at_the_ends(self, make_cells, parse_page):
        made = make_cells(data=("photos",), noises=SETTINGS[:1], seeds=(0,))
        ends = [{"clean_precision": 1.0, "clean_recall": 1.0, "clean_f1": 1.0, "auroc": 1.0, "auprc": 1.0}]
        ends += [{"clean_precision": 0.0, "clean_recall": 0.0, "clean_f1": 0.0, "auroc": 0.0, "auprc": None}]
        ends += [{"clean_precision": None, "clean_recall": 0.0, "clean_f1": 0.0, "auroc": None, "auprc": None}] * 4
        made = [dataclasses.replace(one, metrics=end, seconds=0.0) for one, end in zip(made, ends, strict=True)]
        titles = texts(parse_page(render_report_page(made)).all("title", section="precision"))
        assert [text.split(":")[0] for text in titles] == ["deft", "aum"]

    def test_cells_without_histograms(self, make_cells, parse_page):
        made = [dataclasses.replace(one, quality_histogram=None) for one in make_cells(seeds=(0,), noises=SETTINGS[:1])]
        assert "quality" not in [one["aria-labelledby"] for one in parse_page(render_report_page(made)).all("section")]


class TestErrors:
    def test_no_matplotlib(self, monkeypatch, cells):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(InputError, match=r'pip install "deft-plugin\[bench\]"'):
            render_report_page(cells)

    def test_no_cell_and_a_folder(self, tmp_path, cells):
        with pytest.raises(InputError, match="there is none"):
            render_report_page([])
        with pytest.raises(InputError, match="is a folder"):
            write_report_page(cells, tmp_path)


class TestHistogram:
    @given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
    @settings(max_examples=100, deadline=None)
    def test_against_numpy(self, rows):
        quality, is_right = np.array([one for one, _ in rows]), np.array([one for _, one in rows])
        counts = quality_histogram(quality, is_right)
        edges = np.linspace(0, 1, 21)
        place = np.minimum(np.searchsorted(edges, quality, side="right") - 1, 19)
        for kind, chosen in (("right", is_right), ("wrong", ~is_right)):
            assert counts[kind] == np.bincount(place[chosen], minlength=20).tolist()

    def test_a_cell_keeps_it(self, tmp_path, measured):
        cell = measured("deft")
        write_cell(tmp_path / "cell.json", cell)
        found = read_cell(tmp_path / "cell.json")
        assert found == cell
        assert sum(found.quality_histogram["right"]) + sum(found.quality_histogram["wrong"]) == 200


def test_command(tmp_path, make_cells, parse_page):
    made = make_cells(data=("photos",), noises=SETTINGS[:2], seeds=(0, 1))
    for one in made:
        names = {"data": one.data, "model": one.model, "tuning": one.tuning, "setting": one.setting}
        file = cell_file(tmp_path / "results", **names, seed=one.seed, selector=one.selector)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_cell(file, one)
    published = tmp_path / "published.csv"
    published.write_text("dataset,noise,selector,clean_precision,clean_recall\nphotos,sym 0.2,gmm,90,80\n")
    output = tmp_path / "page.html"
    options = ["report", str(tmp_path / "results"), "--published", str(published), "--title", "Mine"]
    done = CliRunner().invoke(bench, [*options, "--output", str(output)], catch_exceptions=False)
    assert (done.exit_code, done.output.strip()) == (0, f"wrote {output}")
    page = parse_page(output.read_text(encoding="utf-8"))
    assert rows_of(page, "clean-f1", 0)["gmm"][1].endswith("(84.7)")
    assert texts(page.all("h1")) == ["Mine"]


class TestInBrowser:
    @pytest.fixture
    def open_page(self, browser, html, tmp_path):
        file, contexts, problems = tmp_path / "page.html", [], []
        file.write_text(html, encoding="utf-8")

        def run(**options):
            contexts.append(browser.new_context(**options))
            page = contexts[-1].new_page()
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda one: one.url.startswith(("file:", "data:")) or problems.append(one.url))
            page.goto(file.as_uri())
            return page

        yield run
        for context in contexts:
            context.close()
        assert problems == []

    def test_a_narrow_window_and_both_schemes(self, open_page):
        for scheme in ("light", "dark"):
            page = open_page(viewport={"width": 400, "height": 800}, color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") == 400
            script = "(one) => getComputedStyle(one).backgroundColor"
            ground = _brightness(page.eval_on_selector(".panel", script))
            script = "(all) => all.map((one) => getComputedStyle(one).fill)"
            inks = {_brightness(one) for one in page.eval_on_selector_all(".plot text", script)}
            assert min(abs(ground - ink) for ink in inks) > 200
            widths = page.eval_on_selector_all(
                ".plots svg", "(all) => all.map((one) => one.getBoundingClientRect().width)"
            )
            assert 300 < min(widths) <= max(widths) <= 376


def _brightness(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3]))
