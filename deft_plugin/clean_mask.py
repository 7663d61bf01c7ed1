"""A filter that remembers which images, with which label, were judged clean.

Positions shift as soon as a data set is shuffled or subset, so verdicts are kept by the identity of a row: a
digest of the pixels, and the label.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from deft_plugin.errors import InputError, UnreadableImageError
from deft_plugin.hf_columns import LABEL_NAMES, find_image_column, find_label_column, read_column
from deft_plugin.image_sources import StoredImages
from deft_plugin.images import DIGEST_SIZE, UNREADABLE_DIGEST, image_digest, is_image, read_image
from deft_plugin.labels import label_index

if TYPE_CHECKING:
    from datasets import Dataset

_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("label", "<i8")])
_ROWS_TO_COMPARE = 32


class CleanMask:
    """Function of a data row that is True where the label was judged clean: ``dataset.filter(mask)``.

    It works on the judged data set, however shuffled, subset, split, saved and reloaded, with
    ``batched=True`` and ``num_proc``. A row that was never judged is an error. Rows with the same pixels and
    the same label share one verdict: clean only if all of them were judged clean. Images must be those that
    were judged: resized, augmented or re-encoded ones are not recognised.

    An unreadable image is never clean. Hugging Face `datasets` fails to decode it before it calls the mask:
    use `apply`, or cast the column to ``datasets.Image(decode=False)`` first.

    The mask holds arrays and strings alone, so that its pickle, and with it the key of cached filter results,
    is the same in every process.

    Parameters
    ----------
    image_digests : np.ndarray of shape (N, 16), uint8
        From `deft_plugin.images.image_digest`; all zeros where the image could not be read.
    labels : np.ndarray of shape (N,), int in [0, K)
        The given labels.
    is_clean : np.ndarray of shape (N,), bool
    class_names : sequence of str of length K
    image_column, label_column : str, optional
        Where to look in a data row. Without it: the only image; "label" or "labels".

    Examples
    --------
    >>> from PIL import Image
    >>> cat, dog = Image.new("RGB", (2, 2), "black"), Image.new("RGB", (2, 2), "white")
    >>> digests = np.stack([np.frombuffer(image_digest(image), dtype=np.uint8) for image in (cat, dog)])
    >>> mask = CleanMask(
    ...     image_digests=digests,
    ...     labels=np.array([0, 1]),
    ...     is_clean=np.array([True, False]),
    ...     class_names=["cat", "dog"],
    ... )
    >>> mask
    CleanMask(1 of 2 rows clean, 2 classes)
    >>> mask({"image": cat, "label": 0}), mask.is_clean(dog, "dog")
    (True, False)
    """

    def __init__(
        self,
        *,
        image_digests: np.ndarray,
        labels: np.ndarray,
        is_clean: np.ndarray,
        class_names: Sequence[str],
        image_column: str | None = None,
        label_column: str | None = None,
    ) -> None:
        self.class_names = tuple(map(str, class_names))
        self.image_column = image_column
        self.label_column = label_column
        self._keys, key_of_row = np.unique(_make_keys(image_digests, labels), return_inverse=True)
        self._key_of_row = key_of_row.astype("<i8")  # (N,)
        self._is_clean = np.ones(len(self._keys), dtype=bool)  # of each key
        self._is_clean[self._key_of_row[~np.asarray(is_clean, dtype=bool)]] = False

    def __len__(self) -> int:
        return len(self._key_of_row)

    def __repr__(self) -> str:
        clean = np.count_nonzero(self._is_clean[self._key_of_row])
        return f"CleanMask({clean} of {len(self)} rows clean, {len(self.class_names)} classes)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CleanMask) and self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash(tuple(self.__getstate__().values()))

    def __getstate__(self) -> dict[str, Any]:
        return {
            "class_names": self.class_names,
            "image_column": self.image_column,
            "label_column": self.label_column,
            "keys": self._keys.tobytes(),
            "key_of_row": self._key_of_row.tobytes(),
            "is_clean": self._is_clean.tobytes(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.class_names = state["class_names"]
        self.image_column = state["image_column"]
        self.label_column = state["label_column"]
        self._keys = np.frombuffer(state["keys"], dtype=_KEY)
        self._key_of_row = np.frombuffer(state["key_of_row"], dtype="<i8")
        self._is_clean = np.frombuffer(state["is_clean"], dtype=bool)

    def __call__(self, row: Any, label: Any = None) -> bool | list[bool]:
        """Judge a row, or a batch of rows.

        Parameters
        ----------
        row : mapping
            A row of a data set, or a batch: a mapping of columns. With ``input_columns=[image, label]``, the
            image or images.
        label : int, str or sequence of them, optional
            With ``input_columns=[image, label]``, the label or labels.

        Returns
        -------
        bool or list of bool

        Raises
        ------
        InputError
            If a row was never judged, or its image or label is not found.
        """
        image, label = self._find_columns(row) if label is None else _refuse_index(row, label)
        if np.ndim(label) == 0:
            return self.is_clean(image, label)
        return self._judge(image, label).tolist()

    def is_clean(self, image: object, label: int | str) -> bool:
        """Tell whether an image with this label was judged clean.

        Parameters
        ----------
        image : object
            Anything that `deft_plugin.images.read_image` takes.
        label : int or str
            Class index or class name.

        Raises
        ------
        InputError
            If it was never judged.
        """
        return bool(self._judge([image], [label])[0])

    def apply(self, dataset: Dataset) -> Dataset:
        """Keep the clean rows of the very data set that was judged, in the same order.

        Faster than ``dataset.filter(mask)``, since only a few images are decoded: all labels must be the
        judged ones in the same order, and so must 32 evenly spaced images.

        Raises
        ------
        InputError
            If it is another data set, or its rows are in another order.
        """
        if len(dataset) != len(self):
            raise _not_the_judged(f"it has {len(dataset)} rows instead of {len(self)}")
        labels = self._read_labels(dataset)
        different = np.flatnonzero(self._keys["label"][self._key_of_row] != labels)
        if len(different):
            raise _not_the_judged(f"row {different[0]} has another label")
        rows = np.unique(np.linspace(0, len(self) - 1, _ROWS_TO_COMPARE, dtype=int))
        found = self._find(_make_keys(self._digest_stored(dataset, rows), labels[rows]))
        different = rows[found != self._key_of_row[rows]]
        if len(different):
            raise _not_the_judged(f"row {different[0]} has another image")
        return dataset.select(np.flatnonzero(self._is_clean[self._key_of_row]))

    def _read_labels(self, dataset: Dataset) -> np.ndarray:
        """Read class indices (N,)."""
        column = self.label_column
        if column is None or column not in dataset.features:
            column = find_label_column(dataset)
        values = read_column(dataset, column)
        indices = {value: label_index(value, self.class_names) for value in set(values)}
        return np.array([indices[value] for value in values])

    def _digest_stored(self, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
        """Digest the images of some rows (B,) into (B, 16)."""
        column = self.image_column
        if column is None or column not in dataset.features:
            column = find_image_column(dataset)
        images = StoredImages(dataset, column)
        return _join(_digest_or_blank(functools.partial(images.load, row)) for row in rows.tolist())

    def _find_columns(self, row: Any) -> tuple[Any, Any]:
        if not isinstance(row, Mapping):
            raise InputError(
                f"Expected a data row as a mapping of column names to values, but got {type(row).__name__}. "
                "Drop the format with dataset.with_format(None)."
            )
        columns = cast("Mapping[str, Any]", row)
        image, label = self.image_column, self.label_column
        if image is None or image not in columns:
            image = _only("image", [name for name in columns if _is_image_column(columns[name])], columns)
        if label is None or label not in columns:
            label = _only("label", [name for name in columns if name in LABEL_NAMES], columns)
        return columns[image], columns[label]

    def _judge(self, images: Sequence[object], labels: Sequence[int | str]) -> np.ndarray:
        """Look up verdicts (B,)."""
        indices = [label_index(label, self.class_names) for label in labels]
        digests = _join(_digest_or_blank(functools.partial(read_image, image)) for image in images)
        keys = _make_keys(digests, indices)
        found = self._find(keys)
        if (found < 0).any():
            unknown = int(np.flatnonzero(found < 0)[0])
            raise self._never_judged(digests[unknown], indices[unknown])
        return self._is_clean[found]

    def _find(self, keys: np.ndarray) -> np.ndarray:
        """Find the positions of keys (B,), -1 where a key is unknown."""
        positions = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[positions] == keys, positions, -1)

    def _never_judged(self, digest: np.ndarray, label: int) -> InputError:
        classes = np.arange(len(self.class_names))
        judged = self._find(_make_keys(np.tile(digest, (len(classes), 1)), classes)) >= 0
        as_names = ", ".join(repr(self.class_names[index]) for index in classes[judged])
        if as_names:
            problem = f"was judged with label {as_names}"
        else:
            problem = "was never judged (images that were resized, augmented or encoded anew are not recognised)"
        return InputError(
            f"Expected rows that were judged, but the image of a row with label {self.class_names[label]!r} "
            f"{problem}. Filter the data set that was judged, or judge this one with deft_plugin.detect."
        )


def _make_keys(image_digests: np.ndarray, labels: Any) -> np.ndarray:
    """Make keys (N,) from digests (N, 16) and class indices (N,)."""
    halves = np.ascontiguousarray(image_digests, dtype=np.uint8).view("<u8")  # (N, 2)
    keys = np.empty(len(halves), dtype=_KEY)
    keys["high"], keys["low"], keys["label"] = halves[:, 0], halves[:, 1], labels
    return keys


def _join(digests: Iterable[bytes]) -> np.ndarray:
    """Make an array (B, 16)."""
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_SIZE)


def _digest_or_blank(load: Callable[[], Image.Image]) -> bytes:
    try:
        return image_digest(load())
    except UnreadableImageError:
        return UNREADABLE_DIGEST


def _is_image_column(value: Any) -> bool:
    is_batch = isinstance(value, list) or getattr(value, "ndim", 0) == 1
    one = value[0] if is_batch and len(value) else value
    return is_image(one) or getattr(one, "ndim", 0) >= 3  # with a numpy or torch format, images are arrays


def _only(kind: str, found: list[str], columns: Mapping[str, Any]) -> str:
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"Expected one column that is the {kind}, but got {', '.join(found) or 'none'} among "
        f"{', '.join(columns)}. Name them: dataset.filter(mask, input_columns=[image, label])."
    )


def _refuse_index(image: Any, label: Any) -> tuple[Any, Any]:
    if isinstance(image, Mapping) and not is_image(image):
        raise InputError("Expected a row alone, but got a row and an index. Filter without with_indices=True.")
    return image, label


def _not_the_judged(difference: str) -> InputError:
    return InputError(
        f"Expected the data set that was judged, in the same order, but {difference}. "
        "Use dataset.filter(mask), which recognises rows wherever they are."
    )
