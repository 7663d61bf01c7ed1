"""Verdicts found again wherever Hugging Face `datasets` can carry a row, by its image or by its id."""

from __future__ import annotations

import dataclasses
import io
import pickle
import subprocess
import sys
import time

import datasets
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from deft_plugin import Detection
from deft_plugin.data.digests import id_digest, image_digest, join_digests
from deft_plugin.data.reading import read_image_data
from deft_plugin.errors import InputError

NAMES = ("cat", "dog", "fish")
SIZE = 60


class Case:
    """Random rows, some of them twice or with two labels, and random verdicts."""

    def __init__(self, seed, *, by_id=False):
        rng = np.random.default_rng(seed)
        pictures = rng.integers(0, 256, (SIZE - 10, 4, 5, 3)).astype(np.uint8)
        of_row = np.concatenate([np.arange(SIZE - 10), rng.integers(0, SIZE - 10, 10)])
        labels = rng.integers(0, 3, SIZE)
        is_clean = rng.random(SIZE) < 0.6
        self.dataset = dataset([pictures[number] for number in of_row], labels)
        keys = list(range(SIZE)) if by_id else [(int(of_row[row]), int(labels[row])) for row in range(SIZE)]
        worst = {}
        for row, key in enumerate(keys):
            worst[key] = worst.get(key, True) and bool(is_clean[row])
        self.expected = {row: worst[key] for row, key in enumerate(keys)}
        data = read_image_data(self.dataset, id_column="id" if by_id else None)
        self.detection = Detection(
            method="random",
            label_quality=rng.random(SIZE),
            is_label_issue=~is_clean,
            predicted_labels=rng.integers(0, 3, SIZE),
            given_labels=labels,
            class_names=NAMES,
            image_digests=join_digests(image_digest(Image.fromarray(pictures[number])) for number in of_row),
            is_image_issue=np.zeros(SIZE, bool),
            image_column=data.image_column,
            label_column=data.label_column,
            id_column=data.id_column,
            id_digests=data.id_digests,
        )

    def check(self, kept, before):
        assert rows(kept) == [row for row in rows(before) if self.expected[row]]


def dataset(pictures, labels, first=0):
    encoded = []
    for pixels in pictures:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    features = datasets.Features(
        id=datasets.Value("int64"), image=datasets.Image(), label=datasets.ClassLabel(names=list(NAMES))
    )
    columns = {"id": range(first, first + len(encoded)), "image": encoded, "label": labels}
    return datasets.Dataset.from_dict(columns, features=features)


def rows(found):
    return [int(row["id"]) for row in found.remove_columns(["image"])]


def saved(data, folder, seed):
    data.save_to_disk(folder / str(seed))
    return datasets.load_from_disk(folder / str(seed))


def parquet(data, folder, seed):
    data.to_parquet(folder / f"{seed}.parquet")
    return datasets.Dataset.from_parquet(str(folder / f"{seed}.parquet"), cache_dir=str(folder / "cache"))


CHANGES = {
    "original": lambda data, *_: data,
    "shuffled": lambda data, _folder, seed: data.shuffle(seed=seed),
    "subset": lambda data, _folder, seed: data.select(np.random.default_rng(seed).permutation(SIZE)[:23]),
    "train": lambda data, _folder, seed: data.train_test_split(0.4, seed=seed)["train"],
    "test": lambda data, _folder, seed: data.train_test_split(0.4, seed=seed)["test"],
    "sorted": lambda data, *_: data.sort("label"),
    "concatenated": lambda data, _folder, seed: datasets.concatenate_datasets([data.shuffle(seed=seed), data]),
    "cast to int32": lambda data, *_: data.cast_column("label", datasets.Value("int32")),
    "undecoded": lambda data, *_: data.cast_column("image", datasets.Image(decode=False)),
    "flattened": lambda data, _folder, seed: data.shuffle(seed=seed).flatten_indices(),
    "saved": saved,
    "parquet": parquet,
    "shard": lambda data, _folder, seed: data.shard(3, seed % 3),
    "more columns": lambda data, *_: data.add_column("note", ["x"] * SIZE).add_column("weight", [1.0] * SIZE),
    "numpy format": lambda data, *_: data.with_format("numpy"),
    "torch format": lambda data, *_: data.with_format("torch"),
}
RENAMED = {"image": "photo", "label": "labels"}
OPTIONS = [
    {},
    {"batched": True},
    {"batched": True, "batch_size": 7},
    {"num_proc": 2},
    {"num_proc": 2, "batched": True},
    {"with_indices": True},
    {"input_columns": "named"},
    {"input_columns": "named", "batched": True, "with_indices": True},
]


@pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning")  # of pyarrow, by dataset.sort
@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_every_case(seed, by_id, tmp_path):
    """No row is kept or lost wrongly, whatever was done to the data set."""
    case = Case(seed, by_id=by_id)
    mask = case.detection.clean_mask
    for change in CHANGES.values():
        changed = change(case.dataset, tmp_path, seed)
        case.check(changed.filter(mask), changed)
    for options in OPTIONS:
        if "input_columns" in options:
            options = {**options, "input_columns": ["id" if by_id else "image", "label"]}
        changed = case.dataset.shuffle(seed=seed)
        case.check(changed.filter(mask, **options), changed)
    renamed = case.dataset.rename_columns(RENAMED)
    assert [row["id"] for row in renamed.filter(mask)] == [row for row in range(SIZE) if case.expected[row]]
    odd = case.dataset.rename_column("label", "y").filter(mask, input_columns=["id" if by_id else "image", "y"])
    case.check(odd, case.dataset)
    case.check(mask.apply(case.dataset), case.dataset)


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_streams(seed, by_id):
    case = Case(seed, by_id=by_id)
    stream = case.dataset.to_iterable_dataset(num_shards=4).shuffle(seed=seed, buffer_size=16)
    clean = stream.filter(case.detection.clean_mask)
    expected = sorted(row for row in range(SIZE) if case.expected[row])
    assert sorted(row["id"] for row in clean) == expected
    assert sorted(row["id"] for row in stream.filter(case.detection.clean_mask, batched=True)) == expected
    loader = DataLoader(clean.remove_columns(["image"]), num_workers=2, batch_size=None)
    assert sorted(int(row["id"]) for row in loader) == expected


@pytest.mark.parametrize("by_id", [False, True])
def test_a_row_that_was_never_judged_is_an_error_anywhere(by_id):
    case = Case(0, by_id=by_id)
    stranger = dataset([np.zeros((4, 5, 3), np.uint8)], [1], first=SIZE)
    more = datasets.concatenate_datasets([case.dataset, stranger])
    for options in ({}, {"batched": True}, {"with_indices": True}):
        with pytest.raises(InputError, match="never judged"):
            more.filter(case.detection.clean_mask, **options)
    with pytest.raises(InputError, match="never judged"):
        list(more.to_iterable_dataset().filter(case.detection.clean_mask))
    with pytest.raises(InputError, match="61 rows instead of 60"):
        case.detection.clean_mask.apply(more)


class TestCache:
    RUN = """
import pickle, sys
import datasets
folder, mask = sys.argv[1:]
datasets.load_from_disk(folder).filter(pickle.loads(open(mask, "rb").read()))
"""

    def test_the_same_mask_hits_the_cache_of_another_process(self, tmp_path):
        case = Case(0)
        data = saved(case.dataset, tmp_path, 0)
        mask = tmp_path / "mask"
        mask.write_bytes(pickle.dumps(case.detection.clean_mask))

        def cached():
            return {file.name: file.stat().st_mtime_ns for file in (tmp_path / "0").glob("cache-*")}

        data.filter(case.detection.clean_mask)
        first = cached()
        assert len(first) == 1
        subprocess.run([sys.executable, "-c", self.RUN, tmp_path / "0", mask], check=True, capture_output=True)
        assert cached() == first
        data.filter(Case(1).detection.clean_mask.__class__(case.detection._row_keys, case.detection.is_label_issue))
        assert len(cached()) == 2


