"""What a user is shown of a detection: a table, files, a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_plugin.errors import as_text, printable

if TYPE_CHECKING:
    import pandas as pd

    from deft_plugin.data.sources import ImageSource
    from deft_plugin.results.detection import Detection


def print_issues(detection: Detection, images: ImageSource, *, limit: int = 15) -> None:
    """Print how many labels look wrong, and the worst of them.

    Parameters
    ----------
    detection : Detection
    images : ImageSource of length N
    limit : int
        Rows of the table.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = detection.ranked_issue_indices()
    unreadable = int(detection.is_image_issue.sum())
    title = f"{len(rows) - unreadable:,} of {len(detection):,} labels look wrong"
    if unreadable:
        title += f"; {unreadable:,} images cannot be read"
    table = Table(title=title, box=box.SIMPLE_HEAD, caption="Quality: 0 = surely wrong, 1 = surely right.")
    table.add_column("row", justify="right")
    table.add_column("image", overflow="fold")
    for header in ("given label", "predicted label"):
        table.add_column(header)
    table.add_column("quality", justify="right")
    for row in rows[:limit]:
        table.add_row(
            str(row),
            Text(printable(images.path(int(row)) or "")),
            Text(printable(detection.class_names[detection.given_labels[row]])),
            Text(printable(_predicted(detection, int(row)))),
            f"{detection.label_quality[row]:.3f}",
        )
    console = Console()
    with console.capture() as shown:  # rich itself would end the program when a pipe is closed
        console.print(table)
    print(shown.get(), end="")
    if small := detection.classes_too_small:
        print(
            f"{len(small):,} classes are too small to be judged (one or two images), their labels are kept: "
            f"{', '.join(map(printable, small[:5]))}{', …' if len(small) > 5 else ''}."
        )
    if len(rows) > limit:
        print(f"… and {len(rows) - limit:,} more; --output DIR writes them all.")


REPORT_FILES = ("issues.parquet", "issues.csv", "contact_sheet.png", "report.html")
DETECTION_FOLDER = "detection"


def check_report_can_be_written(folder: Path) -> None:
    """Find out before the work whether `write_report` can write into a folder.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InputError
        If a file is in the way, `detection` there is none, or the folder cannot be written.
    """
    from deft_plugin.compute.files import check_file_can_be_written, check_folder_can_be_written
    from deft_plugin.results.storage import check_can_be_saved

    check_folder_can_be_written(folder)
    for name in REPORT_FILES:
        check_file_can_be_written(folder / name)
    check_can_be_saved(folder / DETECTION_FOLDER)


def write_report(detection: Detection, images: ImageSource, folder: Path) -> list[Path]:
    """Write issues.parquet, issues.csv, contact_sheet.png, report.html and the detection itself into a folder.

    The detection is written first: whatever fails after it, it is there. Cells of the CSV that a spreadsheet would
    compute have an apostrophe in front.

    Parameters
    ----------
    detection : Detection
    images : ImageSource of length N
    folder : Path
        Made if it is not there.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InputError
        If something cannot be written.
    """
    from deft_plugin.compute.files import write_bytes
    from deft_plugin.report.contact_sheet import contact_sheet_of
    from deft_plugin.report.page import write_page

    detection.save(folder / DETECTION_FOLDER)
    frame = issues_frame(detection, images)
    parquet, csv, picture, page = (folder / name for name in REPORT_FILES)
    write_bytes(parquet, frame.to_parquet(None, index=False))
    write_bytes(csv, _for_spreadsheets(frame).to_csv(index=False, lineterminator="\n").encode("utf-8"))
    sheet = io.BytesIO()
    contact_sheet_of(detection, images.load).save(sheet, format="PNG")
    write_bytes(picture, sheet.getvalue())
    write_page(detection, page, images)
    return [parquet, csv, picture, page, folder / DETECTION_FOLDER]


def _for_spreadsheets(frame: pd.DataFrame) -> pd.DataFrame:
    from deft_plugin.results.spreadsheets import guarded

    names = ("image", "given_label", "predicted_label")
    return frame.assign(**{name: frame[name].map(guarded, na_action="ignore") for name in names})


def issues_frame(detection: Detection, images: ImageSource) -> pd.DataFrame:
    """All rows, the worst label quality first: `Detection.to_frame` with columns ``row`` and ``image`` in front.

    Parameters
    ----------
    detection : Detection
    images : ImageSource of length N
    """
    frame = detection.to_frame()
    frame.insert(0, "row", range(len(frame)))
    paths = [images.path(row) for row in range(len(frame))]
    frame.insert(1, "image", [None if path is None else as_text(path) for path in paths])
    for name in ("given_label", "predicted_label"):
        frame[name] = frame[name].map(as_text, na_action="ignore")
    return frame.sort_values("label_quality", kind="stable")


def summary(detection: Detection, *, data: str) -> dict[str, Any]:
    """Say what was judged and how much was found, as JSON values.

    Parameters
    ----------
    detection : Detection
    data : str
        Name of what was judged.
    """
    return {
        "data": as_text(data),
        "num_examples": len(detection),
        "num_classes": len(detection.class_names),
        "method": detection.method,
        "model": detection.settings.get("model"),
        "seed": detection.settings["seed"],
        "seconds": detection.settings["seconds"],
        "num_label_issues": int(detection.is_label_issue.sum()),
        "num_image_issues": int(detection.is_image_issue.sum()),
        "details": dict(detection.details),
    }


def _predicted(detection: Detection, row: int) -> str:
    return "-" if detection.is_image_issue[row] else detection.class_names[detection.predicted_labels[row]]
