from __future__ import annotations

import io
import os
import pickle
import re
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deft_plugin.data.digests import image_digest
from deft_plugin.data.reading import read_image_data
from deft_plugin.data.sources import describe
from deft_plugin.errors import InputError, UnreadableImageError

NAMES = ["cat", "dog", "fish"]
LABELS = [2, 0, 1, 0, 2]
PIXELS = [np.full((3, 2, 3), 40 * row, dtype=np.uint8) for row in range(5)]


def encode(pixels: np.ndarray, format: str = "PNG", **options) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=format, **options)
    return buffer.getvalue()


def stored(images: list[bytes]) -> list[dict]:
    return [{"bytes": image, "path": f"{row}.png"} for row, image in enumerate(images)]


def hf_dataset(labels=LABELS, label_feature=None, image_feature=None, images=None, **columns):
    features = {
        "image": image_feature or datasets.Image(),
        "label": label_feature or datasets.ClassLabel(names=NAMES),
    }
    extra = {name: datasets.Value("int64") for name in columns}
    values = {"image": images or stored([encode(pixels) for pixels in PIXELS]), "label": labels, **columns}
    return datasets.Dataset.from_dict(values, features=datasets.Features({**features, **extra}))


def first_pixels(data) -> list[int]:
    return [data.images.load(row).getpixel((0, 0))[0] for row in range(len(data.images))]


