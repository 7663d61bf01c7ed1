"""``detect`` and ``find_label_issues``: from a user's data to verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deft_plugin.data.reading import read_image_data
from deft_plugin.errors import InputError
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
    method: str | Selector = "deft",
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
) -> np.ndarray:
    """Find wrong labels; cleanlab's call shape.

    Parameters
    ----------
    data, labels, method, class_names, image_column, id_column, split, pred_probs, settings, verbose
        As for `detect`.
    model, tuning, training, device, precision, batch_size, seed, cache_dir, n_folds, noise_ratio, on_bad_image
        As for `detect`.
    return_indices_ranked_by : str, optional
        Give indices of issues, worst first, instead of a mask: by "label_quality", or one of cleanlab's names,
        "self_confidence", "normalized_margin" or "confidence_weighted_entropy". Of DeFT they all give the order of
        `Detection.label_quality`; see `deft_plugin.results.ranking.rank_issues`.
    rank_by_kwargs : mapping, optional
        cleanlab's, for methods that judge by `pred_probs`: ``{"adjust_pred_probs": True}``.

    Returns
    -------
    np.ndarray of shape (N,), bool
        True = label issue; or of shape (n_issues,), int.
    """
    given = _run_settings(locals())
    check_ranking(return_indices_ranked_by, rank_by_kwargs)
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
        Given labels, if `data` does not have them.
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
    if data is not None:
        data = read_image_data(data, labels, class_names, image_column=image_column, id_column=id_column, split=split)
        labels = class_names = None
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
