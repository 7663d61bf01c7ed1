"""What a user is shown of a detection: a table, files, a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_plugin.data.walk import as_text

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
            Text(as_text(images.path(int(row)) or "")),
            Text(detection.class_names[detection.given_labels[row]]),
            Text(_predicted(detection, int(row))),
            f"{detection.label_quality[row]:.3f}",
        )
    Console().print(table)
    if len(rows) > limit:
        print(f"… and {len(rows) - limit:,} more; --output DIR writes them all.")


def write_report(detection: Detection, images: ImageSource, folder: Path) -> list[Path]:
    """Write issues.parquet, issues.csv, contact_sheet.png, report.html and the detection itself into a folder.

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
    """
    from deft_plugin.report.contact_sheet import contact_sheet_of
    from deft_plugin.report.page import write_page

    folder.mkdir(parents=True, exist_ok=True)
    frame = issues_frame(detection, images)
    parquet, csv, picture = folder / "issues.parquet", folder / "issues.csv", folder / "contact_sheet.png"
    with parquet.open("wb") as stream:  # Arrow opens no path that is not UTF-8
        frame.to_parquet(stream, index=False)
    frame.to_csv(csv, index=False)
    contact_sheet_of(detection, images.load).save(picture)
    page = write_page(detection, folder / "report.html", images)
    detection.save(folder / "detection")
    return [parquet, csv, picture, page, folder / "detection"]


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
