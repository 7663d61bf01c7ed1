import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageFont

from deft_plugin.errors import UnreadableImageError
from deft_plugin.report import contact_sheet
from deft_plugin.report.contact_sheet import (
    BACKGROUND,
    CELL_HEIGHT,
    CELL_WIDTH,
    FRAME,
    GAP,
    GREEN,
    HEADER_HEIGHT,
    PLACEHOLDER,
    RED,
    THUMBNAIL,
    Cell,
    contact_sheet_of,
    draw_contact_sheet,
)

BLUE = (0, 0, 255)


def cell(image: Image.Image | None = None, given: str = "skirt", predicted: str = "dress") -> Cell:
    return Cell(image=image, given_label=given, predicted_label=predicted, label_quality=0.03, row=7)


def picture(size: tuple[int, int] = (40, 40)) -> Image.Image:
    return Image.new("RGB", size, BLUE)


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(axis=-1).sum())


def thumbnail_box(position: int, columns: int = 5) -> tuple[int, int, int, int]:
    row, column = divmod(position, columns)
    left, top = GAP + column * CELL_WIDTH, HEADER_HEIGHT + row * CELL_HEIGHT
    return left, top, left + THUMBNAIL, top + THUMBNAIL


def caption_box(position: int, columns: int = 5) -> tuple[int, int, int, int]:
    left, top, right, bottom = thumbnail_box(position, columns)
    return left, bottom, right, top + CELL_HEIGHT


@pytest.mark.parametrize(("num_cells", "columns", "rows"), [(0, 5, 0), (1, 5, 1), (5, 5, 1), (6, 5, 2), (7, 2, 4)])
def test_grid(num_cells: int, columns: int, rows: int):
    sheet = draw_contact_sheet([cell(picture())] * num_cells, title="worst first", columns=columns)
    assert sheet.mode == "RGB"
    assert sheet.size == (GAP + columns * CELL_WIDTH, HEADER_HEIGHT + rows * CELL_HEIGHT)
    assert count(sheet, BLUE) == num_cells * THUMBNAIL**2
    for position in range(rows * columns):
        expected = BLUE if position < num_cells else BACKGROUND
        assert sheet.crop(thumbnail_box(position, columns)).getcolors() == [(THUMBNAIL**2, expected)]


def test_caption_is_drawn_below_its_image_and_nowhere_else():
    sheet = draw_contact_sheet([cell(picture())], title="")
    caption = sheet.crop(caption_box(0))
    assert count(caption, RED) > 20
    assert count(caption, GREEN) > 20
    assert count(sheet, RED) == count(caption, RED)
    # The given label stands above the predicted one.
    pixels = np.asarray(caption)
    red_rows = np.flatnonzero((pixels == RED).all(-1).any(1))
    green_rows = np.flatnonzero((pixels == GREEN).all(-1).any(1))
    assert red_rows.max() < green_rows.min()


def test_what_is_written_is_seen():
    def drawn(**changes: object) -> bytes:
        return draw_contact_sheet([dataclasses.replace(cell(), **changes)], title="t").tobytes()

    changes = ({"given_label": "shirt"}, {"predicted_label": "hat"}, {"label_quality": 0.5}, {"row": 8})
    assert len({drawn(), *(drawn(**change) for change in changes)}) == 5
    titles = {draw_contact_sheet([], title=title, subtitle=sub).tobytes() for title, sub in ["ab", "aa", "ba"]}
    assert len(titles) == 3


@pytest.mark.parametrize("name", ["a" * 300, "long class name " * 20, "W" * 40, "短裤" * 60])
def test_long_names_are_cut_to_the_cell(name: str):
    sheet = draw_contact_sheet([cell(picture(), name, name)], title=name, subtitle=name)
    right_of_cell = sheet.crop((GAP + THUMBNAIL, HEADER_HEIGHT, *sheet.size))
    assert right_of_cell.getcolors() == [(right_of_cell.width * right_of_cell.height, BACKGROUND)]
    margin = sheet.crop((sheet.width - GAP, 0, sheet.width, HEADER_HEIGHT))
    assert margin.getcolors() == [(margin.width * margin.height, BACKGROUND)]


def test_shortened_ends_in_an_ellipsis_and_keeps_what_fits():
    font = ImageFont.load_default(14)
    assert contact_sheet._shortened("dress", font, 100) == "dress"
    short = contact_sheet._shortened("given: a very long class name", font, 100)
    assert short.startswith("given: a")
    assert short.endswith("…")
    assert font.getlength(short) <= 100 < font.getlength(short[:-1] + "name…")
    assert contact_sheet._shortened("dress", font, 1) == "…"