@pytest.fixture
def no_decoding(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(datasets.Image, "decode_example", fail)
    monkeypatch.setattr(Image, "open", fail)


@pytest.fixture
def cache_dir(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


# Hugging Face data sets


def test_hf_dataset():
    data = read_image_data(hf_dataset())
    assert data.labels.tolist() == LABELS
    assert data.class_names == tuple(NAMES)
    assert (data.image_column, data.label_column) == ("image", "label")
    assert first_pixels(data) == [0, 40, 80, 120, 160]
    assert describe(data.images, 3) == "row 3 (3.png)"


@pytest.mark.usefixtures("no_decoding")
def test_reading_labels_and_fingerprint_of_a_hf_dataset_decode_no_image():
    data = read_image_data(hf_dataset())
    assert len(data.images.fingerprint()) == 32


@pytest.mark.parametrize("format", [None, "numpy", "torch", "pandas", "arrow"])
def test_rows_that_were_selected_and_shuffled_are_respected(format):  # noqa: A002
    dataset = hf_dataset().with_format(format).shuffle(seed=0).select([1, 0, 2, 3])
    order = dataset.with_format("arrow")[:].column("image").to_pylist()
    data = read_image_data(dataset)
    rows = [int(value["path"][0]) for value in order]
    assert len(set(rows)) == 4
    assert rows != sorted(rows)
    assert data.labels.tolist() == [LABELS[row] for row in rows]
    assert first_pixels(data) == [40 * row for row in rows]


def test_transforms_for_training_are_passed_by():
    dataset = hf_dataset().with_transform(lambda batch: {"pixel_values": [1 for _ in batch["image"]]})
    assert first_pixels(read_image_data(dataset)) == [0, 40, 80, 120, 160]


@pytest.mark.parametrize(
    ("labels", "feature", "names"),
    [
        (["fish", "cat", "dog", "cat", "fish"], datasets.Value("string"), ("cat", "dog", "fish")),
        (LABELS, datasets.Value("int64"), ("0", "1", "2")),
        (LABELS, datasets.Value("uint8"), ("0", "1", "2")),
        ([float(label) for label in LABELS], datasets.Value("float32"), ("0", "1", "2")),
    ],
)
def test_label_columns_without_names(labels, feature, names):
    data = read_image_data(hf_dataset(labels, feature))
    assert (data.labels.tolist(), data.class_names) == (LABELS, names)


@pytest.mark.parametrize(
    "feature",
    [datasets.Image(decode=False), {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}],
    ids=["decode=False", "plain struct"],
)
def test_images_that_the_data_set_does_not_decode(feature):
    data = read_image_data(hf_dataset(image_feature=feature))
    assert first_pixels(data) == [0, 40, 80, 120, 160]


def test_mode_of_the_image_column_is_respected():
    clear = np.dstack([PIXELS[1], np.zeros((3, 2), np.uint8)])
    images = stored([encode(clear)] * 5)
    assert first_pixels(read_image_data(hf_dataset(images=images))) == [255] * 5
    as_rgb = read_image_data(hf_dataset(images=images, image_feature=datasets.Image(mode="RGB")))
    assert first_pixels(as_rgb) == [40] * 5


def test_the_conventional_label_column_is_preferred():
    dataset = hf_dataset(index=[0] * 5)
    assert read_image_data(dataset).label_column == "label"
    dataset = dataset.rename_columns({"label": "animal", "image": "photo"})
    data = read_image_data(dataset)
    assert (data.image_column, data.label_column) == ("photo", "animal")


def test_another_label_column_may_be_named():
    dataset = hf_dataset(noisy=[0, 1, 0, 1, 0])
    for labels in ("noisy", dataset["noisy"]):
        data = read_image_data(dataset, labels=labels)
        assert (data.labels.tolist(), data.label_column) == ([0, 1, 0, 1, 0], "noisy")
        assert data.class_names == ("0", "1")


def test_labels_given_apart_keep_the_names_of_the_data_set():
    data = read_image_data(hf_dataset(), labels=[0, 1, 0, 1, 0])
    assert data.labels.tolist() == [0, 1, 0, 1, 0]
    assert (data.class_names, data.label_column) == (tuple(NAMES), None)


def test_class_names_may_be_given():
    data = read_image_data(hf_dataset(), class_names=["house cat", "dog", "goldfish"])
    assert data.class_names == ("house cat", "dog", "goldfish")


def test_exif_is_applied_once_however_the_row_arrives():
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 3)).astype(np.uint8)
    dataset = hf_dataset(images=stored([encode(pixels, "JPEG", exif=exif)] * 5))
    loaded = read_image_data(dataset).images.load(0)
    assert loaded.size == (8, 16), "width and height swap"
    as_arrays = dataset.with_format("numpy")[0]["image"]
    undecoded = dataset.cast_column("image", datasets.Image(decode=False))[0]["image"]
    for arrived in (loaded, dataset[0]["image"], as_arrays, undecoded):
        assert image_digest(arrived) == image_digest(loaded)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: hf_dataset().remove_columns("image"),
            "one column of images, but got none in a data set with columns 'label'",
        ),
        (
            lambda: datasets.concatenate_datasets(
                [hf_dataset(), hf_dataset().select_columns("image").rename_column("image", "photo")], axis=1
            ),
            "one column of images, but got 'image', 'photo' in",
        ),
        (lambda: hf_dataset().remove_columns("label"), "one column of labels, but got none"),
        (
            lambda: hf_dataset(first=LABELS, second=LABELS).remove_columns("label"),
            "'first', 'second' in .*labels='...'",
        ),
        (lambda: hf_dataset(labels_=LABELS).rename_column("labels_", "labels"), "got 'label', 'labels' in"),
        (lambda: datasets.DatasetDict({"train": hf_dataset()}), "got DatasetDict.*one split"),
        (lambda: hf_dataset().to_iterable_dataset(), "got IterableDataset.*streaming"),
    ],
)
def test_hf_data_that_cannot_be_used(build, words):
    with pytest.raises(InputError, match=words):
        read_image_data(build())


NO_LABELS = {
    "id": list(range(12)),
    "caption": [f"photo {row}" for row in range(12)],
    "file_name": [f"{row}.png" for row in range(12)],
    "text": [f"photo {row % 9}" for row in range(12)],
}


def with_columns(num_rows=12, **columns):
    images = stored([encode(PIXELS[row % 5]) for row in range(num_rows)])
    return datasets.Dataset.from_dict({"image": images, **columns}).cast_column("image", datasets.Image())


@pytest.mark.parametrize("column", NO_LABELS)
def test_a_column_whose_values_do_not_repeat_is_not_taken_for_labels(column):
    with pytest.raises(InputError, match=f"{column!r} has .* values in 12 rows .*labels='...'.*--label-column"):
        read_image_data(with_columns(**{column: NO_LABELS[column]}))


