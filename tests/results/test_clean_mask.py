from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys

import datasets
import numpy as np
import pytest
from datasets.fingerprint import Hasher
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deft_plugin.data.digests import UNREADABLE_DIGEST, image_digest, join_digests
from deft_plugin.data.row_keys import RowKeys
from deft_plugin.errors import InputError
from deft_plugin.results.clean_mask import CleanMask

NAMES = ["cat", "dog", "fish"]
SIZE = 40
LABELS = np.random.default_rng(0).integers(0, 3, SIZE)
IS_CLEAN = np.random.default_rng(1).random(SIZE) < 0.6
IMAGES = np.random.default_rng(2).integers(0, 256, (SIZE, 4, 5, 3)).astype(np.uint8)


def encode(pixels: np.ndarray, format: str = "PNG", **options) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=format, **options)
    return buffer.getvalue()


def make_dataset(images=None, labels=LABELS, label_feature=None) -> datasets.Dataset:
    encoded = [encode(pixels) for pixels in IMAGES] if images is None else images
    columns = {
        "id": list(range(len(encoded))),
        "image": [{"bytes": data, "path": None} for data in encoded],
        "label": list(labels),
    }
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "image": datasets.Image(),
            "label": label_feature or datasets.ClassLabel(names=NAMES),
        }
    )
    return datasets.Dataset.from_dict(columns, features=features)


def make_mask(images=None, labels=LABELS, is_clean=IS_CLEAN, **columns) -> CleanMask:
    digests = join_digests(map(image_digest, IMAGES if images is None else images))
    return CleanMask(RowKeys(digests, np.asarray(labels), NAMES, **columns), np.asarray(is_clean))


def ids(dataset) -> list[int]:
    return list(dataset["id"])


CLEAN_IDS = np.flatnonzero(IS_CLEAN).tolist()


@pytest.mark.parametrize("options", [{}, {"batched": True}, {"batched": True, "batch_size": 7}, {"num_proc": 2}])
def test_filter_keeps_the_clean_rows(options):
    assert ids(make_dataset().filter(make_mask(), **options)) == CLEAN_IDS


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("format", ["numpy", "torch"])
def test_filter_with_a_format(format, batched):  # noqa: A002
    kept = make_dataset().with_format(format).filter(make_mask(), batched=batched)
    assert [int(row) for row in kept["id"]] == CLEAN_IDS


@pytest.mark.parametrize("batched", [False, True])
def test_filter_with_input_columns(batched):
    kept = make_dataset().filter(make_mask(), input_columns=["image", "label"], batched=batched)
    assert ids(kept) == CLEAN_IDS


def test_filter_without_decoding_by_datasets():
    undecoded = make_dataset().cast_column("image", datasets.Image(decode=False))
    assert ids(undecoded.filter(make_mask())) == CLEAN_IDS


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, SIZE - 1), min_size=1), seed=st.integers(0, 9))
def test_filter_of_rows_in_any_order(rows, seed):
    dataset = make_dataset().select(rows).shuffle(seed=seed)
    expected = [row for row in ids(dataset) if IS_CLEAN[row]]
    assert ids(dataset.filter(make_mask())) == expected


def test_filter_of_data_saved_and_reloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    make_dataset().shuffle(seed=3).save_to_disk(tmp_path / "saved")
    reloaded = datasets.load_from_disk(tmp_path / "saved")
    assert sorted(ids(reloaded.filter(make_mask()))) == CLEAN_IDS
    make_dataset().to_parquet(tmp_path / "a.parquet")
    reloaded = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"))
    assert ids(reloaded.filter(make_mask())) == CLEAN_IDS


def test_cached_results_of_another_mask_are_not_taken(tmp_path):
    make_dataset().save_to_disk(tmp_path / "saved")
    dataset = datasets.load_from_disk(tmp_path / "saved")
    assert ids(dataset.filter(make_mask())) == CLEAN_IDS
    opposite = make_mask(is_clean=~IS_CLEAN)
    assert ids(dataset.filter(opposite)) == np.flatnonzero(~IS_CLEAN).tolist()


def test_filter_of_splits_and_casts():
    parts = make_dataset().train_test_split(test_size=0.5, seed=0)
    kept = parts.filter(make_mask())
    assert sorted(ids(kept["train"]) + ids(kept["test"])) == CLEAN_IDS
    for feature in (datasets.Value("int32"), datasets.ClassLabel(names=["a", "b", "c"])):
        assert ids(make_dataset().cast_column("label", feature).filter(make_mask())) == CLEAN_IDS


def test_filter_of_an_iterable_dataset():
    kept = make_dataset().to_iterable_dataset().filter(make_mask())
    assert [row["id"] for row in kept] == CLEAN_IDS


def test_filter_with_labels_as_strings():
    names = [NAMES[label] for label in LABELS]
    dataset = make_dataset(labels=names, label_feature=datasets.Value("string"))
    assert ids(dataset.filter(make_mask())) == CLEAN_IDS


