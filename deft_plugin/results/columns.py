"""Verdicts as columns of a Hugging Face data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deft_plugin.data.row_keys import RowKeys

if TYPE_CHECKING:
    from datasets import Dataset

    from deft_plugin.results.detection import Detection


class VerdictColumns:
    """Function that adds label_quality, is_label_issue and predicted_label: ``dataset.map(columns)``.

    It recognises rows as `deft_plugin.CleanMask` does, and fails on one that was never judged. Rows that share a key
    get the verdict of the worst of them. Predicted labels are class names; None where the image could not be read.

    Stored images stay as they are, to the byte. A stream (``IterableDataset``) alone decodes images before it maps,
    and encodes them anew when it is written; to keep their bytes, cast the column first:
    ``stream.cast_column("image", datasets.Image(decode=False)).map(columns)``.

    Parameters
    ----------
    keys : RowKeys
        Of N rows.
    detection : Detection
        Of the same rows.
    """

    def __init__(self, keys: RowKeys, detection: Detection) -> None:
        self._keys = keys
        worst_first = np.lexsort((detection.label_quality, ~detection.is_label_issue, keys.key_of_row))
        first = np.unique(keys.key_of_row[worst_first], return_index=True)[1]
        rows = worst_first[first]  # of each key the worst row
        self._quality = detection.label_quality[rows]
        self._is_issue = detection.is_label_issue[rows]
        self._predicted = detection.predicted_labels[rows]

    def __repr__(self) -> str:
        return f"VerdictColumns({len(self._keys.key_of_row)} rows, {len(self._keys.class_names)} classes)"

    def __getstate__(self) -> dict[str, Any]:
        arrays = {"quality": self._quality, "is_issue": self._is_issue, "predicted": self._predicted}
        return {**self._keys.__getstate__(), **{name: array.tobytes() for name, array in arrays.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._keys = RowKeys.__new__(RowKeys)
        self._keys.__setstate__(state)
        self._quality = np.frombuffer(state["quality"])
        self._is_issue = np.frombuffer(state["is_issue"], dtype=bool)
        self._predicted = np.frombuffer(state["predicted"], dtype=np.int64)

    def __call__(self, *row: Any) -> dict[str, Any]:
        """Give the columns of a row, or of a batch of rows; arguments as for `deft_plugin.CleanMask`.

        Returns
        -------
        dict
            label_quality (float in [0, 1], low = bad), is_label_issue (bool), predicted_label (str or None).
        """
        found, is_batch = self._keys.find_arguments(*row)
        columns = self._columns(found)
        return columns if is_batch else {name: values[0] for name, values in columns.items()}

    def add_to(self, dataset: Dataset) -> Dataset:
        """Add the columns to the very data set that was judged, in the same order, without writing it anew.

        All labels and images must be the judged ones: each image is decoded, in threads; with an id column none is.

        Raises
        ------
        InputError
            If it is another data set, or its rows are in another order.
        """
        import datasets

        self._keys.check_same_order(dataset, np.arange(len(self._keys.key_of_row)))
        columns = datasets.Dataset.from_dict(self._columns(self._keys.key_of_row), split=dataset.split)
        return datasets.concatenate_datasets([dataset, columns], axis=1)

    def _columns(self, keys: np.ndarray) -> dict[str, list[Any]]:
        names = np.array([*self._keys.class_names, None], dtype=object)  # -1, no prediction, is the last
        return {
            "label_quality": self._quality[keys].tolist(),
            "is_label_issue": self._is_issue[keys].tolist(),
            "predicted_label": names[self._predicted[keys]].tolist(),
        }