def test_a_column_of_labels_may_have_any_name():
    for breeds in (["pug", "corgi", "poodle"] * 4, ["pug", "corgi", "pug"]):
        assert read_image_data(with_columns(len(breeds), breed=breeds)).label_column == "breed"
    assert read_image_data(with_columns(3, caption=["a", "b", "c"]), labels="caption").label_column == "caption"
    assert read_image_data(with_columns(3, label=["a", "b", "c"])).label_column == "label"
    with pytest.raises(InputError, match="all 30 labels are different"):
        read_image_data(with_columns(30, id=range(30)), labels="id")


def test_several_labels_in_a_row():
    with pytest.raises(InputError, match="multi-label"):
        read_image_data(with_columns(2, label=[[0, 1], [1]]))


def test_hidden_labels_of_a_test_set():
    with pytest.raises(InputError, match="hidden test set"):
        read_image_data(hf_dataset([-1] * 5))


@pytest.mark.parametrize("wrong", [{"id_column": 3}, {"image_column": []}, {"split": 1}, {"class_names": 5}])
def test_arguments_of_another_type(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))}.*{type(next(iter(wrong.values()))).__name__}"):
        read_image_data(hf_dataset(), **wrong)


def test_an_unknown_label_column_is_named():
    with pytest.raises(InputError, match=r"'lable'.* 'image', 'label'"):
        read_image_data(hf_dataset(), labels="lable")


def test_fingerprint_follows_content_and_order_and_not_labels():
    def fingerprint(dataset):
        return read_image_data(dataset).images.fingerprint()

    changed = stored([encode(pixels) for pixels in [PIXELS[0] + 1, *PIXELS[1:]]])
    assert fingerprint(hf_dataset()) == fingerprint(hf_dataset(labels=[0, 1, 2, 0, 1]))
    different = [
        hf_dataset(),
        hf_dataset().select([1, 0, 2, 3, 4]),
        hf_dataset().select(range(4)),
        hf_dataset(images=changed),
        hf_dataset(image_feature=datasets.Image(mode="L")),
    ]
    assert len(set(map(fingerprint, different))) == len(different)


def test_unreadable_rows_of_a_hf_dataset_are_named():
    images = stored([encode(PIXELS[0]), b"", encode(PIXELS[2])[:40], encode(PIXELS[3]), encode(PIXELS[4])])
    images[3] = {"bytes": None, "path": "no/such.png"}
    images[4] = None
    data = read_image_data(hf_dataset(images=images))
    data.images.load(0)
    for row, name in ((1, "row 1 (1.png)"), (2, "row 2 (2.png)"), (3, "row 3 (no/such.png)"), (4, "row 4")):
        with pytest.raises(UnreadableImageError, match=re.escape(f"Cannot read {name}: ")):
            data.images.load(row)
    assert data.images.fingerprint()


# Data sets on disk


@pytest.mark.usefixtures("cache_dir")
def test_parquet(tmp_path):
    hf_dataset().select([0, 1]).to_parquet(tmp_path / "train-0.parquet")
    hf_dataset().select([2, 3, 4]).to_parquet(tmp_path / "train-1.parquet")
    for path in (tmp_path, str(tmp_path / "train-*.parquet")):
        data = read_image_data(path)
        assert (data.labels.tolist(), data.class_names) == (LABELS, tuple(NAMES))
        assert first_pixels(data) == [0, 40, 80, 120, 160]
    assert len(read_image_data(tmp_path / "train-1.parquet").images) == 3


def test_saved_dataset(tmp_path):
    hf_dataset().save_to_disk(tmp_path / "saved")
    data = read_image_data(tmp_path / "saved")
    assert data.labels.tolist() == LABELS
    assert data.images.fingerprint() == read_image_data(hf_dataset()).images.fingerprint()


def test_several_splits_on_disk_are_not_mixed(tmp_path):
    datasets.DatasetDict({"train": hf_dataset(), "test": hf_dataset()}).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=r"several: train, test\. Choose one with split='train'"):
        read_image_data(tmp_path / "saved")
    for name in ("train-0", "test"):
        hf_dataset().to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=r"several: train, test\. Choose one"):
        read_image_data(tmp_path)


@pytest.mark.usefixtures("cache_dir")
def test_files_that_are_no_data_set(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"a\.parquet cannot: "):
        read_image_data(tmp_path / "a.parquet")
    for path in (tmp_path / "b.parquet", tmp_path / "c*.parquet"):
        with pytest.raises(InputError, match="gives no file"):
            read_image_data(path)
    (tmp_path / "c.txt").touch()
    with pytest.raises(InputError, match=r"gives c\.txt"):
        read_image_data(tmp_path / "c*")


