"""What cleanlab promises of `find_label_issues`, asked of ours: for pred_probs, and for images where it applies."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
from cleanlab.rank import get_label_quality_scores
from hypothesis import given, settings
from hypothesis import strategies as st

import deft_plugin
from deft_plugin.errors import InputError
from deft_plugin.runs import features

NAMES = ("normalized_margin", "self_confidence", "confidence_weighted_entropy")
IMAGE_METHODS = ("deft", "label_match", "gmm", "small_loss", "confident_learning")


def noisy(seed=0, size=300, num_classes=4, wrong=0.2):
    """Labels, and pred_probs of a fair classifier of the truth."""
    rng = np.random.default_rng(seed)
    truth = np.arange(size) % num_classes
    labels = np.where(rng.random(size) < wrong, rng.integers(0, num_classes, size), truth)
    logits = 3 * np.eye(num_classes)[truth] + rng.normal(size=(size, num_classes))
    probs = np.exp(logits)
    return labels, probs / probs.sum(1, keepdims=True)


def find(labels, pred_probs, **more):
    return deft_plugin.find_label_issues(labels=labels, pred_probs=pred_probs, method="confident_learning", **more)


def of_images(data, labels=None, **more):
    return deft_plugin.find_label_issues(data, labels, model="fake", device="cpu", **more)


class TestPredProbs:
    def test_no_issue_is_where_the_prediction_is_the_label(self):
        labels, probs = noisy()
        issues = find(labels, probs)
        assert issues.any()
        assert not (issues & (probs.argmax(1) == labels)).any()
        assert not find(probs.argmax(1), probs).any()

    @pytest.mark.filterwarnings("ignore:May not flag all label issues in class")  # cleanlab's, of the absent one
    @pytest.mark.parametrize("absent", [0, 2, 3])
    def test_missing_classes(self, absent):
        """Labels that never use a class, and probabilities that never give it: as if it were not there."""
        labels, probs = noisy()
        keep = labels != absent
        labels, probs = labels[keep], probs[keep]
        without = np.delete(probs, absent, axis=1)
        without /= without.sum(1, keepdims=True)
        with_zero = np.insert(without, absent, 0, axis=1)
        shifted = labels - (labels > absent)
        np.testing.assert_array_equal(find(labels, with_zero), find(shifted, without))
        for name in ("normalized_margin", "self_confidence"):
            ranked = find(labels, with_zero, return_indices_ranked_by=name)
            np.testing.assert_array_equal(ranked, find(shifted, without, return_indices_ranked_by=name))

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000), name=st.sampled_from([*NAMES, "label_quality"]))
    def test_ranking_changes_the_order_and_not_the_set(self, seed, name):
        labels, probs = noisy(seed)
        mask = find(labels, probs)
        ranked = find(labels, probs, return_indices_ranked_by=name)
        assert sorted(ranked) == np.flatnonzero(mask).tolist()

    @pytest.mark.parametrize("adjust", [False, True])
    @pytest.mark.parametrize("name", NAMES)
    def test_order_is_that_of_cleanlabs_scores(self, name, adjust):
        labels, probs = noisy()
        options = {"adjust_pred_probs": adjust}
        if adjust and name == "confidence_weighted_entropy":
            with pytest.raises(InputError, match="cleanlab"):
                find(labels, probs, return_indices_ranked_by=name, rank_by_kwargs=options)
            return
        ranked = find(labels, probs, return_indices_ranked_by=name, rank_by_kwargs=options)
        scores = get_label_quality_scores(labels, probs, method=name, **options)
        assert (np.diff(scores[ranked]) >= 0).all()

    def test_the_three_names_differ(self):
        labels, probs = noisy(size=2000)
        orders = {tuple(find(labels, probs, return_indices_ranked_by=name)) for name in NAMES}
        assert len(orders) == 3

    @pytest.mark.parametrize("name", ["self_confidense", "margin", ""])
    def test_bad_ranking(self, name):
        labels, probs = noisy()
        with pytest.raises(ValueError, match="Expected return_indices_ranked_by to be None or one of"):
            find(labels, probs, return_indices_ranked_by=name)

    def test_bad_ranking_options(self):
        labels, probs = noisy()
        with pytest.raises(ValueError, match=r"'adjust_pred_probs' at most, but got \['top'\]"):
            find(labels, probs, return_indices_ranked_by="self_confidence", rank_by_kwargs={"top": 1})

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda probs: probs.__setitem__((7, 1), np.nan), "row 7 goes from nan"),
            (lambda probs: probs.__setitem__(9, 0.9), "row 9 .*sums to 3.6"),
            (lambda probs: probs.__imul__(2), "row 0 .*sums to 2"),
        ],
    )
    def test_rows_that_are_off_are_named(self, change, words):
        labels, probs = noisy()
        change(probs)
        with pytest.raises(ValueError, match=words):
            find(labels, probs)

    def test_kind_where_cleanlab_is_not(self):
        labels, probs = noisy()
        expected = find(labels, probs)
        column = datasets.Dataset.from_dict({"label": labels})["label"]
        for kind in (labels.astype(float), labels.tolist(), column, labels.astype(np.int8)):
            np.testing.assert_array_equal(find(kind, probs), expected)
        np.testing.assert_array_equal(find(labels, probs.astype(np.float32)), expected)

    @pytest.mark.parametrize(
        ("labels", "probs"),
        [([], np.empty((0, 2))), ([0, 1], [[1, 0]]), ([0, 5], [[1, 0], [0, 1]]), ([0, 1], [1, 0]), ([0, 0], np.eye(2))],
    )
    def test_every_error_says_something(self, labels, probs):
        with pytest.raises(InputError, match=r"Expected .{20}"):
            find(labels, probs)


@pytest.mark.usefixtures("fake_model")
@pytest.mark.parametrize("method", IMAGE_METHODS)
class TestImages:
    def test_absent_classes_change_nothing(self, method, colours):
        expected = of_images(colours.images, colours.labels, class_names=colours.names, method=method)
        for first in (True, False):
            names = ["yellow", *colours.names, "purple"] if first else [*colours.names, "yellow"]
            found = of_images(colours.images, colours.labels + first, class_names=names, method=method)
            np.testing.assert_array_equal(found, expected)
        assert expected.any()

    def test_batch_size_and_workers_change_nothing(self, method, colours, monkeypatch, tmp_path):
        expected = of_images(colours.images, colours.labels, class_names=colours.names, method=method)
        for number, batch_size in enumerate((1, 7, 1000)):
            cache = tmp_path / str(number)
            found = of_images(
                colours.images,
                colours.labels,
                class_names=colours.names,
                method=method,
                batch_size=batch_size,
                cache_dir=cache,
            )
            np.testing.assert_array_equal(found, expected)
        monkeypatch.setattr(features, "num_decoders", lambda device: 3)
        found = of_images(
            colours.images, colours.labels, class_names=colours.names, method=method, cache_dir=tmp_path / "w"
        )
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("name", [*NAMES, "label_quality"])
    def test_ranking_changes_the_order_and_not_the_set(self, method, name, colours):
        arguments = {"class_names": colours.names, "method": method}
        mask = of_images(colours.images, colours.labels, **arguments)
        ranked = of_images(colours.images, colours.labels, return_indices_ranked_by=name, **arguments)
        assert sorted(ranked) == np.flatnonzero(mask).tolist()


@pytest.mark.usefixtures("fake_model")
def test_all_names_give_deft_s_own_order(colours):
    arguments = {"class_names": colours.names, "method": "deft"}
    detection = deft_plugin.detect(colours.images, colours.labels, model="fake", device="cpu", **arguments)
    for name in (*NAMES, "label_quality"):
        ranked = of_images(colours.images, colours.labels, return_indices_ranked_by=name, **arguments)
        np.testing.assert_array_equal(ranked, detection.ranked_issue_indices())
    with pytest.raises(InputError, match="no adjust_pred_probs where issues of 'deft'"):
        of_images(
            colours.images,
            colours.labels,
            return_indices_ranked_by="self_confidence",
            rank_by_kwargs={"adjust_pred_probs": True},
            **arguments,
        )


def test_two_numbers_rank_alike_by_all_three_scores():
    """Of a label that is right with probability q or wrong, cleanlab's three scores give the order of q."""
    quality = np.linspace(0.01, 0.99, 50)
    probs = np.stack([quality, 1 - quality], axis=1)
    for name in NAMES:
        scores = get_label_quality_scores(np.zeros(50, int), probs, method=name)
        assert (np.diff(scores) > 0).all()


@pytest.mark.usefixtures("fake_model")
def test_an_unreadable_image_is_the_worst_issue_by_any_name(colours, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nonsense")
    images = [*colours.images[:5], bad, *colours.images[5:]]
    labels = np.insert(colours.labels, 5, 0)
    for name in (*NAMES, "label_quality"):
        ranked = of_images(
            images,
            labels,
            class_names=colours.names,
            method="confident_learning",
            on_bad_image="flag",
            return_indices_ranked_by=name,
        )
        assert ranked[0] == 5
        assert len(set(ranked.tolist())) == len(ranked) > 1
