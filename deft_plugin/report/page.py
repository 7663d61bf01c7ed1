"""A page to look at: one HTML file with figures of a detection, and its issues for a person to decide upon.

The page is made for `file://`: it holds its styles, scripts and thumbnails, and its content security policy allows
nothing else, neither the network nor a script that a class or file name might smuggle in.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from deft_plugin.compute.files import check_file_can_be_written, write_text
from deft_plugin.data.judged import JudgedImages, check_same_count, check_same_labels
from deft_plugin.data.reading import ImageData, read_image_data
from deft_plugin.data.sources import ImageSource
from deft_plugin.data.stored import holds_dataset
from deft_plugin.errors import InputError
from deft_plugin.report.figures import PAIRS, issues_of_classes, matrix_of_labels, pairs_of_labels, quality_histogram
from deft_plugin.report.html import csp_hash, read_asset, read_template
from deft_plugin.report.thumbnails import read_thumbnail, thumbnail_format
from deft_plugin.results.detection import MAX_IMAGES, Detection
from deft_plugin.results.review import UNDECIDED

THUMBNAILS_PER_BLOCK = 100  # a block is parsed when one of its thumbnails is to be seen
STYLES = ("base.css", "report.css")
SCRIPTS = ("marks.js", "export.js", "filters.js", "gallery.js", "keys.js", "report.js")


def write_page(
    detection: Detection, file: Path, images: ImageSource, *, title: str | None = None, max_images: int = MAX_IMAGES
) -> Path:
    """Write the page; see `deft_plugin.results.detection.Detection.report`.

    Parameters
    ----------
    detection : Detection
    file : Path
    images : ImageSource of length N
        That were judged.
    title : str, optional
    max_images : int, at least 1
        At most so many issues are shown, the worst ones.
    """
    if max_images < 1:
        raise InputError(f"Expected max_images of at least 1, but got {max_images}.")
    check_file_can_be_written(file)
    page = render_page(detection, images, title=title, max_images=max_images)
    write_text(file, page.encode("utf-8", "replace").decode("utf-8"))  # a name that is no UTF-8 has lone surrogates
    return file


def render_page(
    detection: Detection, images: ImageSource, *, title: str | None = None, max_images: int = MAX_IMAGES
) -> str:
    """Make the HTML of the page."""
    from markupsafe import Markup

    style = "\n".join(read_asset("deft_plugin.report", name) for name in STYLES)
    script = "\n".join(read_asset("deft_plugin.report", name) for name in SCRIPTS)
    rows = _rows_to_show(detection)
    return read_template("deft_plugin.report", "report.html.j2").render(
        **_figures(detection),
        title=title or f"Label issues found by {detection.method}",
        detection=detection,
        names=detection.class_names,
        num_rows=len(rows),
        page=_page_data(detection, images, rows[:max_images]),
        thumbnails=_thumbnail_blocks(detection, images, rows[:max_images]),
        style=Markup(style),
        script=Markup(script),
        style_hash=csp_hash(style),
        script_hash=csp_hash(script),
    )


def images_of(detection: Detection, data: Any) -> ImageSource:
    """Find the images that were judged.

    Parameters
    ----------
    detection : Detection
    data : object, optional
        As `deft_plugin.detect` takes them; None for those that the detection still holds.

    Returns
    -------
    ImageSource of length N
        Of `data`, each image is checked when it is loaded: one that is not the judged one is an error.

    Raises
    ------
    InputError
        If there are none, or `data` are other data by their number or labels.
    """
    if data is None and detection.images is not None:
        return detection.images
    if data is None:
        raise InputError(
            "Expected the data that were judged, since a detection that was loaded or made from pred_probs has no "
            "images. Pass them as data=..."
        )
    found = _read(detection, data)
    check_same_count(len(found.images), len(detection))
    check_same_labels(_labels_of(found, detection), detection.given_labels)
    return found.images if detection.image_digests is None else JudgedImages(found.images, detection.image_digests)


def _read(detection: Detection, data: Any) -> ImageData:
    """Read data whose labels are known: they need not have any of their own."""
    if isinstance(data, ImageData):
        return data
    is_path = isinstance(data, str | os.PathLike)
    if is_path and not holds_dataset(data):
        return read_image_data(data)
    has_columns = is_path or hasattr(data, "features")
    column = detection.image_column if has_columns else None
    if detection.label_column is not None:
        return read_image_data(data, detection.label_column, image_column=column)
    if not is_path and hasattr(data, "__len__"):
        check_same_count(len(data), len(detection))
    return read_image_data(data, detection.given_labels, detection.class_names, image_column=column)


def _labels_of(data: ImageData, detection: Detection) -> np.ndarray:
    """Labels (N,) that index the detection's classes: by name, or by their order if the names are others."""
    position = {name: index for index, name in enumerate(detection.class_names)}
    if set(data.class_names) - set(position):
        return data.labels
    return np.array([position[name] for name in data.class_names])[data.labels]