# Folders


def make_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def png(row: int) -> bytes:
    return encode(PIXELS[row])


def test_folder(tmp_path):
    root = make_folder(
        tmp_path / "photos",
        {
            "dog/b.png": png(3),
            "dog/a.PNG": png(2),
            "cat/x/1.png": png(1),
            "cat/0.png": png(0),
            "cat/.DS_Store": b"",
        },
    )
    (root / "empty").mkdir()
    (root / ".cache").mkdir()
    with pytest.warns(UserWarning, match="without an image: empty"):
        data = read_image_data(str(root))
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert first_pixels(data) == [0, 40, 80, 120]
    assert describe(data.images, 1) == f"row 1 ({root / 'cat/x/1.png'})"
    assert (data.image_column, data.label_column) == (None, None)


def test_class_names_give_the_order_of_folders(tmp_path):
    root = make_folder(tmp_path, {"dog/1.png": png(1), "cat/0.png": png(0)})
    data = read_image_data(root, class_names=["dog", "cat"])
    assert (data.class_names, data.labels.tolist()) == (("dog", "cat"), [1, 0])
    with pytest.raises(InputError, match=r"'cat'.*Did you mean 'cats'"):
        read_image_data(root, class_names=["dog", "cats"])


def test_other_files_are_left_out_and_named(tmp_path):
    root = make_folder(tmp_path, {"dog/1.png": png(1), "cat/0.png": png(0), "cat/0.json": b"", "notes.md": b""})
    with pytest.warns(UserWarning, match=r"2 files in .* left out: notes\.md, cat/0\.json\."):
        data = read_image_data(root)
    assert len(data.images) == 2


def test_unreadable_files_are_named(tmp_path):
    root = make_folder(tmp_path, {"dog/1.png": png(1)[:50], "cat/0.png": png(0), "dog/2.png": b""})
    data = read_image_data(root)
    for row in (1, 2):
        with pytest.raises(UnreadableImageError, match=rf"row {row} .*dog/{row}\.png"):
            data.images.load(row)


def test_fingerprint_of_a_folder_follows_its_files(tmp_path):
    files = {"dog/1.png": png(1), "cat/0.png": png(0), "cat/00.png": png(2)}
    root = make_folder(tmp_path / "a", files)
    before = read_image_data(root).images.fingerprint()
    root = root.rename(tmp_path / "b")
    assert read_image_data(root).images.fingerprint() == before, "moving the folder changes nothing"
    os.utime(root / "cat/0.png", ns=(1, 1))
    (root / "cat/00.png").rename(root / "cat/9.png")
    assert read_image_data(root).images.fingerprint() == before, "nor does what a file is called"
    (root / "cat/9.png").rename(root / "dog/9.png")
    assert read_image_data(root).images.fingerprint() != before, "another order"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has no folder in it"),
        ({"a.png": b"", "b.jpg": b""}, "2 are directly in .*a.png, b.jpg"),
        ({"cat/1.png": b"", "dog/1.png": b"", "c.png": b""}, "1 are directly in .*c.png"),
        ({"cat/1.txt": b"", "dog/1.txt": b""}, "none in cat, dog"),
        ({"cat/1.png": b""}, "at least two classes, but got cat"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, files, words):
    with pytest.raises(InputError, match=words):
        read_image_data(make_folder(tmp_path, files))


def test_paths_that_are_no_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist \(looked up from"):
        read_image_data(tmp_path / "nowhere")
    (tmp_path / "a.zip").touch()
    with pytest.raises(InputError, match=r"a\.zip is not one .*Unpack it"):
        read_image_data(tmp_path / "a.zip")


def test_labels_beside_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="no labels with a folder"):
        read_image_data(tmp_path, labels=[0, 1])


# torch data sets, and sequences


class TorchLike:
    """Map-style data set as torch knows it: length, index, pairs."""

    def __init__(self, images=None, labels=LABELS, **attributes):
        self.images = images or [Image.fromarray(pixels) for pixels in PIXELS]
        self.labels_of_rows = labels
        self.visited = []
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        self.visited.append(row)
        image = self.images[row]
        return (Image.open(image) if isinstance(image, Path) else image), self.labels_of_rows[row]


