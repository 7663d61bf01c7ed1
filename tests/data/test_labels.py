from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deft_plugin.data.class_names import check_class_names
from deft_plugin.data.labels import (
    check_labels,
    check_pred_probs,
    check_several_classes,
    index_of,
    label_index,
    label_indices,
    num_columns,
)
from deft_plugin.errors import InputError

NAMES = ["cat", "dog", "fish"]


def hf_column(values):
    import datasets

    return datasets.Dataset.from_dict({"label": values})["label"]


def tensor(values):
    import torch

    return torch.tensor(values)


KINDS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "uint8 array": lambda values: np.array(values, np.uint8),
    "float array of whole numbers": lambda values: np.array(values, float),
    "list of floats": lambda values: [float(value) for value in values],
    "list of mixed numbers": lambda values: [float(values[0]), *values[1:]],
    "object array": lambda values: np.array(values, object),
    "list of numpy numbers": lambda values: list(np.array(values)),
    "list of tensors": lambda values: list(tensor(values)),
    "Series": lambda values: pd.Series(values, index=range(10, 10 + len(values))),
    "nullable Series": lambda values: pd.Series(values, dtype="Int64"),
    "tensor": tensor,
    "Hugging Face column": hf_column,
    "range": lambda values: range(len(values)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_integers_of_any_kind(kind):
    labels, names = check_labels(KINDS[kind]([0, 1, 2, 3]), num_examples=4)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 2, 3]
    assert names == ("0", "1", "2", "3")


STRING_KINDS = {
    "list": list,
    "array": np.array,
    "object array": lambda values: np.array(values, object),
    "Series": pd.Series,
    "object Series": lambda values: pd.Series(values, dtype=object),
    "categorical Series": lambda values: pd.Series(values, dtype="category"),
    "Hugging Face column": hf_column,
}


@pytest.mark.parametrize("kind", STRING_KINDS)
def test_strings_of_any_kind(kind):
    labels, names = check_labels(STRING_KINDS[kind](["dog", "cat", "dog"]))
    assert (labels.tolist(), names) == ([1, 0, 1], ("cat", "dog"))
    labels, names = check_labels(STRING_KINDS[kind](["dog", "cat", "dog"]), class_names=["dog", "fish", "cat"])
    assert (labels.tolist(), names) == ([0, 2, 0], ("dog", "fish", "cat"))


@given(st.lists(st.sampled_from("abcdef"), min_size=2).filter(lambda labels: len(set(labels)) > 1))
def test_strings_survive_the_way_there_and_back(strings):
    labels, names = check_labels(strings)
    assert [names[label] for label in labels] == strings
    assert names == tuple(sorted(set(strings)))


def test_two_classes_and_an_empty_class_are_allowed():
    assert check_labels([0, 1], class_names=["cat", "dog"])[1] == ("cat", "dog")
    assert check_labels([0, 2, 2], class_names=NAMES)[0].tolist() == [0, 2, 2]
    assert check_labels([0, 2], class_names=NAMES)[1] == tuple(NAMES)


IDS = {
    "list": [3_000_000, 47219, 3_000_000],
    "floats": [3e6, 47219.0, 3e6],
    "array": np.array([3_000_000, 47219, 3_000_000]),
    "objects": np.array([np.int64(3_000_000), 47219, 3_000_000], object),
    "strings stay strings": ["47219", "3000000", "47219"],
}


@pytest.mark.parametrize("kind", IDS)
def test_numbers_are_ids(kind):
    labels, names = check_labels(IDS[kind])
    assert [int(names[label]) for label in labels] == [int(label) for label in IDS[kind]]
    assert set(names) == {"47219", "3000000"}
    np.testing.assert_array_equal(label_indices(IDS[kind], names), labels)


