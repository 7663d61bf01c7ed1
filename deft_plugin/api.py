"""``detect`` and ``find_label_issues``: from a user's data to verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deft_plugin.data.class_names import names_are_numbers, warn_of_names_without_words
from deft_plugin.data.labels import num_columns
from deft_plugin.data.reading import ImageData, own_class_names, read_image_data
from deft_plugin.errors import InputError, did_you_mean
from deft_plugin.judging import judge
from deft_plugin.results.detection import Detection
from deft_plugin.results.ranking import RankedBy, check_ranking, rank_issues
from deft_plugin.runs.prepare import PreparedRun, prepare_run
from deft_plugin.settings import DEFAULT_MODEL, FinetuneSettings, OnBadImage, Precision, RunSettings

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins
    from deft_plugin.types import Selector


def find_label_issues(
    data: Any = None,
    labels: Any = None,
    *,
    method: str | Selector | None = None,
    class_names: Sequence[str] | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    split: str | None = None,
    return_indices_ranked_by: RankedBy | None = None,
    rank_by_kwargs: Mapping[str, Any] | None = None,
    model: str = DEFAULT_MODEL,
    tuning: str = "auto",
    training: FinetuneSettings | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 64,
    seed: int = 0,
    cache_dir: Path | str | None = None,
    n_folds: int = 10,
    pred_probs: Any = None,
    noise_ratio: float | None = None,
    on_bad_image: OnBadImage = "raise",
    settings: RunSettings | None = None,
    verbose: bool = False,
    **of_cleanlab: Any,
) -> np.ndarray:
    """Find wrong labels; cleanlab's call shape.

    cleanlab's own call, ``find_label_issues(labels, pred_probs)``, is understood, too.

    Parameters
    ----------
    data, labels, class_names, image_column, id_column, split, pred_probs, settings, verbose
        As for `detect`.
    method : str or Selector, optional
        As for `detect`. If it is left out, "deft"; of labels and pred_probs without images, "confident_learning",
        which is what cleanlab's function does.
    model, tuning, training, device, precision, batch_size, seed, cache_dir, n_folds, noise_ratio, on_bad_image
        As for `detect`.
    return_indices_ranked_by : str, optional
        Give indices of issues, worst first, instead of a mask: by "label_quality", or one of cleanlab's names,
        "self_confidence", "normalized_margin" or "confidence_weighted_entropy". Of DeFT they all give the order of
        `Detection.label_quality`; see `deft_plugin.results.ranking.rank_issues`.
    rank_by_kwargs : mapping, optional
        cleanlab's, for methods that judge by `pred_probs`: ``{"adjust_pred_probs": True}``.
    **of_cleanlab
        Options of cleanlab's function that have no place here, such as ``filter_by``; an error says what to use.

    Returns
    -------
    np.ndarray of shape (N,), bool
        True = label issue; or of shape (n_issues,), int.

    Raises
    ------
    InputError
        As `detect`; and for cleanlab's options.
    """
    given = _run_settings(locals())
    _refuse_options_of_cleanlab(of_cleanlab)
    check_ranking(return_indices_ranked_by, rank_by_kwargs)
    if _is_call_of_cleanlab(data, labels, pred_probs):
        data, labels, pred_probs = None, data, labels if pred_probs is None else pred_probs
    if method is None:
        method = "confident_learning" if data is None and pred_probs is not None else "deft"
    detection, prepared, uses_images = _run(
        data,
        labels,
        method,
        given,
        class_names=class_names,
        image_column=image_column,
        id_column=id_column,
        split=split,
        pred_probs=pred_probs,
        verbose=verbose,
    )
    if return_indices_ranked_by is None:
        return detection.is_label_issue
    return rank_issues(
        detection,
        return_indices_ranked_by,
        pred_probs_of=None if uses_images else prepared,
        rank_by_kwargs=rank_by_kwargs,
    )


def detect(
    data: Any = None,
    labels: Any = None,
    *,
    method: str | Selector = "deft",
    class_names: Sequence[str] | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    split: str | None = None,
    model: str = DEFAULT_MODEL,
    tuning: str = "auto",
    training: FinetuneSettings | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 64,
    seed: int = 0,
    cache_dir: Path | str | None = None,
    n_folds: int = 10,
    pred_probs: Any = None,
    noise_ratio: float | None = None,
    on_bad_image: OnBadImage = "raise",
    settings: RunSettings | None = None,
    verbose: bool = False,
    plugins: Plugins | None = None,
) -> Detection:
    """Judge every label of a data set.

    Parameters
    ----------
    data : datasets.Dataset, path, map-style torch data set, sequence of images, or ImageData
        See `deft_plugin.data.read_image_data`. May be left out for a method that needs only `pred_probs`.
    labels : sequence of int or str of length N, optional
        Given labels, if `data` does not have them. Whole numbers without class names may be any ids: the classes are
        those that occur, and their names are the digits.
    method : str or Selector
        Name of a registered selector (``deft plugins`` lists them), or one of your own.
    class_names : sequence of str of length K, optional
        If `data` does not have them. DeFT reads them: they should be words.
    image_column : str, optional
        Column of a Hugging Face data set that holds the images, if it has several.
    id_column : str, optional
        Column of a Hugging Face data set whose values tell its rows apart: `Detection.clean_mask` then recognises
        rows by it, without their images (decoding none: ``dataset.filter(mask, batched=True)``).
    split : str, optional
        Which of the splits that a path holds, such as "train"; "all" for all of them together.
    model, tuning, training, device, precision, batch_size, seed, cache_dir, n_folds, noise_ratio, on_bad_image
        See `RunSettings`, which says what each means.
    pred_probs : array of shape (N, K), optional
        Out-of-sample class probabilities, for methods that need them.
    settings : RunSettings, optional
        All of them at once, instead of the keywords.
    verbose : bool
        Show progress.
    plugins : Plugins, optional
        As loaded by `deft_plugin.plugins.load_plugins`; by default all installed ones.

    Returns
    -------
    Detection

    Raises
    ------
    InputError, UnreadableImageError, UnknownNameError, MissingWeightsError
        Each says what was expected, what came, and how to mend it.
    """
    given = _run_settings(locals())
    if _is_call_of_cleanlab(data, labels, pred_probs):
        raise InputError(
            "Expected images as data, but got labels and pred_probs, as in cleanlab's call. Pass labels=..., "
            "pred_probs=... and a method that needs no images, such as method='confident_learning'."
        )
    return _run(
        data,
        labels,
        method,
        given,
        class_names=class_names,
        image_column=image_column,
        id_column=id_column,
        split=split,
        pred_probs=pred_probs,
        verbose=verbose,
        plugins=plugins,
    )[0]


def _run(
    data: Any,
    labels: Any,
    method: str | Selector,
    settings: RunSettings,
    *,
    class_names: Sequence[str] | None,
    image_column: str | None,
    id_column: str | None,
    split: str | None,
    pred_probs: Any,
    verbose: bool,
    plugins: Plugins | None = None,
) -> tuple[Detection, PreparedRun, bool]:
    """Judge, and say by what: the run, and whether the method judges by images (else by pred_probs)."""
    from deft_plugin.plugins import load_plugins
    from deft_plugin.progress import ConsoleProgress

    plugins = plugins or load_plugins()
    name, selector, traits = plugins.find_selector(method)
    columns = {"image_column": image_column, "id_column": id_column, "split": split}
    if data is not None:
        given = data
        data = read_image_data(data, labels, class_names, image_column=image_column, id_column=id_column, split=split)
        if class_names is None and pred_probs is not None:
            data = _count_in_columns(data, pred_probs, own_class_names(given, labels, split=split))
        labels = class_names = None
        if "texts" in traits.consumes:
            warn_of_names_without_words(data.class_names)
    elif without := [name for name, value in columns.items() if value is not None]:
        raise InputError(f"Expected data with {', '.join(without)}, but got none. Pass the data set that has it.")
    with ConsoleProgress(enabled=verbose) as progress:
        prepared = prepare_run(
            data,
            labels,
            settings=settings,
            plugins=plugins,
            needs_images=traits.needs_images,
            learns=traits.learns,
            class_names=class_names,
            pred_probs=pred_probs,
            feature_progress=progress.features,
            epoch_end=progress.epoch_end,
        )
        return judge(prepared, name, selector), prepared, traits.needs_images


def _is_call_of_cleanlab(data: Any, labels: Any, pred_probs: Any) -> bool:
    """Tell whether these are labels and pred_probs by position, as cleanlab's function takes them."""
    if data is None or isinstance(data, str | PathLike | Mapping) or not hasattr(data, "__getitem__"):
        return False
    if labels is None:
        return pred_probs is not None and _is_vector_of_labels(data)
    return _num_dimensions(labels) == 2 and pred_probs is None and _is_vector_of_labels(data)


