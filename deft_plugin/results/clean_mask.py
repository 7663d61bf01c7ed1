"""A filter that remembers which images, with which label, were judged clean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deft_plugin.data.row_keys import RowKeys

if TYPE_CHECKING:
    from datasets import Dataset


class CleanMask:
    """Function of a data row that is True where the label was judged clean: ``dataset.filter(mask)``.

    It works on the judged data set, however shuffled, subset, split, saved and reloaded, with
    ``batched=True`` and ``num_proc``. A row that was never judged is an error. Rows with the same pixels and
    the same label share one verdict: clean only if all of them were judged clean. Images must be those that
    were judged: resized, augmented or re-encoded ones are not recognised.

    An unreadable image is never clean. Hugging Face `datasets` fails to decode it before it calls the mask:
    use `apply`, or cast the column to ``datasets.Image(decode=False)`` first, or judge with an id column.

    Parameters
    ----------
    keys : RowKeys
        Of N rows.
    is_clean : np.ndarray of shape (N,), bool

    Examples
    --------
    >>> from PIL import Image
    >>> from deft_plugin.data.digests import image_digest
    >>> from deft_plugin.data.digests import join_digests
    >>> cat, dog = Image.new("RGB", (2, 2), "black"), Image.new("RGB", (2, 2), "white")
    >>> keys = RowKeys(join_digests(map(image_digest, (cat, dog))), np.array([0, 1]), ["cat", "dog"])
    >>> mask = CleanMask(keys, np.array([True, False]))
    >>> mask
    CleanMask(1 of 2 rows clean, 2 classes)
    >>> mask({"image": cat, "label": 0}), mask.is_clean(dog, "dog")
    (True, False)
    """

    def __init__(self, keys: RowKeys, is_clean: np.ndarray) -> None:
        self._keys = keys
        self._is_clean = np.ones(len(keys), dtype=bool)  # of each key
        self._is_clean[keys.key_of_row[~np.asarray(is_clean, dtype=bool)]] = False

    def __len__(self) -> int:
        return len(self._keys.key_of_row)

    def __repr__(self) -> str:
        clean = np.count_nonzero(self._is_clean[self._keys.key_of_row])
        return f"CleanMask({clean} of {len(self)} rows clean, {len(self._keys.class_names)} classes)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CleanMask) and self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash(tuple(self.__getstate__().values()))

    def __getstate__(self) -> dict[str, Any]:
        return {**self._keys.__getstate__(), "is_clean": self._is_clean.tobytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._keys = RowKeys.__new__(RowKeys)
        self._keys.__setstate__(state)
        self._is_clean = np.frombuffer(state["is_clean"], dtype=bool)

    def __call__(self, *row: Any) -> bool | list[bool]:
        """Judge a row, or a batch of rows.

        Parameters
        ----------
        *row
            A row of a data set, or a batch: a mapping of columns. With ``input_columns=[image, label]``, the
            image and the label, or those of a batch. An index behind it (``with_indices=True``) is not needed.

        Returns
        -------
        bool or list of bool

        Raises
        ------
        InputError
            If a row was never judged, or its image or label is not found.
        """
        found, is_batch = self._keys.find_arguments(*row)
        verdicts = self._is_clean[found].tolist()
        return verdicts if is_batch else verdicts[0]

    def is_clean(self, image: object, label: int | str) -> bool:
        """Tell whether an image with this label was judged clean.

        Parameters
        ----------
        image : object
            Anything that `deft_plugin.data.images.read_image` takes; with an id column, the id.
        label : int or str
            Class index or class name.

        Raises
        ------
        InputError
            If it was never judged.
        """
        return bool(self._is_clean[self._keys.find([image], [label])[0]])

    def apply(self, dataset: Dataset) -> Dataset:
        """Keep the clean rows of the very data set that was judged, in the same order.

        All labels must be the judged ones in the same order, and so must the images of the rows that are kept, each of
        which is decoded, in threads: no slower than ``dataset.filter(mask)``. With an id column no image is decoded,
        and a million rows take a second.

        Raises
        ------
        InputError
            If it is another data set, or its rows are in another order.
        """
        kept = np.flatnonzero(self._is_clean[self._keys.key_of_row])
        self._keys.check_same_order(dataset, kept)
        return dataset.select(kept)
