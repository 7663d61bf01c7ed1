"""The order in which label issues are listed, by cleanlab's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np

from deft_plugin.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from deft_plugin.results.detection import Detection
    from deft_plugin.runs.prepare import PreparedRun

RankedBy: TypeAlias = Literal["label_quality", "self_confidence", "normalized_margin", "confidence_weighted_entropy"]


def check_ranking(ranked_by: object, rank_by_kwargs: object) -> None:
    """Refuse a ranking that does not exist, before anything is computed.

    Raises
    ------
    InputError
    """
    known = get_args(RankedBy)
    if ranked_by is not None and not (isinstance(ranked_by, str) and ranked_by in known):
        raise InputError(
            f"Expected return_indices_ranked_by to be None or one of {', '.join(known)}, but got {ranked_by!r}. "
            f"{did_you_mean(str(ranked_by), known)}"
        )
    if rank_by_kwargs is not None and (
        not isinstance(rank_by_kwargs, Mapping)
        or set(cast("Mapping[str, Any]", rank_by_kwargs)) - {"adjust_pred_probs"}
    ):
        got = list(cast("Mapping[str, Any]", rank_by_kwargs)) if isinstance(rank_by_kwargs, Mapping) else rank_by_kwargs
        raise InputError(f"Expected rank_by_kwargs as a mapping with 'adjust_pred_probs' at most, but got {got!r}.")


def rank_issues(
    detection: Detection,
    ranked_by: RankedBy,
    *,
    pred_probs_of: PreparedRun | None = None,
    rank_by_kwargs: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Order the rows of the label issues, worst first.

    Parameters
    ----------
    detection : Detection
    ranked_by : str
        cleanlab's scores are of the whole distribution over classes. A method that judges by its own label quality
        q, such as DeFT, says of a label that it is right with probability q or wrong with 1 - q; of these two
        numbers, q, the margin 2 q - 1 and the entropy weighted by 1 / q all give one order.
    pred_probs_of : PreparedRun, optional
        The run of a method that judges by ``pred_probs``: cleanlab's scores are of these then.
    rank_by_kwargs : mapping, optional
        cleanlab's: ``{"adjust_pred_probs": True}``.

    Returns
    -------
    np.ndarray of shape (n_issues,), int

    Raises
    ------
    InputError
        If pred_probs are to be adjusted where there are none, or cleanlab refuses to.
    """
    if pred_probs_of is None or ranked_by == "label_quality":
        if rank_by_kwargs and rank_by_kwargs.get("adjust_pred_probs"):
            raise InputError(
                f"Expected no adjust_pred_probs where issues of {detection.method!r} are ranked by its label quality. "
                "Leave rank_by_kwargs out, or use a method that judges by pred_probs, such as 'confident_learning'."
            )
        return detection.ranked_issue_indices()
    from cleanlab.rank import order_label_issues

    rows = np.flatnonzero(pred_probs_of.is_readable)
    run = pred_probs_of.run
    try:
        order = order_label_issues(
            detection.is_label_issue[rows],
            run.labels,
            run.pred_probs,
            rank_by=ranked_by,
            rank_by_kwargs=dict(rank_by_kwargs or {}),
        )
    except ValueError as error:
        raise InputError(f"Expected a ranking that cleanlab can do, but: {error}") from error
    return np.concatenate([np.flatnonzero(~pred_probs_of.is_readable), rows[order]])
