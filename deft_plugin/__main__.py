"""``python -m deft_plugin`` is ``deft``."""

from deft_plugin.cli import main

main()
