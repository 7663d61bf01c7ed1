from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import datasets
import pandas as pd
import pytest
from PIL import Image

from deft_plugin.data.reading import read_image_data
from deft_plugin.errors import InputError, UnreadableImageError


@pytest.fixture(autouse=True)
def cache_dir(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def photos(tmp_path) -> Path:
    for name, level in (("cat/1.png", 10), ("dog/2.png", 20)):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (2, 2), (level, 0, 0)).save(tmp_path / name)
    return tmp_path


def write(photos: Path, name: str, text: str) -> Path:
    (photos / name).write_text(text, encoding="utf-8")
    return photos / name


def read(data, **options):
    found = read_image_data(data, **options)
    labels = [found.class_names[label] for label in found.labels]
    return labels, [found.images.load(row).getpixel((0, 0))[0] for row in range(len(labels))]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "file_name,label\ndog/2.png,NA\ncat/1.png,007\n"),
        ("a.csv", "\ufeffpath;class\r\ndog/2.png;NA\r\ncat/1.png;007\r\n"),
        ("a.tsv", "x\tclass\ndog/2.png\tNA\ncat/1.png\t007\n"),
        ("a.jsonl", '{"image": "dog/2.png", "label": "NA"}\n{"image": "cat/1.png", "label": "007"}\n'),
        ("a.json", '[{"image": "dog/2.png", "label": "NA"}, {"image": "cat/1.png", "label": "007"}]'),
    ],
)
def test_tables_of_paths(photos, name, text):
    assert read(write(photos, name, text)) == (["NA", "007"], [20, 10])


def test_numbers_stay_numbers(photos):
    data = read_image_data(write(photos, "a.csv", "path,label\ndog/2.png,2\ncat/1.png,0\n"))
    assert (data.class_names, data.labels.tolist()) == (("0", "2"), [1, 0])


def test_columns_may_be_named(photos):
    file = write(photos, "a.csv", "a,b,x,y\ndog/2.png,cat/1.png,p,q\ncat/1.png,dog/2.png,r,s\n")
    with pytest.raises(InputError, match=r"'a', 'b' all have some.*image_column"):
        read_image_data(file)
    assert read(file, labels="y", image_column="b") == (["q", "s"], [10, 20])


def test_a_table_that_changed_is_read_anew(photos):
    file = write(photos, "a.csv", "path,label\ndog/2.png,dog\ncat/1.png,cat\n")
    before = os.stat(file)
    assert read(file)[0] == ["dog", "cat"]
    write(photos, "a.csv", "path,label\ndog/2.png,eel\ncat/1.png,cat\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read(file)[0] == ["eel", "cat"]


def test_a_path_that_leads_nowhere_is_an_unreadable_image(photos):
    data = read_image_data(write(photos, "a.csv", "path,label\ndog/2.png,dog\nno.png,cat\n"))
    with pytest.raises(UnreadableImageError, match=r"row 1 .*no\.png"):
        data.images.load(1)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "path,label\ndog/2.png,\ncat/1.png,cat\n", "label of row 0 is missing"),
        ("a.csv", "path,label\nno.png,a\nnot.png,b\n", r"none has files that exist, such as 'no\.png'"),
        ("a.csv", "dog/2.png,dog\ncat/1.png,cat\n", "names a file.*file_name,label"),
        ("a.csv", "path,label\ndog/2.png,dog,x\n", "Expected 2 values .* line 2 .* has 3"),
        ("a.csv", "path,path\ndog/2.png,dog\n", "'path' twice"),
        ("a.csv", "path,label\ndog,dog\ncat/1.png,cat\n", "row 0 in 'path' is no regular file"),
        ("a.jsonl", '{"path": "dog/2.png", "label": 1}\n{"path": "cat/1.png", "label": "b"}\n', "'label' .* int, str"),
        ("a.json", '{"images": [], "annotations": []}', "JSON list of objects"),
    ],
)
def test_tables_that_cannot_be_used(photos, name, text, words):
    with pytest.raises(InputError, match=words):
        read_image_data(write(photos, name, text))


def test_a_column_of_splits(photos):
    rows = "dog/2.png,dog,train\ncat/1.png,cat,train\ndog/2.png,cat,valid\ncat/1.png,dog,valid\n"
    file = write(photos, "a.csv", f"path,label,split\n{rows}")
    with pytest.raises(InputError, match="several: train, valid"):
        read_image_data(file)
    assert read(file, split="val") == (["cat", "dog"], [20, 10])
    assert len(read(file, split="all")[0]) == 4


def test_metadata_with_labels_win_over_class_folders(photos):
    write(photos, "metadata.csv", "file_name,label\ndog/2.png,a\ncat/1.png,b\n")
    with pytest.warns(UserWarning, match=r"Labels are those of .*metadata\.csv"):
        assert read(photos) == (["a", "b"], [20, 10])


def test_metadata_without_labels_do_not(photos):
    write(photos, "metadata.csv", "file_name,text\ndog/2.png,a\ncat/1.png,b\n")
    with pytest.warns(UserWarning, match=r"left out: metadata\.csv"):
        assert read(photos)[0] == ["cat", "dog"]


def stored() -> datasets.Dataset:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (10, 0, 0)).save(buffer, "PNG")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    images = [{"bytes": buffer.getvalue(), "path": None}] * 2
    return datasets.Dataset.from_dict({"image": images, "label": [0, 1]}, features=features)


def hub(root: Path) -> Path:
    (root / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        stored().to_parquet(root / "data" / f"{name}.parquet")
    return root


def saved(root: Path) -> Path:
    both = datasets.concatenate_datasets([stored(), stored()])
    datasets.DatasetDict(train=both, valid=stored()).save_to_disk(root)
    return root


@pytest.mark.parametrize("write_splits", [hub, saved])
def test_splits_of_data_sets(tmp_path, write_splits):
    root = write_splits(tmp_path)
    with pytest.raises(InputError, match="several: train, valid"):
        read_image_data(root)
    sizes = {split: len(read(root, split=split)[0]) for split in ("train", "dev", "all")}
    assert sizes == {"train": 4, "dev": 2, "all": 6}


def test_classes_that_differ_are_not_joined(tmp_path):
    other = stored().cast_column("label", datasets.ClassLabel(names=["dog", "cat"]))
    datasets.DatasetDict(train=stored(), test=other).save_to_disk(tmp_path)
    with pytest.raises(InputError, match="same columns and classes, but label"):
        read_image_data(tmp_path, split="all")


def test_parquet_without_images_leaves_a_folder_of_photos_what_it_is(photos):
    pd.DataFrame({"is_label_issue": [True]}).to_parquet(photos / "verdicts.parquet")
    with pytest.warns(UserWarning, match="left out"):
        assert read(photos)[0] == ["cat", "dog"]


def test_arrow_and_feather(photos):
    frame = pd.DataFrame({"path": ["dog/2.png", "cat/1.png"], "label": ["NA", "b"]})
    frame.to_feather(photos / "a.arrow")
    assert read(photos / "a.arrow") == (["NA", "b"], [20, 10])


def test_webdataset(photos):
    with tarfile.open(photos / "a.tar", "w") as tar:
        for key, (name, label) in enumerate((("dog/2.png", b'{"label": "dog"}'), ("cat/1.png", b'{"label": "cat"}'))):
            for suffix, content in (("png", (photos / name).read_bytes()), ("json", label)):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert read(photos / "a.tar") == (["dog", "cat"], [20, 10])
