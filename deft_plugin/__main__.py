"""``python -m deft_plugin`` is ``deft``: the command line, and what happens when somebody presses Ctrl-C."""

import signal
import sys
from types import FrameType


class _Interrupt:
    """Remembers that it was asked to end: a library may turn that into an error of its own while it is imported."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.came = True
        signal.signal(number, signal.SIG_DFL)  # the second time nothing is tidied up
        raise KeyboardInterrupt


def main() -> None:
    """Run the command line; when it is interrupted, end with one line and exit code 130."""
    interrupt = _Interrupt()
    signal.signal(signal.SIGINT, interrupt)
    try:
        from deft_plugin.cli import main as run

        run()
    except BaseException:
        if not interrupt.came:
            raise
        line = "deft: interrupted. Image features and checkpoints that were written are kept: run it again to go on.\n"
        sys.stderr.write(line)
        sys.exit(130)


if __name__ == "__main__":
    main()