def test_filter_of_images_that_exif_turns():
    exif = Image.Exif()
    exif[0x0112] = 6
    jpegs = [encode(np.kron(pixels, np.ones((8, 8, 1), np.uint8)), "JPEG", exif=exif) for pixels in IMAGES]
    dataset, mask = make_dataset(jpegs), make_mask(jpegs)
    assert dataset[0]["image"].size == (32, 40), "datasets turns it upright"
    assert ids(dataset.filter(mask)) == CLEAN_IDS
    assert ids(mask.apply(dataset)) == CLEAN_IDS


def test_identical_rows_share_one_verdict():
    images, labels = [IMAGES[0]] * 4 + [IMAGES[1]] * 2, [0, 0, 1, 2, 1, 1]
    mask = make_mask(images, labels, is_clean=[True, False, True, False, True, True])
    dataset = make_dataset([encode(pixels) for pixels in images], labels)
    # (0, cat) was judged both ways; (0, dog), (0, fish) and (1, dog) each in one.
    assert ids(dataset.filter(mask)) == ids(mask.apply(dataset)) == [2, 4, 5]


# Columns


def test_remembered_columns_are_used():
    dataset = make_dataset().rename_columns({"image": "photo", "label": "noisy"})
    dataset = dataset.add_column("label", [0] * SIZE).add_column("thumb", ["a"] * SIZE)
    mask = make_mask(image_column="photo", label_column="noisy")
    assert ids(dataset.filter(mask)) == ids(mask.apply(dataset)) == CLEAN_IDS


def test_columns_are_found_if_the_remembered_ones_are_gone():
    mask = make_mask(image_column="photo", label_column="noisy")
    dataset = make_dataset().rename_columns({"label": "labels"})
    assert ids(dataset.filter(mask)) == ids(dataset.filter(mask, batched=True)) == ids(mask.apply(dataset)) == CLEAN_IDS


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"label": 0}, "one column that is the image, but got none among label"),
        ({"a": Image.new("L", (1, 1)), "b": Image.new("L", (1, 1)), "label": 0}, "the image, but got a, b"),
        (
            {"image": Image.new("L", (1, 1)), "class": 0},
            r"the label, but got none among image, class\..*input_columns",
        ),
        ({"image": Image.new("L", (1, 1)), "label": 0, "labels": 0}, "the label, but got label, labels"),
        ([1, 2], "got list.*with_format"),
        (Image.new("L", (1, 1)), "got Image"),
    ],
)
def test_rows_without_a_clear_image_and_label(row, words):
    with pytest.raises(InputError, match=words):
        make_mask()(row)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("columns", [None, ["image", "label"]])
def test_indices_are_not_looked_at(batched, columns):
    dataset = make_dataset().shuffle(seed=0)
    kept = dataset.filter(make_mask(), with_indices=True, batched=batched, input_columns=columns)
    assert ids(kept) == [row for row in ids(dataset) if IS_CLEAN[row]]


# Rows that were never judged


def test_a_row_that_was_never_judged_is_an_error():
    dataset = make_dataset([*(encode(pixels) for pixels in IMAGES[:-1]), encode(255 - IMAGES[-1])])
    for batched in (False, True):
        with pytest.raises(InputError, match=r"never judged.*detect"):
            dataset.filter(make_mask(), batched=batched)


def test_a_changed_label_is_an_error_that_names_the_judged_one():
    row = {"image": Image.fromarray(IMAGES[5]), "label": (int(LABELS[5]) + 1) % 3}
    judged, changed = NAMES[LABELS[5]], NAMES[row["label"]]
    with pytest.raises(InputError, match=f"with label '{changed}' was judged with label '{judged}'"):
        make_mask()(row)


def test_labels_of_no_class_are_errors():
    with pytest.raises(InputError, match="0 … 2, but got 3"):
        make_mask().is_clean(IMAGES[0], 3)
    with pytest.raises(InputError, match="Did you mean 'dog'"):
        make_mask().is_clean(IMAGES[0], "dgo")


def test_single_images_of_any_kind():
    mask = make_mask()
    for row in range(10):
        for image in (IMAGES[row], Image.fromarray(IMAGES[row]), encode(IMAGES[row])):
            assert mask.is_clean(image, NAMES[LABELS[row]]) is bool(IS_CLEAN[row])


def unreadable_case():
    """Two rows cannot be read; by their verdicts alone they would be clean no more than any issue."""
    encoded = [encode(pixels) for pixels in IMAGES]
    encoded[3], encoded[4] = b"", encoded[4][:40]
    unreadable = np.isin(np.arange(SIZE), [3, 4])
    digests = np.stack([np.frombuffer(image_digest(image), np.uint8) for image in IMAGES])
    digests[unreadable] = np.frombuffer(UNREADABLE_DIGEST, np.uint8)
    is_clean = IS_CLEAN & ~unreadable
    mask = CleanMask(RowKeys(digests, LABELS, NAMES), is_clean)
    return make_dataset(encoded), mask, np.flatnonzero(is_clean).tolist()


