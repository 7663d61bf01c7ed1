"""The group of commands ``deft bench``."""

from __future__ import annotations

import click

from deft_benchmarks.commands.matrix import run
from deft_benchmarks.commands.speed import features, scoring, sharing, speed
from deft_benchmarks.commands.tables import list_cells, report, table


@click.group()
def bench() -> None:
    """Measure: selectors on your data, or the speed of the feature pass and of a training step."""


for command in (run, list_cells, table, report, features, scoring, sharing, speed):
    bench.add_command(command)
