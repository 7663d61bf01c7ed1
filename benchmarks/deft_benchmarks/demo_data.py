"""The photos that ``deft demo`` looks at: part of this package, so that the demo needs no network."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datasets


def load_clothing_demo() -> datasets.Dataset:
    """Read 1,400 photos of clothes in 10 classes, CC0 1.0 (``data/LICENSE-clothing_demo.md`` says more).

    They are read into memory (11 MB); nothing is written into a cache folder.

    Returns
    -------
    datasets.Dataset
        Columns ``image`` (RGB, short side 160 px) and ``label`` (a `ClassLabel` of 10 names), in
        shuffled order. The classes are unbalanced, and some of the labels are doubtful as they come.

    Examples
    --------
    >>> photos = load_clothing_demo()
    >>> photos.num_rows, photos.features["label"].names[:3]
    (1400, ['dress', 'hat', 'longsleeve'])
    """
    import datasets
    import pyarrow.parquet as pq
    from datasets.table import InMemoryTable

    file = importlib.resources.files("deft_benchmarks") / "data" / "clothing_demo.parquet"
    with file.open("rb") as stream:
        table = pq.read_table(stream)
    # The features are in the metadata of the schema. Dataset.from_parquet would copy the file into a cache.
    return datasets.Dataset(InMemoryTable(table))