def test_unreadable_images_are_judged_and_never_clean():
    dataset, mask, expected = unreadable_case()
    undecoded = dataset.cast_column("image", datasets.Image(decode=False))
    assert ids(undecoded.filter(mask)) == ids(mask.apply(dataset)) == expected


def test_unreadable_images_that_were_never_judged_are_errors():
    with pytest.raises(InputError, match="never judged"):
        make_mask().is_clean({"bytes": b"", "path": None}, 0)


# The fast path


def test_apply_decodes_each_row_that_it_keeps_once(monkeypatch):
    count = 500
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    labels, is_clean = np.arange(count) % 3, np.arange(count) % 5 > 0
    dataset = make_dataset([encode(pixels) for pixels in images], labels)
    mask = make_mask(images, labels, is_clean)
    opened, real_open = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **options: opened.append(1) or real_open(*args, **options))
    assert ids(mask.apply(dataset)) == np.flatnonzero(is_clean).tolist()
    assert len(opened) == 400


def test_apply_respects_an_order_that_was_judged():
    order = np.random.default_rng(5).permutation(SIZE)
    dataset = make_dataset().select(order)
    mask = make_mask(IMAGES[order], LABELS[order], IS_CLEAN[order])
    assert ids(mask.apply(dataset)) == [row for row in order if IS_CLEAN[row]]


def roll_within_classes() -> np.ndarray:
    """Rows in an order that has all labels where they were, and no image."""
    order = np.arange(SIZE)
    for label in range(3):
        rows = np.flatnonzero(label == LABELS)
        order[rows] = np.roll(rows, 1)
    return order


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda dataset: dataset.select(range(SIZE - 1)), "there are 39 rows instead of 40"),
        (lambda dataset: dataset.select(np.argsort(LABELS, kind="stable")), "row . has another label"),
        (lambda dataset: dataset.shuffle(seed=0), "row . has another label"),
        (
            lambda dataset: dataset.select(roll_within_classes()),
            "row 0 has another image",
        ),
    ],
    ids=["fewer rows", "sorted", "shuffled", "shuffled within classes"],
)
def test_apply_refuses_other_data(change, words):
    dataset = change(make_dataset())
    with pytest.raises(InputError, match=rf"{words}.*dataset\.filter\(mask\)"):
        make_mask().apply(dataset)
    assert sorted(ids(dataset.filter(make_mask()))) == [row for row in CLEAN_IDS if row in ids(dataset)]


# Pickles and hashes


def test_pickles_are_equal_and_work():
    mask = make_mask(image_column="image")
    copy = pickle.loads(pickle.dumps(mask))
    assert copy == mask
    assert hash(copy) == hash(mask)
    assert pickle.dumps(copy) == pickle.dumps(mask)
    assert ids(make_dataset().filter(copy)) == CLEAN_IDS


def test_hash_differs_for_other_verdicts():
    changed = IS_CLEAN.copy()
    changed[0] = not changed[0]
    masks = [
        make_mask(),
        make_mask(is_clean=changed),
        make_mask(labels=(LABELS + 1) % 3),
        make_mask(IMAGES[::-1]),
        make_mask(image_column="image"),
        make_mask(label_column="image"),
    ]
    assert len(set(map(Hasher.hash, masks))) == len(masks)
    assert all(mask != masks[0] for mask in masks[1:])


PRINT_HASH = """
import numpy as np
from datasets.fingerprint import Hasher
from deft_plugin.results.clean_mask import CleanMask
from deft_plugin.data.row_keys import RowKeys
names = ["".join(["c", "at"]), "dog", "fish"]
digests = np.random.default_rng(0).integers(0, 256, (50, 16)).astype(np.uint8)
keys = RowKeys(digests, np.arange(50) % 3, names, image_column="image", label_column="label")
mask = CleanMask(keys, np.arange(50) % 2 > 0)
print(Hasher.hash(mask))
"""


def test_hash_is_the_same_in_other_processes():
    def run(seed):
        command = [sys.executable, "-c", PRINT_HASH]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    digests = np.random.default_rng(0).integers(0, 256, (50, 16)).astype(np.uint8)
    keys = RowKeys(digests, np.arange(50) % 3, NAMES, image_column="image", label_column="label")
    here = CleanMask(keys, np.arange(50) % 2 > 0)
    assert run("1").strip() == run("2").strip() == Hasher.hash(here) == Hasher.hash(pickle.loads(pickle.dumps(here)))


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.booleans()), min_size=1, max_size=30),
)
def test_verdicts_are_those_of_a_dictionary(rows):
    expected = {}
    for image, label, is_clean in rows:
        expected[image, label] = expected.get((image, label), True) and is_clean
    numbers, labels, is_clean = zip(*rows, strict=True)
    mask = make_mask([IMAGES[number] for number in numbers], labels, is_clean)
    for image in range(6):
        for label in range(3):
            if (image, label) in expected:
                assert mask.is_clean(IMAGES[image], label) is expected[image, label]
            else:
                with pytest.raises(InputError, match="judged"):
                    mask.is_clean(IMAGES[image], label)
