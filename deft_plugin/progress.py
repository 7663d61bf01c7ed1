"""Progress on the console."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from deft_plugin.types import EpochEnd


class ConsoleProgress:
    """Progress bars on standard error for the feature pass and the epochs of DeFT.

    Parameters
    ----------
    enabled : bool
        If False, nothing is shown.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        if enabled:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description:<14}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bars = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars and self._tasks:  # without a bar it would leave an empty line before the error
            self._bars.stop()

    def features(self, done: int, total: int) -> None:
        """Show how many images are encoded."""
        self._show("Image features", done, total)

    def epoch_end(self, event: EpochEnd) -> None:
        """Show how many epochs are done."""
        kept = event.scalars.get("selected_fraction")
        note = "" if kept is None else f"kept {kept:.0%} of the labels"
        self._show("Learn prompts", event.epoch, event.num_epochs, note)

    def _show(self, what: str, done: int, total: int, note: str = "") -> None:
        if self._bars is None:
            return
        self._bars.start()
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, note=note)
        self._bars.update(self._tasks[what], completed=done, total=total, note=note)
