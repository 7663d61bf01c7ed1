"""The published figures of the paper, to stand beside our own."""

from __future__ import annotations

import csv
from pathlib import Path

from deft_plugin.errors import InputError

Published = dict[tuple[str, str, str], dict[str, float]]
"""Clean precision, recall and F1 in [0, 1], by data, setting and selector."""

PUBLISHED_MODEL = "CLIP ViT-B/16"
PUBLISHED = Path(__file__).parents[1] / "data" / "published_detection.csv"
"""Figures of Wei et al., NeurIPS 2024, as printed on its authors' slides."""


def read_published(file: Path = PUBLISHED) -> Published:
    """Read the paper's table of clean precision and recall in %, by data, setting and selector.

    Parameters
    ----------
    file : Path
        CSV with columns dataset, noise, selector, clean_precision, clean_recall.

    Raises
    ------
    InputError
        If it is not such a file.
    """
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        found: Published = {}
        for row in rows:
            precision, recall = float(row["clean_precision"]) / 100, float(row["clean_recall"]) / 100
            found[row["dataset"], row["noise"], row["selector"]] = {
                "clean_precision": precision,
                "clean_recall": recall,
                "clean_f1": 2 * precision * recall / (precision + recall),
            }
    except (OSError, KeyError, ValueError, TypeError, ArithmeticError, csv.Error) as error:
        raise InputError(f"Expected {file} to be a table of published figures, but: {error!r}.") from error
    return found
