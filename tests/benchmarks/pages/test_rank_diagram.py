"""Groups of the critical-difference diagram, against a search over all of them."""

from __future__ import annotations

from itertools import combinations

from deft_benchmarks.pages.rank_diagram import cliques
from hypothesis import given, settings
from hypothesis import strategies as st


def groups_by_search(ranks, difference):
    """All sets of two or more that are not told apart, and are in no larger such set."""
    sets = [
        set(chosen)
        for size in range(2, len(ranks) + 1)
        for chosen in combinations(range(len(ranks)), size)
        if max(abs(ranks[a] - ranks[b]) for a in chosen for b in chosen) < difference
    ]
    return {frozenset(one) for one in sets if not any(one < other for other in sets)}


@given(
    st.lists(st.integers(2, 16).map(lambda rank: rank / 2), min_size=1, max_size=7).map(sorted),
    st.sampled_from([0.5, 1.0, 1.6, 3.0, 20.0]),
)
@settings(max_examples=150, deadline=None)
def test_the_same_groups_as_by_search(ranks, difference):
    found = cliques(ranks, difference)
    sets = [frozenset(range(first, last + 1)) for first, last in found]
    assert len(sets) == len(set(sets))
    assert set(sets) == groups_by_search(ranks, difference)


def test_a_difference_as_large_as_the_critical_one_is_told_apart():
    assert cliques([1.0, 2.0, 3.0], 1.0) == []
    assert cliques([1.0, 2.0, 3.0], 1.0001) == [(0, 1), (1, 2)]