def _rows_to_show(detection: Detection) -> np.ndarray:
    """Rows that a person decides upon, worst first, unreadable ones last: the issues, and what was decided before."""
    shown = detection.is_label_issue.copy()
    if detection.decisions is not None:
        shown |= detection.decisions != UNDECIDED
    rows = np.flatnonzero(shown)
    return rows[np.lexsort((rows, detection.label_quality[rows], detection.is_image_issue[rows]))]


def _figures(detection: Detection) -> dict[str, Any]:
    pairs = pairs_of_labels(detection)
    return {
        "num_issues": int((detection.is_label_issue & ~detection.is_image_issue).sum()),
        "num_unreadable": int(detection.is_image_issue.sum()),
        "classes": issues_of_classes(detection),
        "pairs": pairs[:PAIRS],
        "num_pairs": len(pairs),
        "matrix": matrix_of_labels(pairs),
        "bins": quality_histogram(detection),
    }


def _page_data(detection: Detection, images: ImageSource, rows: np.ndarray) -> dict[str, Any]:
    """Give what the scripts of the page know of each row, column by column."""
    digests, decisions = detection.image_digests, detection.decisions
    shown = rows.tolist()
    hex_digests = [""] * len(shown) if digests is None else [digests[row].tobytes().hex() for row in shown]
    unread = detection.is_image_issue[rows].tolist()
    return {
        "key": _review_key(detection, rows),
        "class_names": detection.class_names,
        "thumbnail_format": thumbnail_format(),
        "thumbnails_per_block": THUMBNAILS_PER_BLOCK,
        "row": shown,
        "given": detection.given_labels[rows].tolist(),
        "predicted": detection.predicted_labels[rows].tolist(),
        "quality": [round(quality, 6) for quality in detection.label_quality[rows].tolist()],
        "path": [images.path(row) for row in shown],
        "digest": ["" if bad else digest for bad, digest in zip(unread, hex_digests, strict=True)],
        "decision": [UNDECIDED] * len(shown) if decisions is None else decisions[rows].tolist(),
    }


def _thumbnail_blocks(detection: Detection, images: ImageSource, rows: np.ndarray) -> list[list[str | None]]:
    read = functools.partial(read_thumbnail, images, file_format=thumbnail_format())
    found = [(row, read(row)) for row in rows.tolist()]
    thumbnails = [None if detection.is_image_issue[row] else thumbnail for row, thumbnail in found]
    return [thumbnails[k : k + THUMBNAILS_PER_BLOCK] for k in range(0, len(thumbnails), THUMBNAILS_PER_BLOCK)]


def _review_key(detection: Detection, rows: np.ndarray) -> str:
    """Tell this page from others: a browser keeps the marks of all pages in one place."""
    names = json.dumps([detection.method, *detection.class_names])
    arrays = (
        rows,
        detection.given_labels,
        detection.predicted_labels,
        detection.label_quality,
        detection.image_digests,
    )
    total = hashlib.blake2b(names.encode(), digest_size=16)
    for array in arrays:
        total.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    if detection.decisions is not None:
        total.update(",".join(detection.decisions.tolist()).encode())
    return total.hexdigest()