class TestIds:
    def test_a_filter_decodes_no_image(self, monkeypatch):
        """Without batched and input_columns `datasets` decodes all that a row has before it asks."""
        case = Case(0, by_id=True)
        opened = []
        monkeypatch.setattr(datasets.Image, "decode_example", lambda *arguments, **_: opened.append(arguments))
        for options in ({"batched": True}, {"input_columns": ["id", "label"]}):
            kept = case.dataset.filter(case.detection.clean_mask, **options)
            assert kept.num_rows == sum(case.expected.values())
        case.detection.clean_mask.apply(case.dataset)
        case.dataset.map(case.detection.columns)
        assert opened == []

    def test_an_unreadable_image_is_filtered_like_any_other(self):
        case = Case(0, by_id=True)
        bad = next(row for row in range(SIZE) if not case.expected[row])
        broken = case.dataset.with_format("arrow")[:].to_pylist()
        broken[bad]["image"]["bytes"] = b"nonsense"
        data = datasets.Dataset.from_list(broken, features=case.dataset.features)
        assert rows(data.filter(case.detection.clean_mask, batched=True)) == [
            row for row in range(SIZE) if case.expected[row]
        ]

    def test_ids_are_there_once(self):
        twice = Case(0).dataset.add_column("name", ["a", "b"] * (SIZE // 2))
        with pytest.raises(InputError, match=r"'a' is in 30 rows of 'name'\. Name another id_column"):
            read_image_data(twice, id_column="name")

    def test_ids_are_numbers_or_strings(self):
        with pytest.raises(InputError, match=r"whole numbers or strings, but got 0\.5"):
            id_digest(0.5)
        assert id_digest("a") != id_digest("b")

    def test_a_column_that_is_not_there(self):
        with pytest.raises(InputError, match="Expected a column 'name'"):
            read_image_data(Case(0).dataset, id_column="name")
        case = Case(0, by_id=True)
        with pytest.raises(InputError, match="the id, 'id', but got none among image, label"):
            case.dataset.remove_columns("id").filter(case.detection.clean_mask)

    def test_other_data_have_no_columns(self):
        with pytest.raises(InputError, match="no id_column with list"):
            read_image_data([np.zeros((2, 2), np.uint8)] * 2, [0, 1], id_column="id")

    def test_saved_and_loaded(self, tmp_path):
        case = Case(0, by_id=True)
        case.detection.save(tmp_path / "d")
        loaded = Detection.load(tmp_path / "d")
        assert loaded == case.detection
        assert loaded.clean_mask == case.detection.clean_mask


def jpegs(mode=None):
    """A detection of photos as JPEG, which is not the same after it was decoded and encoded, and its data set."""
    rng = np.random.default_rng(0)
    encoded = []
    for row in range(12):
        exif = Image.Exif()
        exif[0x0112] = 6 if row % 2 else 1  # turned upright by whoever decodes it
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 12, 3)).astype(np.uint8)).save(file, format="JPEG", exif=exif)
        encoded.append({"bytes": file.getvalue(), "path": None})
    features = datasets.Features(image=datasets.Image(mode=mode), label=datasets.ClassLabel(names=list(NAMES)))
    labels = np.arange(12) % 3
    data = datasets.Dataset.from_dict({"image": encoded, "label": labels}, features=features)
    images = read_image_data(data).images
    detection = Detection(
        method="x",
        label_quality=np.linspace(0, 1, 12),
        is_label_issue=np.arange(12) % 2 == 0,
        predicted_labels=labels,
        given_labels=labels,
        class_names=NAMES,
        image_digests=join_digests(image_digest(images.load(row)) for row in range(12)),
        is_image_issue=np.zeros(12, bool),
    )
    return detection, data


def stored(data, column="image"):
    return [value["bytes"] for value in data.with_format("arrow")[:].column(column).to_pylist()]


class TestStoredBytes:
    """What `datasets` decodes for a function, it encodes anew: the columns must not ask for it."""

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"batched": True},
            {"batched": True, "batch_size": 5},
            {"with_indices": True},
            {"with_indices": True, "batched": True},
            {"with_rank": True},
            {"input_columns": ["image", "label"]},
            {"input_columns": ["image", "label"], "batched": True},
            {"remove_columns": ["label"]},
            {"num_proc": 2},
            {"keep_in_memory": True, "writer_batch_size": 3},
        ],
        ids=str,
    )
    def test_map_leaves_them(self, options):
        detection, data = jpegs()
        mapped = data.map(detection.columns, **options)
        assert stored(mapped) == stored(data)
        assert mapped.features["image"] == datasets.Image()
        assert mapped["is_label_issue"][:] == detection.is_label_issue.tolist()
        if "remove_columns" not in options:
            assert mapped.filter(detection.clean_mask).num_rows == 6

    @pytest.mark.parametrize("format", ["numpy", "torch", "arrow"])
    def test_whatever_the_format(self, format):  # noqa: A002
        detection, data = jpegs()
        if format == "arrow":  # a table is no mapping of columns
            with pytest.raises(InputError, match="with_format"):
                data.with_format(format).map(detection.columns)
        else:
            assert stored(data.with_format(format).map(detection.columns)) == stored(data)

    def test_of_all_splits_and_of_a_mode(self):
        detection, data = jpegs(mode="L")
        splits = datasets.DatasetDict(train=data.select(range(5)), test=data.select(range(5, 12)))
        mapped = splits.map(detection.columns)
        assert stored(mapped["train"]) + stored(mapped["test"]) == stored(data)
        assert sum(mapped.filter(detection.clean_mask).num_rows.values()) == 6

    def test_a_stream_that_is_cast(self):
        detection, data = jpegs()
        stream = data.to_iterable_dataset().cast_column("image", datasets.Image(decode=False)).map(detection.columns)
        assert [row["image"]["bytes"] for row in stream] == stored(data)
        assert len(list(stream.filter(detection.clean_mask))) == 6
        assert len(list(data.to_iterable_dataset().map(detection.columns).filter(detection.clean_mask))) == 6


