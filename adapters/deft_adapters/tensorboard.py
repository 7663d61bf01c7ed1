"""Training curves for TensorBoard, from the progress hook alone (``pip install "deft-plugin[tensorboard]"``).

Set ``DEFT_TENSORBOARD_DIR`` to the folder for event files; without it this plugin does nothing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_plugin import hookimpl

if TYPE_CHECKING:
    from deft_plugin import EpochEnd

VARIABLE = "DEFT_TENSORBOARD_DIR"


class TensorBoardLogger:
    """Writes the scalars of each epoch; a run that begins with its first epoch gets a folder of its own."""

    def __init__(self) -> None:
        self._writer: Any = None

    @hookimpl
    def deft_epoch_end(self, event: EpochEnd) -> None:
        """Write losses, what else the method tells, learning rate and examples per second."""
        if not (folder := os.environ.get(VARIABLE)):
            return
        from torch.utils.tensorboard.writer import SummaryWriter

        if self._writer is None or event.epoch == 1:
            self._writer = SummaryWriter(str(Path(folder) / time.strftime("%Y-%m-%d_%H-%M-%S")))
        scalars = {f"loss/{name}": value for name, value in event.losses.items()}
        scalars |= {
            **event.scalars,
            "learning_rate": event.learning_rate,
            "examples_per_second": event.examples_per_second,
        }
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, event.epoch)
        self._writer.flush()


plugin = TensorBoardLogger()
