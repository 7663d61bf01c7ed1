import dataclasses
import json

import numpy as np
import pytest
from deft_benchmarks.matrix.metrics import batch_mean_metrics, detection_metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_plugin.errors import InputError

quality = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
examples = st.lists(st.tuples(st.booleans(), quality, st.booleans()), min_size=1, max_size=40)


def ratio(numerator: int, denominator: int):
    return numerator / denominator if denominator else None


def counted(found: list[bool], wanted: list[bool]):
    """Precision, recall and F1 by counting."""
    hits = sum(f and w for f, w in zip(found, wanted, strict=True))
    precision, recall = ratio(hits, sum(found)), ratio(hits, sum(wanted))
    return precision, recall, ratio(2 * hits, sum(found) + sum(wanted))


def auroc_by_pairs(qualities: list[float], truly_clean: list[bool]) -> float:
    right = [q for q, clean in zip(qualities, truly_clean, strict=True) if clean]
    wrong = [q for q, clean in zip(qualities, truly_clean, strict=True) if not clean]
    wins = [1.0 if r > w else 0.5 if r == w else 0.0 for r in right for w in wrong]
    return sum(wins) / len(wins)


def average_precision_by_thresholds(qualities: list[float], truly_clean: list[bool]) -> float:
    """Sum over thresholds, lowest quality first: gain in recall of wrong labels, times precision there."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(qualities)):
        flagged_truths = [clean for q, clean in zip(qualities, truly_clean, strict=True) if q <= threshold]
        wrong = flagged_truths.count(False)
        recall = wrong / truly_clean.count(False)
        total += (recall - recall_before) * wrong / len(flagged_truths)
        recall_before = recall
    return total


@settings(deadline=None)  # the first call imports scikit-learn
@given(examples=examples)
def test_against_loops(examples):
    kept, qualities, truth = (list(column) for column in zip(*examples, strict=True))
    metrics = detection_metrics(np.array(kept), np.array(qualities), np.array(truth))
    flagged, wrong = [not k for k in kept], [not t for t in truth]
    clean = (metrics.clean_precision, metrics.clean_recall, metrics.clean_f1)
    noise = (metrics.noise_precision, metrics.noise_recall, metrics.noise_f1)
    for got, expected in zip((*clean, *noise), (*counted(kept, truth), *counted(flagged, wrong)), strict=True):
        assert got == (None if expected is None else pytest.approx(expected))
    if all(truth) or not any(truth):
        assert metrics.auroc is None
        assert metrics.auprc is None
    else:
        assert metrics.auroc == pytest.approx(auroc_by_pairs(qualities, truth))
        assert metrics.auprc == pytest.approx(average_precision_by_thresholds(qualities, truth))


@settings(deadline=None)  # the first call imports scikit-learn
@given(examples=examples)
def test_scores_are_json_floats_in_0_1(examples):
    metrics = detection_metrics(*(list(column) for column in zip(*examples, strict=True)))
    scores = json.loads(json.dumps(dataclasses.asdict(metrics), allow_nan=False))
    assert len(scores) == 8
    assert all(score is None or (isinstance(score, float) and 0 <= score <= 1) for score in scores.values())


def test_polarity():
    # 3 right labels, all kept; 2 wrong ones, one kept. The lowest quality is the flagged one.
    metrics = detection_metrics(
        [True, True, True, True, False], [0.9, 0.8, 0.7, 0.6, 0.1], [True, True, True, False, False]
    )
    assert metrics.clean_precision == 0.75
    assert metrics.clean_recall == 1.0
    assert metrics.noise_precision == 1.0
    assert metrics.noise_recall == 0.5
    assert metrics.auroc == 1.0
    assert metrics.auprc == 1.0
    upside_down = detection_metrics([False] * 4 + [True], [0.1, 0.2, 0.3, 0.4, 0.9], [True] * 3 + [False] * 2)
    assert upside_down.auroc == 0.0
    assert upside_down.clean_recall == 0.0


def test_without_wrong_labels_what_is_undefined_is_none():
    metrics = detection_metrics([True, False], [0.9, 0.2], [True, True])
    assert (metrics.clean_precision, metrics.clean_recall) == (1.0, 0.5)
    assert (metrics.noise_precision, metrics.noise_recall, metrics.noise_f1) == (0.0, None, 0.0)
    assert (metrics.auroc, metrics.auprc) == (None, None)


def test_nothing_kept():
    metrics = detection_metrics([False, False], [0.1, 0.2], [True, False])
    assert (metrics.clean_precision, metrics.clean_recall, metrics.clean_f1) == (None, 0.0, 0.0)


def test_qualities_too_small_for_one_minus_quality_still_rank():
    metrics = detection_metrics([False] * 2, [1e-18, 1e-20], [True, False])
    assert metrics.auroc == 1.0
    assert metrics.auprc == 1.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"is_clean": [True]}, "one length above 0, but got 1, 2 and 2"),
        ({"is_clean": [], "label_quality": [], "is_truly_clean": []}, "but got 0, 0 and 0"),
        ({"is_clean": [1, 0]}, "is_clean to be bool .* but got int64"),
        ({"is_truly_clean": [0.5, 1.0]}, "is_truly_clean to be bool .* but got float64"),
        ({"is_truly_clean": [[True, False]]}, r"shape \(1, 2\)"),
        ({"label_quality": [0.5, 1.5]}, "from 0.5 to 1.5"),
        ({"label_quality": [0.5, float("nan")]}, "nan"),
        ({"label_quality": [[0.5, 0.5]]}, r"shape \(1, 2\)"),
    ],
)
def test_bad_input_is_a_clear_error(changed, message: str):
    arguments = {"is_clean": [True, False], "label_quality": [0.9, 0.1], "is_truly_clean": [True, False]}
    with pytest.raises(InputError, match=message):
        detection_metrics(**{**arguments, **changed})


def test_batch_means_leave_out_batches_without_a_score():
    kept = np.array([True, True, False, False, True, True])
    right = np.array([True, False, True, True, False, True])
    batches = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]
    # precision: 1/2, 0/0, 1/2; recall: 1/1, 0/2, 1/1
    assert batch_mean_metrics(kept, right, batches) == (0.5, pytest.approx(2 / 3))


def test_batch_means_of_nothing():
    nothing = np.zeros(2, bool)
    assert batch_mean_metrics(nothing, nothing, [np.array([0]), np.array([1])]) == (None, None)
