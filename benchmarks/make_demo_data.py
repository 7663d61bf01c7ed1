"""Draw the photos that ``deft demo`` looks at from the clothing set, and write them as parquet.

The file that is shipped comes out of::

    python benchmarks/make_demo_data.py path/to/clothing_small/train.parquet

The draw knows only how many photos each class has: whether a label is right is never looked at, no photo is
recoded, and the same input gives the same rows.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.model_selection import train_test_split

TARGET = Path(__file__).parent / "deft_benchmarks" / "data" / "clothing_demo.parquet"
LIMIT_MB = 12.0


def stratified_sample(table: pa.Table, *, num_examples: int, seed: int) -> pa.Table:
    """Draw rows at random, each class with its share in `table`, in shuffled order.

    The schema is kept with its metadata, which tells `datasets` about images and class names.
    """
    rows, _ = train_test_split(
        np.arange(table.num_rows),
        train_size=num_examples,
        stratify=table["label"].to_numpy(),
        random_state=seed,
    )
    return table.take(pa.array(rows)).combine_chunks()


@click.command(help=__doc__)
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--target", type=click.Path(dir_okay=False, path_type=Path), default=TARGET, show_default=False)
@click.option("--num-examples", type=click.IntRange(min=1), default=1400, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(source: Path, target: Path, num_examples: int, seed: int) -> None:
    """Write the sample, unless it is too large to ship."""
    sample = stratified_sample(pq.read_table(source), num_examples=num_examples, seed=seed)
    image_mb = sample["image"].nbytes / 1e6
    if image_mb > LIMIT_MB:
        raise click.ClickException(
            f"Expected at most {LIMIT_MB:g} MB of photos, but got {image_mb:.1f} MB. Lower --num-examples."
        )
    pq.write_table(sample, target, compression="zstd", row_group_size=len(sample))
    click.echo(f"{target}: {len(sample)} photos, {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
