from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deft_plugin.data.folder import find_files
from deft_plugin.errors import InputError

CLASSES = ("cat/1.png", "dog/2.png")
OUTPUT = (
    "contact_sheet.png",
    "report.html",
    "issues.parquet",
    "detection/verdicts.parquet",
    "detection/detection.json",
)


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            (root / name).touch()
        else:
            (root / name).mkdir()
    return root


def found(root: Path, split: str | None = None) -> dict[str, list[str]]:
    files = find_files(root, split=split)
    return {name: [file.relative_to(root).as_posix() for file in of_class] for name, of_class in files.items()}


SPLITS = {
    "folders of splits": ("train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "test/fish/1.png"),
    "in one folder": ("data/train/cat/1.png", "data/train/dog/1.png", "data/val/cat/1.png", "data/test/fish/1.png"),
    "inside of classes": ("cat/train/1.png", "dog/train/1.png", "cat/val/1.png", "fish/test/1.png"),
}


@pytest.mark.parametrize("layout", SPLITS)
@pytest.mark.filterwarnings("ignore:The class folders are those in")
class TestSplits:
    def test_several_must_be_chosen_from(self, tmp_path, layout):
        with pytest.raises(InputError, match=r"several: train, .*split='train' \(--split train\), .*'all'"):
            find_files(tree(tmp_path, *SPLITS[layout]))

    def test_one_is_chosen_by_any_of_its_names(self, tmp_path, layout):
        root = tree(tmp_path, *SPLITS[layout])
        assert set(found(root, "train")) == {"cat", "dog"}
        for name in ("val", "valid", "validation", "dev"):
            assert set(found(root, name)) == {"cat"}

    def test_all_have_the_union_of_classes(self, tmp_path, layout):
        of_class = found(tree(tmp_path, *SPLITS[layout]), "all")
        assert {name: len(files) for name, files in of_class.items()} == {"cat": 2, "dog": 1, "fish": 1}

    def test_an_unknown_one_is_answered_with_those_there(self, tmp_path, layout):
        with pytest.raises(InputError, match=r"'trian'\. Did you mean 'train'"):
            find_files(tree(tmp_path, *SPLITS[layout]), split="trian")


def test_no_split_is_there(tmp_path):
    with pytest.raises(InputError, match="holds no splits"):
        find_files(tree(tmp_path, *CLASSES), split="train")


def test_images_directly_in_splits_are_no_classes(tmp_path):
    with pytest.raises(InputError, match="Expected class folders in each split"):
        find_files(tree(tmp_path, "train/1.png", "test/2.png"))


def test_a_class_may_be_named_as_a_split(tmp_path):
    assert set(found(tree(tmp_path, "train/1.png", "bus/2.png"))) == {"bus", "train"}


def test_folders_that_hold_the_same_classes_are_said(tmp_path):
    root = tree(tmp_path, "a/cat/1.png", "a/dog/1.png", "b/cat/1.png", "b/dog/1.png")
    with pytest.warns(UserWarning, match="hold the same folders.*split='a'"):
        assert set(find_files(root)) == {"a", "b"}
    assert set(find_files(root, split="b")) == {"cat", "dog"}


def test_the_only_folder_is_passed_through(tmp_path):
    with pytest.warns(UserWarning, match="class folders are those in .*images"):
        assert set(find_files(tree(tmp_path, "images/cat/1.png", "images/dog/1.png"))) == {"cat", "dog"}


def test_links_are_followed_once_and_what_is_no_regular_file_is_left_out(tmp_path):
    root = tree(tmp_path / "root", *CLASSES)
    pool = tree(tmp_path / "pool", "3.png")
    os.symlink(pool, root / "fish")
    for name, target in {"cat/up": "..", "dog/own": ".", "dog/out": tmp_path, "dog/a": root / "cat"}.items():
        os.symlink(target, root / name)
    os.mkfifo(root / "cat" / "pipe.png")
    os.symlink("/dev/zero", root / "cat" / "zero.png")
    with pytest.warns(UserWarning, match="regular files: cat/pipe.png, cat/zero.png; .*dog/own"):
        assert found(root) == {"cat": ["cat/1.png"], "dog": ["dog/2.png"], "fish": ["fish/3.png"]}


def test_a_broken_link_is_an_image_that_cannot_be_read(tmp_path):
    root = tree(tmp_path, *CLASSES)
    os.symlink("nowhere", root / "cat" / "9.png")
    assert found(root)["cat"] == ["cat/1.png", "cat/9.png"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    root = tree(tmp_path, *CLASSES)
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"dog cannot: PermissionError"):
        find_files(root)


@pytest.mark.parametrize(
    "junk", ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found", "_unlabeled", "System Volume Information"]
)
def test_junk_is_no_class(tmp_path, junk):
    with pytest.warns(UserWarning, match="passed over") as warned:
        assert set(find_files(tree(tmp_path, *CLASSES, f"{junk}/1.png", f"{junk}/2.png"))) == {"cat", "dog"}
    assert len(warned) == 1


@pytest.mark.parametrize("place", ["", "report/", "cat/"])
def test_own_output_is_no_data(tmp_path, place):
    root = tree(tmp_path, *CLASSES, *(place + name for name in OUTPUT))
    with pytest.warns(UserWarning, match="output of deft"):
        assert found(root) == {"cat": ["cat/1.png"], "dog": ["dog/2.png"]}


@pytest.mark.parametrize("place", ["", "detection/"])
def test_a_detection_is_no_data(tmp_path, place):
    with pytest.raises(InputError, match="deft wrote of a detection"):
        find_files(tree(tmp_path, f"{place}verdicts.parquet", f"{place}detection.json"))


@pytest.mark.skipif(sys.platform != "linux", reason="names there are Unicode")
def test_names_that_are_not_utf8_become_text_and_stay_apart(tmp_path):
    for name in (b"caf\xe9", b"caf\xe8", rb"caf\xe9", b"dog"):
        folder = os.path.join(os.fsencode(tmp_path), name)
        os.mkdir(folder)
        Path(os.fsdecode(os.path.join(folder, b"\xff.png"))).touch()
    classes = find_files(tmp_path)
    assert list(classes) == ["caf\\xe8", "caf\\xe9", "caf\\xe9'", "dog"]
    assert all(file.exists() for files in classes.values() for file in files)


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "dib", "mpo", "tga", "jp2", "apng"])
def test_suffixes_that_pillow_opens(tmp_path, suffix):
    assert len(found(tree(tmp_path, f"cat/1.{suffix}", "dog/2.png"))["cat"]) == 1


def test_heif_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    from deft_plugin.data import walk

    walk.open_heif.cache_clear()
    with pytest.warns(UserWarning, match=r"1 HEIF photos .*deft-plugin\[heif\]"):
        find_files(tree(tmp_path, *CLASSES, "cat/3.heic"))
    walk.open_heif.cache_clear()