def _is_vector_of_labels(data: Any) -> bool:
    if hasattr(data, "ndim") or hasattr(data, "detach"):
        dtype = str(getattr(data, "dtype", ""))
        return data.ndim == 1 and not dtype.startswith(("object", "str", "<U"))
    if not isinstance(data, list | tuple) or not data:
        return False
    first: Any = cast("Sequence[Any]", data)[0]
    several: bool = isinstance(first, list | tuple) and all(
        isinstance(one, int) for one in cast("Sequence[Any]", first)
    )
    return several or (isinstance(first, int | float | np.number) and not isinstance(first, bool))


def _num_dimensions(values: Any) -> int:
    if hasattr(values, "ndim"):
        return values.ndim
    is_nested = isinstance(values, list | tuple) and bool(values) and isinstance(values[0], list | tuple)
    return 2 if is_nested else 1


_OPTIONS_OF_CLEANLAB = {
    "filter_by": "Choose a method instead, such as method='confident_learning'",
    "n_jobs": "Leave it out",
    "multi_label": "Several labels per image are not supported: leave it out",
    "frac_noise": "Take the first ones of return_indices_ranked_by='label_quality'",
    "num_to_remove_per_class": "Take the first ones of return_indices_ranked_by='label_quality'",
    "min_examples_per_class": "Leave it out",
    "confident_joint": "Leave it out",
    "low_memory": "Leave it out",
}


