import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deft_plugin.runs.folds import deal_folds

labels_of = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@given(labels_of, st.integers(2, 6), st.integers(0, 1000))
def test_each_label_evenly(labels, n_folds, seed):
    folds = deal_folds(labels, np.arange(len(labels)), n_folds, seed)
    assert folds.shape == labels.shape
    assert folds.dtype == np.int64
    assert ((folds >= 0) & (folds < n_folds)).all()
    for label in np.unique(labels):
        sizes = np.bincount(folds[labels == label], minlength=n_folds)
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(folds, minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1


@given(labels_of, st.integers(2, 6), st.data())
def test_groups_stay_together(labels, n_folds, data):
    size = len(labels)
    groups = np.array(data.draw(st.lists(st.integers(-3, 8), min_size=size, max_size=size)))
    folds = deal_folds(labels, groups, n_folds, seed=0)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    # Groups, not examples, are dealt evenly.
    sizes = np.bincount([folds[groups == group][0] for group in np.unique(groups)], minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1


def test_same_seed_same_folds():
    labels, groups = np.arange(100) % 7, np.arange(100) // 2
    first, second, other = (deal_folds(labels, groups, 5, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_order_of_examples_does_not_decide():
    """Data sorted by time or by origin must not end up with one origin a fold."""
    folds = deal_folds(np.zeros(1000, int), np.arange(1000), 5, seed=0)
    first_half = np.bincount(folds[:500], minlength=5)
    assert (first_half > 60).all()
    assert len(set(first_half)) > 1


def test_global_random_state_is_left_alone():
    labels = np.arange(20) % 2
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    deal_folds(labels, np.arange(20), 5, seed=0)
    assert np.array_equal(np.random.get_state()[1], before)


def test_fewer_examples_than_folds():
    folds = deal_folds(np.array([0, 1, 0]), np.arange(3), 5, seed=0)
    assert len(set(folds.tolist())) == 3
    assert folds.max() < 5


def test_all_examples_in_one_group():
    assert len(set(deal_folds(np.arange(6) % 2, np.zeros(6, int), 3, seed=0).tolist())) == 1