def test_large_ids_are_exact():
    ids = [2**60, 2**60 + 1, 2**60]
    assert check_labels(ids)[1] == (str(2**60), str(2**60 + 1))
    assert check_labels(np.array(ids, np.uint64))[0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
def test_numbers_of_few_bits(dtype):
    assert check_labels(np.array([1, 7, 1], dtype))[1] == ("1", "7")


def test_numbers_are_names_only_where_names_are_numbers_in_order():
    assert [label_index(label, ["3", "5"]) for label in (5, 3.0, "5")] == [1, 0, 1]
    assert label_index(1, ["10", "9"]) == 1
    assert index_of(1, ["1", "2"]) == 1
    with pytest.raises(InputError, match=r"Unknown label 1\. .*Known: 3, 5"):
        label_index(1, ["3", "5"])


@pytest.mark.parametrize(
    "twins", [["cat", "cat "], ["cat", "\ufeffcat"], ["caf\u00e9", "cafe\u0301"], ["a b", "a\u00a0b"], ["a b", "a  b"]]
)
def test_names_that_look_alike_are_named(twins):
    with pytest.warns(UserWarning, match="differ only by blanks or Unicode form") as caught:
        assert len(check_labels([*twins, "dog"])[1]) == 3
    assert ascii(twins[1]) in str(caught[0].message)
    with pytest.warns(UserWarning, match="differ only by blanks or Unicode form"):
        check_labels([0, 1], class_names=twins)


def test_letters_of_another_case_are_other_classes():
    assert check_labels(["a", "A", "a"])[1] == ("A", "a")


@pytest.mark.parametrize("labels", [list(range(20)), [f"{row}.jpg" for row in range(30)], np.arange(100) * 7.0])
def test_labels_that_are_all_different(labels):
    with pytest.raises(InputError, match=f"all {len(labels)} labels are different"):
        check_labels(labels)
    assert len(check_labels(labels[:3])[1]) == 3
    if not isinstance(labels[0], str):
        assert check_labels(range(20), class_names=[f"class {k}" for k in range(20)])[0].tolist() == list(range(20))


def test_result_is_no_view_that_could_be_changed_by_accident():
    given_labels = np.array([0, 1, 2])
    labels, _ = check_labels(given_labels)
    labels[0] = 9
    assert given_labels[0] == 0


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ([0, 1], {"num_examples": 3}, "2 labels for 3 images"),
        ([], {}, "empty"),
        ([], {"num_examples": 4}, "0 labels for 4 images"),
        ([0, 5, 1, 7], {"class_names": NAMES}, r"0 … 2 .*3 classes.* row 1 is 5 \(2 such rows"),
        ([0, -1, 1], {}, "row 1 is -1"),
        ([0, 2**70], {}, r"64 bits.* row 1 is 1180591620717411303424\. Pass ids as strings"),
        ([0.0, np.nan, 1.0], {}, r"row 1 is missing .*1 in all"),
        (np.array([0, np.nan, 1.0]), {}, "row 1 is missing"),
        ([0, None, 1], {}, "row 1 is missing"),
        (["cat", None, "dog"], {}, "row 1 is missing"),
        (pd.Series([0, None, 1], dtype="Int64"), {}, "row 1 is missing"),
        (pd.Series(["cat", None, "dog"]), {}, "row 1 is missing"),
        ([0, 1.5, 1], {}, r"whole numbers.* row 1 is 1\.5"),
        ([0, np.inf, 1], {}, "whole numbers.* row 1 is inf"),
        (np.eye(3), {}, r"shape \(3, 3\).*argmax"),
        ([[0, 1], [1, 0]], {}, r"row 0 is \[0, 1\], of type list.*multi-label"),
        ([np.array([0, 1]), np.array([1])], {}, "of type ndarray.*multi-label"),
        (np.array([[0], [1]]), {}, r"labels\[:, 0\]"),
        (np.array(["2020-01-01"], "M8[D]"), {}, "datetime64"),
        (np.array([2**63], np.uint64), {}, "64 bits.*Pass ids as strings"),
        (["cat", "", " "], {}, r"row 1 is empty \(2 in all"),
        (["cat", "\u200b"], {}, "row 1 is empty"),
        (pd.DataFrame({"label": [0, 1]}), {}, r"shape \(2, 1\)"),
        (["cat", "dgo"], {"class_names": NAMES}, "row 1 is 'dgo'. Did you mean 'dog'"),
        (["cat", 1], {}, "type int, str"),
        ([True, False], {}, "booleans"),
        (np.array([True, False]), {}, "booleans"),
        ([b"cat", b"dog"], {}, r"type bytes\. Decode"),
        ("label", {}, "list or array.* got str"),
        ({"a": 1}, {}, "got dict"),
        ({0, 1}, {}, "got set"),
        (3, {}, "got int"),
    ],
)
def test_labels_that_cannot_be_used(labels, options, words):
    with pytest.raises(InputError, match=words):
        check_labels(labels, **options)