def test_torch_dataset_without_targets():
    data = read_image_data(TorchLike())
    assert (data.labels.tolist(), data.class_names) == (LABELS, ("0", "1", "2"))
    assert first_pixels(data) == [0, 40, 80, 120, 160]
    assert describe(data.images, 2) == "row 2"


def test_torch_dataset_with_targets_is_not_visited():
    dataset = TorchLike(targets=LABELS, classes=NAMES, labels=None)
    data = read_image_data(dataset)
    assert (data.labels.tolist(), data.class_names, dataset.visited) == (LABELS, tuple(NAMES), [])


@pytest.mark.parametrize("attributes", [{"targets": [0, 1]}, {"targets": [0] * 5, "target_transform": str}])
def test_targets_that_are_not_the_labels_are_passed_by(attributes):
    assert read_image_data(TorchLike(**attributes)).labels.tolist() == LABELS


def test_torch_subset():
    import torch

    dataset = TorchLike(targets=torch.tensor(LABELS), classes=NAMES, labels=None)
    subset = torch.utils.data.Subset(torch.utils.data.Subset(dataset, [0, 2, 4]), [2, 1])
    data = read_image_data(subset)
    assert (data.labels.tolist(), data.class_names, dataset.visited) == ([2, 1], tuple(NAMES), [])
    dataset.labels_of_rows = LABELS
    assert first_pixels(data) == [160, 80]


def test_torchvision_datasets(tmp_path):
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    root = make_folder(tmp_path, {"dog/1.png": png(1), "cat/0.png": png(0)})
    as_tensors = read_image_data(ImageFolder(str(root), transform=ToTensor()))
    as_folder = read_image_data(root)
    assert as_tensors.class_names == as_folder.class_names
    assert describe(as_tensors.images, 1) == describe(as_folder.images, 1)
    for row in range(2):
        assert image_digest(as_tensors.images.load(row)) == image_digest(as_folder.images.load(row))


ROWS = {
    "with an index": lambda image, label, row: (image, label, row),
    "behind an index": lambda image, label, row: (row, image, label),
    "mapping": lambda image, label, row: {"image": image, "label": label, "index": row},
    "mapping of a Hugging Face model": lambda image, label, row: {
        "pixel_values": np.asarray(image) / 255,
        "labels": np.int64(label),
    },
    "mapping with other names": lambda image, label, row: {"photo": image, "target": label},
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_torch_datasets(kind):
    class Rows(TorchLike):
        def __getitem__(self, row):
            return ROWS[kind](*super().__getitem__(row), row)

    data = read_image_data(Rows())
    assert data.labels.tolist() == LABELS
    assert first_pixels(data) == [0, 40, 80, 120, 160]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": PIXELS[0]}, "row 0 is dict with image"),
        ({"image": PIXELS[0], "label": 0, "labels": 1}, "one label, but got label, labels"),
        ({"image": PIXELS[0], "pixel_values": PIXELS[0], "label": 0}, "one image, but got image, pixel_values"),
        ({"a": 1, "label": 0}, "one image, but got none among a, label"),
        ((PIXELS[0], {"boxes": []}), "multi-label"),
    ],
)
def test_rows_that_are_not_clear(row, words):
    with pytest.raises(InputError, match=words):
        read_image_data([row, row])


def test_normalised_tensors_are_explained():
    import torch

    dataset = TorchLike(images=[torch.full((3, 2, 2), -1.0)] * 5)
    data = read_image_data(dataset)
    with pytest.raises(InputError, match=r"Cannot use row 3: .*already normalised"):
        data.images.load(3)
    with pytest.raises(InputError, match="row 0"):
        data.images.fingerprint()


def test_unreadable_rows_of_a_torch_dataset_are_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(png(0)[:40])
    images = [*TorchLike().images[:4], tmp_path / "bad.png"]
    data = read_image_data(TorchLike(images=images, targets=LABELS))
    with pytest.raises(UnreadableImageError, match="row 4"):
        data.images.load(4)
    assert data.images.fingerprint()