@pytest.mark.parametrize("name", ["", "naïve", "短裤", "рубашка", "👗", "a\nb\tc", "\x00", "broken\udcff", "שמלה"])
def test_any_name_is_drawn(name: str):
    sheet = draw_contact_sheet([cell(picture(), name, name)], title=name)
    assert count(sheet.crop(caption_box(0)), RED) > 20  # "given:" at least


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (4000, 3), (3, 4000), (300, 200)])
def test_any_shape_fits_the_square_in_the_middle(size: tuple[int, int]):
    sheet = draw_contact_sheet([cell(picture(size))], title="")
    square = np.asarray(sheet.crop(thumbnail_box(0)))
    is_image = (square == BLUE).all(-1)
    height, width = is_image.any(1).sum(), is_image.any(0).sum()
    assert max(height, width) == THUMBNAIL
    assert width / height == pytest.approx(np.clip(size[0] / size[1], 1 / THUMBNAIL, THUMBNAIL), rel=0.01)
    assert (square[~is_image] == FRAME).all()
    assert np.abs(np.argwhere(is_image).mean(0) - (THUMBNAIL - 1) / 2).max() <= 0.5


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_any_usual_mode(mode: str):
    sheet = draw_contact_sheet([cell(picture().convert("RGB").convert(mode))], title="")
    assert sheet.crop(thumbnail_box(0)).getcolors() != [(THUMBNAIL**2, FRAME)]


def test_transparency_shows_the_frame():
    sheet = draw_contact_sheet([cell(Image.new("RGBA", (10, 10), (0, 0, 255, 0)))], title="")
    assert sheet.crop(thumbnail_box(0)).getcolors() == [(THUMBNAIL**2, FRAME)]


def test_missing_image_is_a_grey_cell_with_a_word_in_it():
    square = draw_contact_sheet([cell(None)], title="").crop(thumbnail_box(0))
    assert THUMBNAIL**2 * 0.9 < count(square, PLACEHOLDER) < THUMBNAIL**2 - 50


@dataclasses.dataclass
class Judged:
    """What `contact_sheet_of` reads of a detection: four issues, worst first, of which row 2 is no image."""

    label_quality = np.array([0.2, 0.3, 0.1, 0.9, 0.0])
    given_labels = np.array([0, 1, 1, 0, 1])
    predicted_labels = np.array([1, 0, -1, 0, 0])
    is_image_issue = np.array([False, False, True, False, False])
    class_names = ("skirt", "dress")
    issues = (4, 2, 0, 1)

    def ranked_issue_indices(self) -> np.ndarray:
        return np.array(self.issues, dtype=int)


def load(row: int) -> Image.Image:
    if row == 2:
        raise UnreadableImageError("row 2")
    return Image.new("RGB", (50, 50), (0, 0, 50 * row + 1))


def test_sheet_of_a_detection_is_worst_first_and_limited():
    asked: list[int] = []

    def load_and_note(row: int) -> Image.Image:
        asked.append(row)
        return load(row)

    sheet = contact_sheet_of(Judged(), load_and_note, limit=3)
    assert asked == [4, 2, 0]
    assert sheet.height == HEADER_HEIGHT + CELL_HEIGHT
    middles = [sheet.crop(thumbnail_box(position)).getpixel((5, 5)) for position in range(4)]
    assert middles == [(0, 0, 201), PLACEHOLDER, (0, 0, 1), BACKGROUND]


def test_sheet_of_a_detection_writes_names_and_quality(monkeypatch: pytest.MonkeyPatch):
    seen: dict[str, object] = {}

    def note(cells: list[Cell], **texts: str) -> Image.Image:
        seen.update(cells=[(c.given_label, c.predicted_label, c.label_quality, c.row) for c in cells], **texts)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(contact_sheet, "draw_contact_sheet", note)
    contact_sheet_of(Judged(), load, limit=3)
    # An image that cannot be read has no predicted label; -1 must not name the last class.
    assert seen["cells"] == [("dress", "skirt", 0.0, 4), ("dress", "-", 0.1, 2), ("skirt", "dress", 0.2, 0)]
    assert seen["title"] == "3 of 4 issues among 5 images"
    assert "Worst first" in str(seen["subtitle"])


def test_no_issue_says_so():
    clean = Judged()
    clean.issues = ()
    sheet = contact_sheet_of(clean, load)
    assert sheet.height == HEADER_HEIGHT
    assert len(sheet.getcolors(maxcolors=1000) or []) > 1
