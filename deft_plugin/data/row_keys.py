"""Recognising the rows that were judged, wherever they are now.

Positions shift as soon as a data set is shuffled or subset, so what is known of a row is kept by its identity: the
label, and a digest of the pixels, or the value of an id column.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deft_plugin.data.class_names import names_are_numbers
from deft_plugin.data.columns import LABEL_NAMES, find_image_column, find_label_column, read_column
from deft_plugin.data.digests import digest_or_blank, id_digest, join_digests
from deft_plugin.data.images import is_image, read_image
from deft_plugin.data.judged import check_same_count, check_same_digests, check_same_labels, read_digests
from deft_plugin.data.labels import index_of, label_index
from deft_plugin.data.sources import StoredImages
from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("label", "<i8")])
_NO_CLASS = -1
_ADVICE = "Use dataset.filter(mask), or dataset.map(columns), which recognise rows wherever they are."


class RowKeys:
    """Keys of the judged rows. Rows with the same pixels (or id) and the same label have one key.

    It holds arrays and strings alone, so that its pickle is the same in every process: Hugging Face `datasets` makes
    the key of cached results from it.

    Parameters
    ----------
    digests : np.ndarray of shape (N, 16), uint8
        From `deft_plugin.data.digests.image_digest` (all zeros where the image could not be read), or from `id_digest`.
    labels : np.ndarray of shape (N,), int in [0, K)
        The given labels.
    class_names : sequence of str of length K
    image_column, label_column : str, optional
        Where to look in a data row. Without it: the only image; "label" or "labels".
    id_column : str, optional
        If `digests` are of its values.
    """

    def __init__(
        self,
        digests: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        id_column: str | None = None,
    ) -> None:
        self.class_names = tuple(map(str, class_names))
        self.image_column, self.label_column, self.id_column = image_column, label_column, id_column
        self._keys, key_of_row = np.unique(_make_keys(digests, labels), return_inverse=True)
        self.key_of_row = key_of_row.astype("<i8")  # (N,)

    def __len__(self) -> int:
        return len(self._keys)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "class_names": self.class_names,
            "image_column": self.image_column,
            "label_column": self.label_column,
            "id_column": self.id_column,
            "keys": self._keys.tobytes(),
            "key_of_row": self.key_of_row.tobytes(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.class_names = state["class_names"]
        self.image_column, self.label_column = state["image_column"], state["label_column"]
        self.id_column = state["id_column"]
        self._keys = np.frombuffer(state["keys"], dtype=_KEY)
        self.key_of_row = np.frombuffer(state["key_of_row"], dtype="<i8")

    def find_arguments(self, *arguments: Any) -> tuple[np.ndarray, bool]:
        """Find the keys of what a Hugging Face data set hands to a function.

        Parameters
        ----------
        *arguments
            A row or a batch, as a mapping of columns; or with ``input_columns`` the image (or id) and the label,
            or those of a batch. An index behind it is not looked at.

        Returns
        -------
        positions : np.ndarray of shape (B,), int
        is_batch : bool

        Raises
        ------
        InputError
            If a row was never judged, or its image or label is not found.
        """
        first = arguments[0]
        is_row = isinstance(first, Mapping) and not is_image(first)
        if is_row or len(arguments) == 1:
            value, label, mode = self._find_columns(first)
        else:
            (value, label), mode = arguments[:2], None
        is_batch = np.ndim(label) > 0
        return self.find(value if is_batch else [value], label if is_batch else [label], mode=mode), is_batch

    def find(self, values: Sequence[object], labels: Sequence[int | str], *, mode: str | None = None) -> np.ndarray:
        """Find the keys of images (or ids) (B,) with their labels (B,).

        Parameters
        ----------
        values : sequence of length B
            Images, as anything that `deft_plugin.data.images.read_image` takes; or ids.
        labels : sequence of int or str of length B
        mode : str, optional
            Of images that are stored; see `deft_plugin.data.images.to_rgb`.

        Raises
        ------
        InputError
            If one was never judged.
        """
        readings = [_readings(label, self.class_names) for label in labels]
        digests = self._digest(values, mode)
        by_name, by_index = np.array(readings).reshape(-1, 2).T
        found, other = (self._positions(_make_keys(digests, indices)) for indices in (by_name, by_index))
        if (both := (found >= 0) & (other >= 0) & (found != other)).any():
            raise InputError(
                f"Expected a label that says which class is meant, but {labels[int(both.argmax())]!r} may be the name "
                "or the index of one, and this row was judged with both. Give the label as a string."
            )
        found = np.maximum(found, other)
        if (found < 0).any():
            unknown = int(np.flatnonzero(found < 0)[0])
            raise self._never_judged(digests[unknown], max(readings[unknown]))
        return found

    def check_same_order(self, dataset: Dataset, rows: np.ndarray) -> None:
        """Refuse any data set but the one that was judged, in the same order.

        All labels must be the judged ones, and so must the images (or ids) of the rows that will be used, each of which
        is decoded.

        Parameters
        ----------
        dataset : datasets.Dataset
        rows : np.ndarray of shape (B,), int
            That will be used.

        Raises
        ------
        InputError
        """
        check_same_count(len(dataset), len(self.key_of_row), advice=_ADVICE)
        judged = self._keys[self.key_of_row]
        check_same_labels(self._read_labels(dataset), judged["label"], advice=_ADVICE)
        found, what = self._digest_stored(dataset, rows), "id" if self.id_column else "image"
        check_same_digests(rows, found, _digests_of(judged[rows]), what=what, advice=_ADVICE)

    def _digest(self, values: Sequence[object], mode: str | None = None) -> np.ndarray:
        """Digest images, or ids (B,) into (B, 16)."""
        if self.id_column is not None:
            return join_digests(map(id_digest, values))
        return join_digests(digest_or_blank(functools.partial(read_image, image, mode=mode)) for image in values)

    def _read_labels(self, dataset: Dataset) -> np.ndarray:
        """Read class indices (N,)."""
        column = self.label_column
        if column is None or column not in dataset.features:
            column = find_label_column(dataset)
        values = read_column(dataset, column)
        find = index_of if hasattr(dataset.features[column], "names") else label_index
        indices = {value: find(value, self.class_names) for value in set(values)}
        return np.array([indices[value] for value in values])

    def _digest_stored(self, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
        """Digest the images or ids of some rows (B,) into (B, 16)."""
        if self.id_column is not None:
            return self._digest(read_column(dataset.select(rows), self.id_column))
        column = self.image_column
        if column is None or column not in dataset.features:
            column = find_image_column(dataset)
        return read_digests(StoredImages(dataset, column), rows)

    def _find_columns(self, row: Any) -> tuple[Any, Any, str | None]:
        """Image (or id), label, and the mode of a stored image; of a row or of a batch."""
        if not isinstance(row, Mapping):
            raise InputError(
                f"Expected a data row as a mapping of column names to values, but got {type(row).__name__}. "
                "Drop the format with dataset.with_format(None)."
            )
        columns = _StoredColumns(row) if hasattr(row, "pa_table") else cast("Mapping[str, Any]", row)
        label = self.label_column
        if label is None or label not in columns:
            label = _only("label", [name for name in columns if name in LABEL_NAMES], columns)
        if self.id_column is not None:
            if self.id_column not in columns:
                _only(f"id, {self.id_column!r}", [], columns)
            return columns[self.id_column], columns[label], None
        image = self.image_column
        if image is None or image not in columns:
            image = _only("image", [name for name in columns if _is_image_column(columns[name])], columns)
        return columns[image], columns[label], columns.mode(image) if isinstance(columns, _StoredColumns) else None

    def _positions(self, keys: np.ndarray) -> np.ndarray:
        """Find the positions of keys (B,), -1 where a key is unknown."""
        positions = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[positions] == keys, positions, -1)

    def _never_judged(self, digest: np.ndarray, label: int) -> InputError:
        classes = np.arange(len(self.class_names))
        judged = self._positions(_make_keys(np.tile(digest, (len(classes), 1)), classes)) >= 0
        as_names = ", ".join(repr(self.class_names[index]) for index in classes[judged])
        if as_names:
            problem = f"was judged with label {as_names}"
        elif self.id_column is not None:
            problem = "was never judged"
        else:
            problem = "was never judged (images that were resized, augmented or encoded anew are not recognised)"
        return InputError(
            f"Expected rows that were judged, but the {'id' if self.id_column else 'image'} of a row with label "
            f"{self.class_names[label]!r} {problem}. Filter the data set that was judged, or judge this one with "
            "deft_plugin.detect."
        )


def _readings(label: Any, class_names: Sequence[str]) -> tuple[int, int]:
    """Classes that a label may stand for; a number among names that are numbers is one of them, or an index."""
    if not names_are_numbers(class_names):
        index = label_index(label, class_names)
        return index, index
    by_name, by_index = (_index_or_none(find, label, class_names) for find in (label_index, index_of))
    if by_name == by_index == _NO_CLASS:
        label_index(label, class_names)  # raises
    return by_name, by_index


def _index_or_none(find: Callable[[Any, Sequence[str]], int], label: Any, class_names: Sequence[str]) -> int:
    try:
        return find(label, class_names)
    except InputError:
        return _NO_CLASS


class _StoredColumns(Mapping[str, Any]):
    """Columns of a row or a batch that `datasets` hands to a function, as they are stored.

    An image that is asked of the row itself is decoded, and from then on counts as changed: `Dataset.map` encodes it
    anew. One that was changed before is given as it is now.

    Parameters
    ----------
    row : LazyRow or LazyBatch of `datasets.formatting.formatting`
    """

    def __init__(self, row: Any) -> None:
        self._row = row
        self._is_batch = type(row).__name__ != "LazyRow"

    def __getitem__(self, column: str) -> Any:
        if column not in self._row.keys_to_format:
            return self._row[column]
        values = self._row.pa_table.column(column).to_pylist()
        return values if self._is_batch else values[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def mode(self, column: str) -> str | None:
        """Mode that the data set gives to a stored image."""
        is_stored = column in self._row.keys_to_format
        return getattr(self._row.formatter.features.get(column), "mode", None) if is_stored else None


def _make_keys(digests: np.ndarray, labels: Any) -> np.ndarray:
    """Make keys (N,) from digests (N, 16) and class indices (N,)."""
    halves = np.ascontiguousarray(digests, dtype=np.uint8).view("<u8")  # (N, 2)
    keys = np.empty(len(halves), dtype=_KEY)
    keys["high"], keys["low"], keys["label"] = halves[:, 0], halves[:, 1], labels
    return keys


def _digests_of(keys: np.ndarray) -> np.ndarray:
    """Digests (N, 16) that keys (N,) were made of."""
    return np.stack([keys["high"], keys["low"]], axis=1).view(np.uint8)


def _is_image_column(value: Any) -> bool:
    is_batch = isinstance(value, list) or getattr(value, "ndim", 0) == 1
    one = next((each for each in value if each is not None), None) if is_batch else value
    return is_image(one) or getattr(one, "ndim", 0) >= 3  # with a numpy or torch format, images are arrays


def _only(kind: str, found: list[str], columns: Mapping[str, Any]) -> str:
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"Expected one column that is the {kind}, but got {', '.join(found) or 'none'} among "
        f"{', '.join(columns)}. Name them: dataset.filter(mask, input_columns=[image, label])."
    )