def test_bugs_of_a_dataset_are_not_taken_for_unreadable_images():
    data = read_image_data(TorchLike(targets=LABELS, labels={}))
    with pytest.raises(KeyError):
        data.images.load(0)


SEQUENCES = {
    "PIL images": lambda folder: [Image.fromarray(pixels) for pixels in PIXELS],
    "arrays": lambda folder: PIXELS,
    "one array": lambda folder: np.stack(PIXELS),
    "paths": lambda folder: [folder / f"{row}.png" for row in range(5)],
    "strings": lambda folder: tuple(str(folder / f"{row}.png") for row in range(5)),
    "Series": lambda folder: pd.Series([str(folder / f"{row}.png") for row in range(5)], index=[5, 4, 3, 2, 1]),
    "Hugging Face column": lambda folder: hf_dataset()["image"],
    "pairs": lambda folder: [(pixels, 0) for pixels in PIXELS],
}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_sequences_with_labels(tmp_path, kind):
    make_folder(tmp_path, {f"{row}.png": png(row) for row in range(5)})
    data = read_image_data(SEQUENCES[kind](tmp_path), labels=LABELS, class_names=NAMES)
    assert (data.labels.tolist(), data.class_names) == (LABELS, tuple(NAMES))
    assert first_pixels(data) == [0, 40, 80, 120, 160]


def test_sequence_of_pairs_needs_no_labels():
    data = read_image_data([(pixels, NAMES[label]) for pixels, label in zip(PIXELS, LABELS, strict=True)])
    assert (data.labels.tolist(), data.class_names) == (LABELS, tuple(NAMES))


def test_rows_with_a_file_are_described_by_it(tmp_path):
    make_folder(tmp_path, {"0.png": png(0), "1.png": png(1)})
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    assert describe(read_image_data(paths, labels=[0, 1]).images, 1) == f"row 1 ({paths[1]})"
    with Image.open(paths[0]) as first, Image.open(paths[1]) as second:
        assert describe(read_image_data([first, second], labels=[0, 1]).images, 1) == f"row 1 ({paths[1]})"


def test_fingerprint_of_paths_follows_files_and_that_of_pixels_follows_pixels(tmp_path):
    make_folder(tmp_path, {"0.png": png(0), "1.png": b"no image"})
    paths = [tmp_path / "0.png", tmp_path / "1.png", tmp_path / "missing.png"]
    data = read_image_data(paths, labels=[0, 1, 1])
    before = data.images.fingerprint()
    (tmp_path / "1.png").write_bytes(b"still no image")
    assert data.images.fingerprint() != before
    as_arrays = read_image_data(PIXELS, labels=LABELS)
    as_images = read_image_data([Image.fromarray(pixels) for pixels in PIXELS], labels=LABELS)
    assert as_arrays.images.fingerprint() == as_images.images.fingerprint() != before


def test_sources_can_be_sent_to_other_processes(tmp_path):
    root = make_folder(tmp_path, {"dog/1.png": png(1), "cat/0.png": png(0)})
    for data in (read_image_data(root), read_image_data(hf_dataset()), read_image_data(PIXELS, LABELS)):
        images = pickle.loads(pickle.dumps(data.images))
        assert images.fingerprint() == data.images.fingerprint()
        assert images.load(1).tobytes() == data.images.load(1).tobytes()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (PIXELS, "labels=.*, or rows that are pairs .* row 0 is ndarray"),
        ((pixels for pixels in PIXELS), r"got generator\. Pass list"),
        ({"train": PIXELS}, "got dict.*one split"),
        (pd.DataFrame({"path": ["a.png"]}), "got DataFrame.*column of paths"),
        (Image.fromarray(PIXELS[0]), "got Image"),
        (3, "got int"),
        (None, "got NoneType"),
    ],
)
def test_data_that_cannot_be_used(data, words):
    with pytest.raises(InputError, match=words):
        read_image_data(data)


class TestImageData:
    def test_is_given_back_as_it_is(self):
        data = read_image_data(hf_dataset())
        assert read_image_data(data) is data

    @pytest.mark.parametrize("extra", [{"labels": [0]}, {"class_names": NAMES}])
    def test_takes_nothing_beside_it(self, extra):
        with pytest.raises(InputError, match="Expected no labels or class_names with an ImageData"):
            read_image_data(read_image_data(hf_dataset()), **extra)
