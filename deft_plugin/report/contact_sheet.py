"""One picture of the worst-ranked images, below each its given label, predicted label and label quality."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from deft_plugin.errors import UnreadableImageError

if TYPE_CHECKING:
    from deft_plugin.results.detection import Detection

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

THUMBNAIL = 176  # side of the square that holds a thumbnail, in px
GAP = 12  # between cells and around them, in px
TEXT_SIZE = 14
TITLE_SIZE = 22
LINE = 19  # height of a line of text below a thumbnail, in px
TITLE_LINE = 30
CELL_WIDTH = THUMBNAIL + GAP
CELL_HEIGHT = THUMBNAIL + 3 * LINE + 2 * GAP
HEADER_HEIGHT = TITLE_LINE + LINE + 2 * GAP

BACKGROUND = (255, 255, 255)
PLACEHOLDER = (214, 214, 214)
FRAME = (242, 242, 242)
INK = (32, 32, 32)
GREY = (110, 110, 110)
RED = (192, 24, 24)
GREEN = (12, 122, 52)

# Pillow's own font has little beyond ASCII. Of these, those that a machine has are tried for other names.
FALLBACK_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "segoeui.ttf",
    "msyh.ttc",
    "wqy-microhei.ttc",
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One image of a contact sheet and what stands below it.

    Attributes
    ----------
    image : PIL.Image.Image or None
        None draws a grey square that says "unreadable".
    given_label, predicted_label : str
    label_quality : float in [0, 1]
        Low = bad.
    row : int, optional
        Position in the data, to find the image again.
    """

    image: Image.Image | None
    given_label: str
    predicted_label: str
    label_quality: float
    row: int | None = None


def contact_sheet_of(detection: Detection, load_image: Callable[[int], Image.Image], *, limit: int = 30) -> Image.Image:
    """Draw the rows that are most likely labelled wrongly, worst first.

    Parameters
    ----------
    detection : Detection
        Its rows are taken in the order of ``ranked_issue_indices()``.
    load_image : callable
        From a row to its image; called for the rows that are drawn, one by one. An `UnreadableImageError`
        gives a grey cell.
    limit : int
        At most so many images.

    Returns
    -------
    PIL.Image.Image
        RGB; only a title if there is no issue.
    """
    issues = detection.ranked_issue_indices()
    rows = [int(row) for row in issues[:limit]]
    num_examples = len(detection.label_quality)
    if rows:
        title = f"{len(rows):,} of {len(issues):,} issues among {num_examples:,} images"
        subtitle = "Worst first, row by row. Quality: 0 = the label is wrong, 1 = it is right."
    else:
        title, subtitle = f"No issue among {num_examples:,} images", ""
    cells = [_cell_of(detection, row, load_image) for row in rows]
    return draw_contact_sheet(cells, title=title, subtitle=subtitle)