def _refuse_options_of_cleanlab(given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in _OPTIONS_OF_CLEANLAB:
            known = [*signature(find_label_issues).parameters]
            raise TypeError(f"find_label_issues() got an unexpected argument {name!r}. {did_you_mean(name, known)}")
        raise InputError(
            f"Expected no {name}: it is cleanlab's, and has no place here. {_OPTIONS_OF_CLEANLAB[name]}, or call "
            "cleanlab.filter.find_label_issues for it."
        )


def _count_in_columns(data: ImageData, pred_probs: Any, own_names: Sequence[str] | None) -> ImageData:
    """As in cleanlab, whole-number labels without class names are columns of pred_probs, if some have no label."""
    num_classes = num_columns(pred_probs)
    if own_names is not None or not names_are_numbers(data.class_names) or len(data.class_names) >= num_classes:
        return data
    numbers = np.array(data.class_names).astype(np.int64)
    if numbers[-1] >= num_classes:
        return data
    return replace(data, labels=numbers[data.labels], class_names=tuple(map(str, range(num_classes))))


def _run_settings(arguments: Mapping[str, Any]) -> RunSettings:
    """Take the settings of a run from a function's arguments, or from its argument `settings`, but not from both.

    Raises
    ------
    InputError
        If `settings` is no RunSettings, or keywords say otherwise than their defaults beside it.
    """
    names = [field.name for field in fields(RunSettings) if field.name in arguments]
    settings = arguments["settings"]
    if settings is None:
        return RunSettings(**{name: arguments[name] for name in names})
    if not isinstance(settings, RunSettings):
        raise InputError(f"Expected settings as a deft_plugin.RunSettings, but got {type(settings).__name__}.")
    defaults = RunSettings()
    if both := [name for name in names if arguments[name] != getattr(defaults, name)]:
        raise InputError(
            f"Expected settings or keywords, but got settings and {', '.join(both)}. Put them into one: "
            f"dataclasses.replace(settings, {both[0]}=...)."
        )
    return settings
