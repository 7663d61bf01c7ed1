"""The page of a report in a real browser, opened from ``file://``: filters, review by keyboard, exports, names that
are hostile, dark scheme and a narrow window.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from deft_plugin.data.digests import image_digest
from deft_plugin.results.detection import Detection

NAMES = (
    "shirt",
    "dress",
    "<img src=x onerror=alert(1)>",
    'a "quoted",\n name; é',
    "=</script><script>alert(2)</script>",
)
SIZE = 150
UNREADABLE = 7
SAME = 3  # the row whose predicted label is the given one


class Photos:
    def __len__(self):
        return SIZE

    def load(self, row):
        return Image.new("RGB", (40, 30), (row, 255 - row, 60))

    def path(self, row):
        return f"photos/<b onmouseover=alert(3)>/{row:03d}'\".png"

    def fingerprint(self):
        return "photos"


def make_detection():
    """All rows but 20 are issues; quality rises with the row."""
    rows = np.arange(SIZE)
    given = rows % len(NAMES)
    predicted = (given + 1 + (rows % 7 == 0)) % len(NAMES)
    quality = np.linspace(0.001, 0.999, SIZE)
    digests = np.frombuffer(b"".join(image_digest(Photos().load(row)) for row in rows), np.uint8).reshape(-1, 16).copy()
    predicted[SAME] = given[SAME]
    predicted[UNREADABLE], quality[UNREADABLE], digests[UNREADABLE] = -1, 0, 0
    return Detection(
        method="deft",
        label_quality=quality,
        is_label_issue=rows < SIZE - 20,
        predicted_labels=predicted,
        given_labels=given,
        class_names=NAMES,
        image_digests=digests,
        is_image_issue=rows == UNREADABLE,
        settings={"model": "fake", "seed": 0},
        images=Photos(),
    )


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    return make_detection().report(tmp_path_factory.mktemp("page") / "page.html", title="<i>Photos</i>")


@pytest.fixture
def open_page(browser, page_file):
    """Open a page; what goes wrong in it fails the test."""
    contexts, problems = [], []

    def run(file=page_file, context=None, **options):
        if context is None:
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda one: one.url.startswith(("file:", "data:", "blob:")) or problems.append(one.url))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield run
    for context in contexts:
        context.close()
    assert problems == []


def shown(page):
    """Rows of the cards that are there, in their order."""
    return page.eval_on_selector_all(".card", "cards => cards.map((card) => Number(card.dataset.row))")


def marks(page):
    found = page.eval_on_selector_all(".card", "cards => cards.map((card) => [card.dataset.row, card.dataset.mark])")
    return {int(row): mark for row, mark in found if mark != "none"}


def current(page):
    return int(page.get_attribute(".card[aria-current]", "data-row"))


def export(page, kind, folder):
    with page.expect_download() as download:
        page.click(f"#export-{kind}")
    assert download.value.suggested_filename == f"review.{kind}"
    file = folder / f"review.{kind}"
    download.value.save_as(file)
    return file


def choose(page, keys):
    for key in keys:
        page.keyboard.press(key)


class TestGallery:
    def test_hostile_names_are_text(self, open_page):
        page = open_page()
        assert page.title() == "<i>Photos</i>"
        page.hover(".card .file")
        page.wait_for_timeout(100)  # what an image or a script of a name would need to run
        given = page.eval_on_selector_all(".card dd.given", "all => all.slice(0, 5).map((one) => one.textContent)")
        assert given == list(NAMES)
        assert page.query_selector_all("b, i, img[onerror], [onmouseover]") == []
        assert page.evaluate("document.scripts.length") == page.evaluate(
            "document.querySelectorAll('script[type=\"application/json\"]').length + 1"
        )

    def test_images_are_seen_and_made_as_they_are_needed(self, open_page):
        page = open_page()
        assert shown(page)[:8] == [0, 1, 2, 3, 4, 5, 6, 8]
        assert len(shown(page)) < 130
        page.wait_for_function("document.querySelector('.card img').naturalWidth === 40")
        page.focus(".card")
        page.keyboard.press("End")
        assert current(page) == UNREADABLE
        card = page.locator(".card[aria-current]")
        assert card.locator(".picture").inner_text() == "unreadable"
        assert [button.is_enabled() for button in card.locator("button").all()] == [False, False, True]

    def test_a_cell_of_the_matrix(self, open_page):
        page = open_page()
        cell = page.locator('.cell[data-given="0"][data-predicted="1"]')
        count = int(cell.inner_text())
        cell.click()
        assert cell.get_attribute("aria-pressed") == "true"
        assert page.inner_text("#shown") == f"{count} of 130 images"
        assert shown(page) == [row for row in range(130) if row % 5 == 0 and row % 7]
        pair = page.locator('.pair[data-given="0"][data-predicted="1"]')
        assert pair.get_attribute("aria-pressed") == "true"
        cell.click()
        assert page.inner_text("#shown") == "130 images"
        page.locator(".pair").first.click()
        assert page.locator(".pair").first.get_attribute("aria-pressed") == "true"
        assert page.inner_text("#shown") != "130 images"

    def test_filters(self, open_page):
        page = open_page()
        page.select_option("#filter-given", "2")
        assert all(row % 5 == 2 for row in shown(page))
        assert page.get_attribute('.class-row[data-given="2"]', "aria-pressed") == "true"
        page.select_option("#filter-predicted", "-1")
        assert shown(page) == [UNREADABLE]
        page.click("#reset")
        assert page.inner_text("#shown") == "130 images"
        page.fill("#search", "ROW 12 dress")
        assert all("12" in str(row) for row in shown(page))
        page.fill("#search", "nothing like it")
        assert shown(page) == []
        assert page.is_visible("#empty")
        page.keyboard.press("Escape")
        choose(page, "kdr")
        page.click("#reset")
        assert marks(page) == {}
        page.locator(".class-row").first.click()
        assert page.inner_text("#shown") == "26 of 130 images"

    def test_order(self, open_page):
        page = open_page()
        page.select_option("#sort", "best")
        assert shown(page)[:4] == [UNREADABLE, 129, 128, 127]
        page.select_option("#sort", "given")
        assert shown(page)[:3] == [0, 5, 10]
        page.select_option("#sort", "predicted")
        assert shown(page)[0] == UNREADABLE
        page.select_option("#sort", "worst")
        assert shown(page)[:3] == [0, 1, 2]


class TestReview:
    def test_by_keyboard_and_back_into_the_detection(self, open_page, tmp_path):
        page = open_page()
        page.focus(".card")
        choose(page, ["k", "d", "r"])
        assert current(page) == SAME
        choose(page, ["r"])  # the predicted label is the given one: a label must be chosen
        assert "choose a new label" in page.inner_text("#said")
        page.select_option("#new-label", "4")
        page.keyboard.press("Escape")
        choose(page, ["ArrowRight", "r", "d", "u"])
        assert current(page) == 5
        choose(page, ["k"])
        assert marks(page) == {0: "keep", 1: "drop", 2: "relabel", 3: "relabel", 4: "relabel", 5: "keep"}
        assert page.inner_text("#progress") == "6 of 130 decided"
        before = make_detection()
        reviewed = before.apply_review(export(page, "csv", tmp_path))
        assert before.apply_review(export(page, "json", tmp_path)) == reviewed
        assert reviewed.decisions[:7].tolist() == ["keep", "drop", "relabel", "relabel", "relabel", "keep", "none"]
        predicted = before.predicted_labels
        assert reviewed.reviewed_labels()[:6].tolist() == [0, -1, predicted[2], 4, predicted[4], 0]
        assert set(reviewed.decisions[7:]) == {"none"}

    def test_every_class_survives_the_export(self, open_page, tmp_path):
        page = open_page()
        page.focus(".card")
        choose(page, ["r"] * SAME)
        choose(page, ["n", "r", "r", "r"])
        for kind in ("csv", "json"):
            reviewed = make_detection().apply_review(export(page, kind, tmp_path))
            rows = np.flatnonzero(reviewed.decisions == "relabel")
            assert rows.tolist() == [0, 1, 2, 4, 5, 6]
            np.testing.assert_array_equal(reviewed.predicted_labels[rows], make_detection().predicted_labels[rows])
            assert len(set(reviewed.given_labels[rows])) >= 4
        assert b"'=</script>" in (tmp_path / "review.csv").read_bytes(), "no formula"
        records = json.loads((tmp_path / "review.json").read_text(encoding="utf-8"))
        assert list(records[0]) == ["row", "image_digest", "given_label", "decision", "new_label"]
        assert records[0]["image_digest"] == make_detection().image_digests[0].tobytes().hex()

    def test_by_mouse(self, open_page):
        page = open_page()
        card = page.locator('.card[data-row="2"]')
        drop = card.get_by_role("button", name="Drop")
        drop.click()
        assert marks(page) == {2: "drop"}
        assert current(page) == 2
        assert drop.get_attribute("aria-pressed") == "true"
        card.get_by_role("button", name="Keep").click()
        assert marks(page) == {2: "keep"}
        card.get_by_role("button", name="Keep").click()
        assert marks(page) == {}
        assert not page.is_enabled("#export-csv")
        for left in ({2: "keep"}, {2: "drop"}, {}):
            page.click("#undo")
            assert marks(page) == left
        assert not page.is_enabled("#undo")

    def test_by_decision(self, open_page):
        page = open_page()
        page.focus(".card")
        choose(page, ["k", "d", "d"])
        page.click('[data-filter-decision="drop"]')
        assert shown(page) == [1, 2]
        page.click('[data-filter-decision="none"]')
        assert page.inner_text("#shown") == "127 of 130 images"
        counts = page.eval_on_selector_all("[data-filter-decision] .count", "all => all.map((one) => one.textContent)")
        assert counts == ["130", "127", "1", "0", "2"]

    def test_an_unreadable_image_can_only_be_dropped(self, open_page, tmp_path):
        page = open_page()
        page.select_option("#filter-predicted", "-1")
        page.focus(".card")
        choose(page, ["k", "r", "c"])
        assert marks(page) == {}
        assert "can only be dropped" in page.inner_text("#said")
        choose(page, ["d"])
        assert make_detection().apply_review(export(page, "csv", tmp_path)).decisions[UNREADABLE] == "drop"

    def test_keys_that_are_typed_or_belong_to_the_browser(self, open_page):
        page = open_page()
        choose(page, ["/"])
        page.keyboard.type("dk")
        assert page.input_value("#search") == "dk"
        page.keyboard.press("Escape")
        page.fill("#search", "")
        page.focus(".card")
        choose(page, ["Control+k", "Alt+d"])
        assert marks(page) == {}

    def test_arrows_go_by_rows_and_scroll_the_page_elsewhere(self, open_page):
        page = open_page()
        page.keyboard.press("ArrowDown")
        assert current(page) == 0
        page.focus(".card")
        page.keyboard.press("ArrowDown")
        above = page.locator(".card").first.bounding_box()
        below = page.locator(".card[aria-current]").bounding_box()
        assert below["x"] == above["x"]
        assert below["y"] > above["y"]
        page.keyboard.press("ArrowUp")
        assert current(page) == 0

    def test_decisions_are_kept_for_this_detection_alone(self, open_page, tmp_path):
        page = open_page()
        page.focus(".card")
        choose(page, ["k", "d"])
        again = open_page(context=page.context)
        assert marks(again) == {0: "keep", 1: "drop"}
        other = make_detection()
        other.label_quality[0] = 0.0005
        elsewhere = open_page(file=other.report(tmp_path / "other.html"), context=page.context)
        assert marks(elsewhere) == {}

    def test_a_browser_that_keeps_nothing(self, browser, open_page):
        context = browser.new_context()
        context.add_init_script(
            "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
        )
        page = open_page(context=context)
        assert "does not keep your decisions" in page.inner_text("#said")
        page.focus(".card")
        choose(page, ["k"])
        assert marks(page) == {0: "keep"}
        context.close()

    def test_a_review_of_a_review(self, open_page, tmp_path):
        page = open_page()
        page.focus(".card")
        choose(page, ["k", "d", "r"])
        first = make_detection().apply_review(export(page, "csv", tmp_path))
        page = open_page(file=first.report(tmp_path / "first.html"))
        assert marks(page) == {0: "keep", 1: "drop", 2: "relabel"}
        page.focus(".card")
        choose(page, ["d", "u", "n", "k"])
        assert marks(page) == {0: "keep", 1: "keep", 2: "relabel"}
        second = first.apply_review(export(page, "json", tmp_path))
        assert second.decisions[:4].tolist() == ["keep", "keep", "relabel", "none"]


class TestLooks:
    def test_dark_scheme(self, open_page):
        colours = [
            open_page(color_scheme=scheme).evaluate(
                "() => ['body', '.card'].map((one) => getComputedStyle(document.querySelector(one)).backgroundColor)"
            )
            for scheme in ("light", "dark")
        ]
        brightness = [[sum(map(int, one[4:-1].split(","))) for one in pair] for pair in colours]
        assert min(brightness[0]) > 600
        assert max(brightness[1]) < 150

    def test_a_narrow_window_is_not_scrolled_sideways(self, open_page):
        page = open_page(viewport={"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        page.focus(".card")
        page.keyboard.press("d")
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        bar = page.locator(".review").bounding_box()
        assert bar["height"] < 160, "the bar leaves room for the images"
        assert page.locator(".card").first.bounding_box()["width"] > 150

    def test_everything_that_can_be_used_has_a_name(self, open_page):
        page = open_page()
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll("button, select, input")].filter((one) =>
                !one.textContent.trim() && !one.getAttribute("aria-label") && !one.labels?.length)
                .map((one) => one.outerHTML)"""
        )
        assert unnamed == []
        assert page.locator("h1").count() == 1
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
