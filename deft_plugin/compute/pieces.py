"""Rows a piece at a time, so that memory does not grow with their number."""

from __future__ import annotations

ROWS = 4096


def pieces(num_rows: int, size: int = ROWS) -> list[slice]:
    """Part rows into slices of `size`; the last one may be smaller, and no rows are one empty slice.

    Parameters
    ----------
    num_rows : int
    size : int

    Examples
    --------
    >>> pieces(10, 4)
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    """
    return [slice(start, min(start + size, num_rows)) for start in range(0, max(1, num_rows), size)]
