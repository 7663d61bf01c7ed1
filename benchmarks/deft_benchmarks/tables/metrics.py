"""How a metric is shown: which end is better, and whether in %."""

from __future__ import annotations

LOWER_IS_BETTER = ("noise_miss_rate_at_budget", "calibration_error")


def is_in_percent(metric: str) -> bool:
    """Tell whether a metric is shown in %: precision, recall and F1 are."""
    return metric not in ("auroc", "auprc", *LOWER_IS_BETTER)


def shown(metric: str, value: float) -> str:
    """Write a value of a metric as tables do.

    Parameters
    ----------
    metric : str
    value : float in [0, 1]
        Or the half-width of an interval.

    Examples
    --------
    >>> shown("clean_f1", 0.9587), shown("auroc", 0.9587)
    ('95.9', '0.959')
    """
    return f"{100 * value:.1f}" if is_in_percent(metric) else f"{value:.3f}"
