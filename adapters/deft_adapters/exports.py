"""Findings for viewers that people have: Renumics Spotlight (any table of images), and FiftyOne."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_plugin import Detection, InputError
from deft_plugin.compute import write_json
from deft_plugin.data import check_same_images
from deft_plugin.report import images_of, issues_frame

if TYPE_CHECKING:
    from deft_plugin.data import ImageSource


def write_spotlight(detection: Detection, file: str | os.PathLike[str], data: Any = None) -> None:
    """Write a table for ``spotlight file``: all rows, the worst first.

    Columns: row, image, is_label_issue, label_quality, given_label, predicted_label, is_image_issue. ``image`` is the
    path of the file; in Parquet, of rows that have none, the picture as JPEG bytes.

    Parameters
    ----------
    detection : Detection
    file : path
        ``.csv`` or ``.parquet``.
    data : anything that `deft_plugin.detect` takes, optional
        The images, for a detection that was loaded from disk. Each must be the judged one, and is decoded.

    Raises
    ------
    InputError
        If the suffix is another one, or images without files are to go into CSV.
    """
    target, images = Path(file), _judged(detection, data)
    if target.suffix not in (".csv", ".parquet"):
        raise InputError(f"Expected a file that ends in .csv or .parquet, but got {target.name!r}.")
    frame = issues_frame(detection, images)
    missing = frame["image"].isna()
    if missing.any() and target.suffix == ".csv":
        raise InputError(
            f"Expected images that are files for a .csv, but {int(missing.sum())} of {len(frame)} are not. Write a "
            ".parquet, which can hold pictures."
        )
    if missing.any():
        frame["image"] = [_jpeg(images, row, detection.is_image_issue) for row in frame["row"]]
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".csv":
        frame.to_csv(target, index=False)
    else:
        frame.to_parquet(target, index=False)


def write_fiftyone(
    detection: Detection, file: str | os.PathLike[str], root: str | os.PathLike[str], data: Any = None
) -> None:
    """Write a ``labels.json`` in FiftyOne's image classification format; no server is needed.

    Each label is the given one, with the label quality as confidence, and is_label_issue and predicted_label as
    attributes. Import it with ``fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.FiftyOneImageClassification\
Dataset, data_path=root, labels_path=file)``.

    Parameters
    ----------
    detection : Detection
    file : path
    root : path
        Folder of the images; their paths in it, without suffix, are the keys.
    data : anything that `deft_plugin.detect` takes, optional
        The images, for a detection that was loaded from disk. Each must be the judged one, and is decoded.

    Raises
    ------
    InputError
        If an image is not a file in `root`, or two of them differ by their suffix only.
    """
    images, folder = _judged(detection, data), Path(root).resolve()
    labels: dict[str, Any] = {}
    names = [*detection.class_names, None]
    for row in range(len(detection)):
        key = _key(images.path(row), folder, row)
        if key in labels:
            raise InputError(f"Expected images whose names differ, but two are {key!r} without suffix. Rename one.")
        labels[key] = {
            "label": names[detection.given_labels[row]],
            "confidence": float(detection.label_quality[row]),
            "attributes": {
                "is_label_issue": bool(detection.is_label_issue[row]),
                "predicted_label": names[detection.predicted_labels[row]],
            },
        }
    write_json(
        file if isinstance(file, str) else Path(file), {"classes": list(detection.class_names), "labels": labels}
    )


def _judged(detection: Detection, data: Any) -> ImageSource:
    """Images of a detection; of `data` each is compared, since each is written."""
    images = images_of(detection, data)
    if data is not None and detection.image_digests is not None:
        check_same_images(images, detection.image_digests, np.arange(len(detection)))
    return images


def _jpeg(images: ImageSource, row: int, is_image_issue: np.ndarray) -> bytes | None:
    if is_image_issue[row]:
        return None
    buffer = io.BytesIO()
    images.load(row).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def _key(path: str | None, folder: Path, row: int) -> str:
    if path is None or not Path(path).resolve().is_relative_to(folder):
        raise InputError(f"Expected images that are files in {folder}, but row {row} is {path or 'none'}.")
    return Path(path).resolve().relative_to(folder).with_suffix("").as_posix()