class TestColumns:
    def check(self, case, changed, added):
        by_row = dict(zip(rows(added), added.remove_columns(["image"]), strict=True))
        detection = case.detection
        alike = {}
        for row in range(SIZE):
            alike.setdefault(int(detection._row_keys.key_of_row[row]), []).append(row)
        for same in alike.values():
            worst = min(same, key=lambda row: (not detection.is_label_issue[row], detection.label_quality[row]))
            for row in set(same) & set(by_row):
                assert by_row[row]["label_quality"] == detection.label_quality[worst]
                assert by_row[row]["is_label_issue"] == detection.is_label_issue[worst] == (not case.expected[row])
                assert by_row[row]["predicted_label"] == NAMES[detection.predicted_labels[worst]]
        assert set(by_row) == set(rows(changed))

    @pytest.mark.parametrize("options", [{}, {"batched": True}, {"num_proc": 2}, {"with_indices": True}])
    def test_map(self, options):
        case = Case(3)
        changed = case.dataset.shuffle(seed=1).select(range(40))
        self.check(case, changed, changed.map(case.detection.columns, **options))

    def test_map_of_a_stream(self):
        case = Case(3)
        stream = case.dataset.to_iterable_dataset().map(case.detection.columns)
        found = datasets.Dataset.from_list([dict(row) for row in stream])
        self.check(case, case.dataset, found)

    def test_a_second_image_and_one_that_cannot_be_read_stay_as_they_are(self):
        case = Case(3)
        data = case.dataset.add_column("thumb", [{"bytes": b"nonsense", "path": None}] * SIZE)
        data = data.cast_column("thumb", datasets.Image())
        detection = dataclasses.replace(case.detection, image_column="image")
        for options in ({}, {"batched": True}):
            assert stored(data.map(detection.columns, **options), "thumb") == [b"nonsense"] * SIZE

    @pytest.mark.parametrize("row", [0, 1, 30, 58])
    def test_one_exchanged_image_is_found_wherever_it_is(self, row):
        case = Case(3)
        changed = case.dataset.with_format("arrow")[:].to_pylist()
        file = io.BytesIO()
        Image.new("RGB", (5, 4)).save(file, format="PNG")
        changed[row]["image"]["bytes"] = file.getvalue()
        other = datasets.Dataset.from_list(changed, features=case.dataset.features)
        with pytest.raises(InputError, match=f"row {row} has another image"):
            case.detection.columns.add_to(other)
        if case.expected[row]:
            with pytest.raises(InputError, match=f"row {row} has another image"):
                case.detection.clean_mask.apply(other)
        else:  # it is dropped, whatever it is
            case.check(case.detection.clean_mask.apply(other), case.dataset)

    def test_add_to(self):
        case = Case(3)
        self.check(case, case.dataset, case.detection.columns.add_to(case.dataset))
        with pytest.raises(InputError, match=r"in the same order.*dataset\.map\(columns\)"):
            case.detection.columns.add_to(case.dataset.shuffle(seed=0))

    def test_hash_of_other_verdicts(self):
        hashes = {datasets.fingerprint.Hasher.hash(Case(seed).detection.columns) for seed in (0, 1, 2)}
        assert len(hashes) == 3
        columns = Case(0).detection.columns
        again = pickle.loads(pickle.dumps(columns))
        assert datasets.fingerprint.Hasher.hash(columns) == datasets.fingerprint.Hasher.hash(again)
        assert repr(again) == "VerdictColumns(60 rows, 3 classes)"


@pytest.mark.slow
def test_apply_on_a_million_rows_takes_seconds():
    size = 1_000_000
    labels = np.random.default_rng(0).integers(0, 3, size)
    data = datasets.Dataset.from_dict({"id": np.arange(size), "label": labels})
    detection = Detection(
        method="x",
        label_quality=np.ones(size),
        is_label_issue=np.arange(size) % 3 == 0,
        predicted_labels=labels,
        given_labels=labels,
        class_names=NAMES,
        image_digests=None,
        is_image_issue=np.zeros(size, bool),
        id_column="id",
        id_digests=join_digests(map(id_digest, range(size))),
    )
    mask = detection.clean_mask
    started = time.perf_counter()
    kept = mask.apply(data)
    seconds = time.perf_counter() - started
    assert kept.num_rows == size - len(range(0, size, 3))
    assert seconds < 20, seconds
