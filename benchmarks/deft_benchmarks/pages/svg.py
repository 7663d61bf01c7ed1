"""Figures of matplotlib as parts of a page: text stays text, and the page's colours follow its light or dark scheme.

A figure is drawn with stand-ins for colours, see `colour`, that become variables of the page's style sheet. Nothing is
left that a content security policy would forbid: no style attribute, no address.
"""

from __future__ import annotations

import importlib.util
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

SERIES = 7
VARIABLES = ("ink", "muted", "line", "surface", "right", "wrong", *(f"series-{k}" for k in range(SERIES)))
TIP = "tip:"  # an artist with such a gid shows what follows when it is pointed at
_ATTRIBUTES = {
    *("fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap"),
    *("stroke-linejoin", "opacity", "font-size", "font-weight", "text-anchor"),
}
_REFERENCE = re.compile(r"^(url\()?#([^)]+)\)?$")


def colour(name: str) -> str:
    """Stand-in for a variable of the style sheet; the ink's is black, matplotlib's default.

    Examples
    --------
    >>> colour("ink"), colour("muted")
    ('#000000', '#000001')
    """
    return f"#0000{VARIABLES.index(name):02x}"


def require_matplotlib() -> None:
    """Make sure that figures can be drawn.

    Raises
    ------
    InputError
        If matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(
            "Expected matplotlib, which draws the plots of a report, but it is not installed. "
            'Install it with: pip install "deft-plugin[bench]"'
        )


def drawing_style() -> AbstractContextManager[None]:
    """Set matplotlib up for as long as figures are made; its user's settings hold again afterwards."""
    import matplotlib.style

    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "deft",
        "text.parse_math": False,
        "font.size": 10,
        "axes.labelcolor": colour("muted"),
        "axes.edgecolor": colour("line"),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": colour("line"),
        "grid.linewidth": 0.6,
        "xtick.color": colour("line"),
        "ytick.color": colour("line"),
        "xtick.labelcolor": colour("muted"),
        "ytick.labelcolor": colour("muted"),
        "figure.facecolor": "none",
        "axes.facecolor": "none",
    }
    return matplotlib.style.context(["default", settings])


def to_svg(figure: Figure, *, label: str, name: str) -> Markup:
    """Make the element of a figure.

    Parameters
    ----------
    figure : Figure
        Drawn in the style of `drawing_style`, within which this is called; one inch is 72 pixels of the page.
    label : str
        What the figure shows, for those who do not see it.
    name : str
        Its own on the page.
    """
    from markupsafe import Markup

    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's fonts write it, not ours
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for element in list(root.iter()):
        _clean(element)
    _name_parts(root, name)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib = {
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "height": height,
        "role": "img",
        "aria-label": label,
        "stroke-linejoin": "round",
        "fill": "var(--ink)",  # matplotlib leaves out black
    }
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def drawable(name: str, limit: int = 24) -> str:
    """Shorten a name, and replace what XML cannot hold.

    Examples
    --------
    >>> drawable("a" + chr(0) + "b"), drawable("matched_high_confidence_of_all")
    ('a�b', 'matched_high_confidence…')
    """
    text = " ".join(name.encode("utf-8", "replace").decode("utf-8").split())
    text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _clean(element: ElementTree.Element) -> None:
    """Take away name spaces, metadata and styles; keep titles."""
    element.tag = element.tag.rpartition("}")[2]
    for child in list(element):
        if child.tag.rpartition("}")[2] in ("metadata", "style"):
            element.remove(child)
    element.text = _text(element.text)
    element.tail = None
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    attributes |= dict(_presentation(attributes.pop("style", "")))
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    element.attrib = {key: _short(key, value) for key, value in attributes.items()}


def _presentation(style: str) -> Iterator[tuple[str, str]]:
    """Turn a style into attributes; the font is the page's."""
    for part in filter(None, map(str.strip, style.split(";"))):
        key, _, value = (text.strip() for text in part.partition(":"))
        if key == "font" and (found := re.match(r"(?:(\d+) )?([\d.]+)px", value)):  # of older versions of matplotlib
            yield "font-size", found[2]
            if found[1]:
                yield "font-weight", found[1]
        elif key in _ATTRIBUTES:
            yield key, _variable(value)


def _variable(value: str) -> str:
    if re.fullmatch("#0000[0-9a-f]{2}", value) and (index := int(value[5:], 16)) < len(VARIABLES):
        return f"var(--{VARIABLES[index]})"
    return value


def _text(text: str | None) -> str | None:
    return text if text and text.strip() else None


def _short(key: str, value: str) -> str:
    if key not in ("d", "x", "y", "transform", "stroke-dasharray", "points"):
        return value
    return " ".join(re.sub(r"\d+\.\d{3,}", lambda number: f"{round(float(number[0]), 2):g}", value).split())


def _name_parts(root: ElementTree.Element, name: str) -> None:
    """Rename what is referred to, so that no two figures of a page share a name; other names go, tips become titles."""
    found = [_REFERENCE.match(value) for element in root.iter() for value in element.attrib.values()]
    names = {old: f"{name}-{k}" for k, old in enumerate(dict.fromkeys(match[2] for match in found if match))}
    for element in list(root.iter()):
        old = element.attrib.pop("id", "")
        if old in names:
            element.set("id", names[old])
        if old.startswith(TIP):
            title = ElementTree.Element("title")
            title.text = old.removeprefix(TIP)
            element.insert(0, title)
        for key, value in element.attrib.items():
            if match := _REFERENCE.match(value):
                element.set(key, f"url(#{names[match[2]]})" if match[1] else f"#{names[match[2]]}")
