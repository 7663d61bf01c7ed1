"""A selector's verdicts on a run, carried back to the user's rows."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_plugin.compute.precision import use_precision
from deft_plugin.errors import DeftError
from deft_plugin.results.checks import NO_PREDICTION, check_classes, check_vector
from deft_plugin.results.detection import NOT_JUDGED, TOO_SMALL, Detection

if TYPE_CHECKING:
    from deft_plugin.runs.prepare import PreparedRun
    from deft_plugin.runs.run import Run
    from deft_plugin.types import Selection, Selector

_STEERS_NOTHING = ("batch_size", "cache_dir", "noise_ratio_source", "on_bad_image", "training")
"""Settings of a run that are not recorded; those of the training are, by the method that has used them."""

_OF_IMAGES = ("model", "tuning", "device", "precision")


def judge(prepared: PreparedRun, name: str, selector: Selector) -> Detection:
    """Let a selector judge a prepared run, and carry its verdicts back to all rows.

    Raises
    ------
    DeftError
        If the selector raises or gives something other than a verdict for each example; names it.
    """
    started = time.perf_counter()
    try:
        with use_precision(prepared.run.settings.precision):
            selection = selector.select(prepared.run)
    except DeftError:
        raise
    except Exception as error:
        raise DeftError(f"Selector {name!r} failed with {type(error).__name__}: {error}") from error
    _check_selection(selection, name, prepared.run)
    readable = prepared.is_readable
    label_quality = np.zeros(len(readable))
    is_label_issue = np.ones(len(readable), bool)
    predicted = np.full(len(readable), NO_PREDICTION, np.int64)
    label_quality[readable] = selection.label_quality
    is_label_issue[readable] = ~np.asarray(selection.is_clean)
    predicted[readable] = prepared.classes[selection.predicted_labels]
    details = dict(selection.details)
    if len(prepared.too_small):
        unjudged = readable & np.isin(prepared.given_labels, prepared.too_small)
        is_label_issue[unjudged], label_quality[unjudged] = False, NOT_JUDGED
        details[TOO_SMALL] = [prepared.class_names[label] for label in prepared.too_small]
    return Detection(
        method=name,
        label_quality=label_quality,
        is_label_issue=is_label_issue,
        predicted_labels=predicted,
        given_labels=prepared.given_labels,
        class_names=prepared.class_names,
        image_digests=prepared.digests,
        is_image_issue=~readable,
        image_column=prepared.data.image_column if prepared.data else None,
        label_column=prepared.data.label_column if prepared.data else None,
        id_column=prepared.data.id_column if prepared.data else None,
        id_digests=prepared.data.id_digests if prepared.data else None,
        settings={**_reported(prepared), **selection.settings, "seconds": time.perf_counter() - started},
        details=details,
        images=prepared.data.images if prepared.data else None,
    )


def _reported(prepared: PreparedRun) -> dict[str, Any]:
    """Give the settings that the verdicts depend on, as JSON values; a new setting is among them by itself."""
    passed_over = _STEERS_NOTHING if prepared.data is not None else (*_STEERS_NOTHING, *_OF_IMAGES)
    settings = prepared.run.settings
    return {field.name: getattr(settings, field.name) for field in fields(settings) if field.name not in passed_over}


def _check_selection(selection: Selection, method: str, run: Run) -> None:
    size = len(run.labels)
    for name, kinds in (("is_clean", "b"), ("label_quality", "fiu")):
        check_vector(getattr(selection, name, None), name, size, kinds, method=method)
    predicted = getattr(selection, "predicted_labels", None)
    check_classes(predicted, "predicted_labels", size, range(run.num_classes), method=method)