def test_class_names_of_any_kind():
    for names in (NAMES, tuple(NAMES), np.array(NAMES), pd.Series(NAMES), pd.Index(NAMES)):
        checked = check_class_names(names)
        assert checked == tuple(NAMES)
        assert all(type(name) is str for name in checked)


@pytest.mark.parametrize(
    ("class_names", "words"),
    [
        (["cat", "dog", "cat"], "once, but 'cat' is there more than once"),
        (["cat", ""], r"class_names\[1\] is ''"),
        (["cat", " "], r"class_names\[1\] is ' '"),
        (["cat", 3], r"class_names\[1\] is 3"),
        (["cat", None], r"class_names\[1\] is None"),
        (["cat"], "at least two classes, but got cat"),
        ([], "at least two classes, but got none"),
        ("cat", "got str"),
        ({"cat": 0}, "got dict"),
        ({"cat", "dog"}, "got set"),
        (3, "got int"),
    ],
)
def test_class_names_that_cannot_be_used(class_names, words):
    with pytest.raises(InputError, match=words):
        check_class_names(class_names)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_softmax_of_any_precision_passes(dtype):
    logits = np.random.default_rng(0).normal(size=(20, 1000))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    checked = check_pred_probs(probs.astype(dtype), 20, 1000)
    assert checked.dtype == np.float64
    np.testing.assert_allclose(checked, probs, atol=1e-4)


def test_pred_probs_may_be_a_tensor_or_a_frame():
    probs = [[0.25, 0.75], [1.0, 0.0]]
    np.testing.assert_array_equal(check_pred_probs(tensor(probs), 2, 2), probs)
    np.testing.assert_array_equal(check_pred_probs(pd.DataFrame(probs), 2, 2), probs)


def test_rounding_beyond_the_range_is_clipped():
    assert check_pred_probs([[1.0000001, -1e-9]], 1, 2).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("pred_probs", "words"),
    [
        ([[0.5, 0.5]], r"shape \(2, 2\).* got \(1, 2\)"),
        ([[0.2, 0.3, 0.5]] * 2, r"got \(2, 3\)"),
        ([0.5, 0.5], r"got \(2,\)"),
        ([[0.5, 0.5], [np.nan, 0.5]], "row 1"),
        ([[0.5, 0.5], [1.5, -0.5]], r"row 1 goes from -0\.5 to 1\.5"),
        ([[0.5, 0.5], [0.5, 0.4]], r"row 1 .*sums to 0\.9.*softmax"),
        ([["a", "b"]] * 2, "numbers"),
    ],
)
def test_pred_probs_that_cannot_be_used(pred_probs, words):
    with pytest.raises(InputError, match=words):
        check_pred_probs(pred_probs, 2, 2)


@pytest.mark.parametrize("label", ["dog", 1, np.int64(1), np.array(1), np.str_("dog"), 1.0, np.float32(1), np.uint8(1)])
def test_one_label_by_name_or_index(label):
    assert label_index(label, NAMES) == 1


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("dgo", "Did you mean 'dog'"),
        (3, "0 … 2, but got 3"),
        (-1, "got -1"),
        (True, "got True"),
        (None, "got None"),
        (1.5, "got 1.5"),
        (float("nan"), "got nan"),
    ],
)
def test_one_label_that_is_unknown(label, words):
    with pytest.raises(InputError, match=words):
        label_index(label, NAMES)


class TestSeveralClasses:
    def test_two_are_enough(self):
        check_several_classes(np.array([2, 0, 2]), ["cat", "dog", "fish"])

    @pytest.mark.parametrize(
        ("labels", "words"),
        [([1, 1], "two classes.* all 2 labels are 'dog'"), ([], "Expected at least two images.* empty")],
    )
    def test_fewer(self, labels, words):
        with pytest.raises(InputError, match=words):
            check_several_classes(np.array(labels, int), ["cat", "dog"])


@pytest.mark.parametrize("probs", [[None, []], [[0.5, 0.5], [1.0]]])
def test_probabilities_that_are_no_array(probs):
    with pytest.raises(InputError, match="Expected pred_probs as an array, but got list"):
        num_columns(probs)


def test_columns_of_probabilities():
    assert [num_columns(probs) for probs in ([[0.5, 0.5]], [0.5], 1.0)] == [2, 0, 0]


def test_a_huge_number_beside_a_float():
    with pytest.raises(InputError, match="integers of 64 bits, but the label of row 1"):
        check_labels([0.0, 10**400])