def draw_contact_sheet(cells: Sequence[Cell], *, title: str, subtitle: str = "", columns: int = 5) -> Image.Image:
    """Draw cells in a grid, row by row, under a title.

    Names that are too long for a cell are cut and end in an ellipsis.

    Parameters
    ----------
    cells : sequence of Cell
    title, subtitle : str
        Say what is shown, and which end is the worst.
    columns : int, at least 1

    Returns
    -------
    PIL.Image.Image
        RGB, ``columns`` cells wide even if there are fewer.

    Examples
    --------
    >>> photo = Image.new("RGB", (640, 480), "navy")
    >>> cell = Cell(image=photo, given_label="skirt", predicted_label="dress", label_quality=0.03, row=7)
    >>> draw_contact_sheet([cell] * 7, title="7 issues, worst first").size
    (952, 587)
    """
    width = GAP + columns * CELL_WIDTH
    rows = math.ceil(len(cells) / columns)
    sheet = Image.new("RGB", (width, HEADER_HEIGHT + rows * CELL_HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (GAP, GAP), title, colour=INK, size=TITLE_SIZE, width=width - 2 * GAP)
    _write(draw, (GAP, GAP + TITLE_LINE), subtitle, colour=GREY, size=TEXT_SIZE, width=width - 2 * GAP)
    for position, cell in enumerate(cells):
        row, column = divmod(position, columns)
        _draw_cell(sheet, (GAP + column * CELL_WIDTH, HEADER_HEIGHT + row * CELL_HEIGHT), cell)
    return sheet


def _cell_of(detection: Detection, row: int, load_image: Callable[[int], Image.Image]) -> Cell:
    try:
        # Shrunk at once: the sheet never holds more than one photo in full size.
        image = _thumbnail(load_image(row))
    except UnreadableImageError:
        image = None
    names = detection.class_names
    judged = not detection.is_image_issue[row]
    return Cell(
        image=image,
        given_label=names[int(detection.given_labels[row])],
        predicted_label=names[int(detection.predicted_labels[row])] if judged else "-",
        label_quality=float(detection.label_quality[row]),
        row=row,
    )


def _draw_cell(sheet: Image.Image, corner: tuple[int, int], cell: Cell) -> None:
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    if cell.image is None:
        draw.rectangle((left, top, left + THUMBNAIL - 1, top + THUMBNAIL - 1), fill=PLACEHOLDER)
        middle = (left + THUMBNAIL // 2, top + THUMBNAIL // 2)
        draw.text(middle, "unreadable", fill=GREY, font=_font("unreadable", TEXT_SIZE), anchor="mm")
    else:
        draw.rectangle((left, top, left + THUMBNAIL - 1, top + THUMBNAIL - 1), fill=FRAME)
        thumbnail = _thumbnail(cell.image)
        x, y = (left + (THUMBNAIL - thumbnail.width) // 2, top + (THUMBNAIL - thumbnail.height) // 2)
        sheet.paste(thumbnail, (x, y), mask=thumbnail)
    where = "" if cell.row is None else f", row {cell.row}"
    lines = (
        (f"given: {cell.given_label}", RED),
        (f"predicted: {cell.predicted_label}", GREEN),
        (f"quality {cell.label_quality:.2f}{where}", GREY),
    )
    for number, (text, colour) in enumerate(lines):
        at = (left, top + THUMBNAIL + GAP // 2 + number * LINE)
        _write(draw, at, text, colour=colour, size=TEXT_SIZE, width=THUMBNAIL)


def _thumbnail(image: Image.Image) -> Image.Image:
    """Scale an image of any mode to the cell, up or down; RGBA, so that transparency shows the frame."""
    scale = THUMBNAIL / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.convert("RGBA").resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    *,
    colour: tuple[int, int, int],
    size: int,
    width: int,
) -> None:
    # A class name may hold line breaks, or the lone surrogates of a folder name that is not UTF-8.
    text = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    font = _font(text, size)
    draw.text(at, _shortened(text, font, width), fill=colour, font=font)


def _shortened(text: str, font: Font, width: int) -> str:
    """Cut a text to a width in px, the end replaced by an ellipsis."""
    if font.getlength(text) <= width:
        return text
    kept = next((n for n in range(len(text) - 1, 0, -1) if font.getlength(text[:n] + "…") <= width), 0)
    return text[:kept].rstrip() + "…"


def _font(text: str, size: int) -> Font:
    """Choose the font that lacks the fewest letters of `text`; Pillow's own if nothing is better."""
    if text.isascii():
        return _own_font(size)
    letters = {letter for letter in text if not letter.isascii()}
    fonts = (_own_font(size), *_machine_fonts(size))
    return min(fonts, key=lambda font: sum(_lacks(font, letter) for letter in letters))


@functools.lru_cache(maxsize=4)
def _own_font(size: int) -> Font:
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=4)
def _machine_fonts(size: int) -> tuple[Font, ...]:
    fonts: list[Font] = []
    for name in FALLBACK_FONTS:
        with contextlib.suppress(OSError):
            fonts.append(ImageFont.truetype(name, size))
    return tuple(fonts)


def _lacks(font: Font, letter: str) -> bool:
    # What a font lacks is drawn as the same box as this code point, which is never assigned.
    return _drawn(font, letter) == _drawn(font, "\U0010ffff")


def _drawn(font: Font, letter: str) -> bytes:
    square = Image.new("L", (2 * TITLE_SIZE, 2 * TITLE_SIZE))
    ImageDraw.Draw(square).text((0, 0), letter, fill=255, font=font)
    return square.tobytes()
