from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import ConcatDataset, Subset

from deft_plugin.data.class_names import class_names_of, names_are_numbers, warn_of_names_without_words
from deft_plugin.data.reading import read_image_data
from deft_plugin.errors import InputError

PHOTO = Image.new("RGB", (2, 2))


class Photos:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def __len__(self):
        return 4

    def __getitem__(self, row):
        return PHOTO, row % 2


KNOWN = {
    "classes": Photos(classes=["cat", "dog"]),
    "an array": Photos(classes=np.array(["cat", "dog"])),
    "class_to_idx": Photos(class_to_idx={"dog": 1, "cat": 0}),
    "names by index": Photos(classes={0: "cat", 1: "dog"}),
    "timm's reader": Photos(reader=SimpleNamespace(class_to_idx={"dog": 1, "cat": 0})),
    "timm's reader of tars": Photos(reader=SimpleNamespace(class_name_to_idx={"dog": 1, "cat": 0})),
    "Subset": Subset(Photos(classes=["cat", "dog"]), [1, 0]),
    "ConcatDataset": ConcatDataset([Photos(classes=["cat", "dog"]), Photos(class_to_idx={"cat": 0, "dog": 1})]),
    "nested": ConcatDataset([Subset(ConcatDataset([Photos(classes=["cat", "dog"])] * 2), [5, 2, 1])]),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_names_are_found(kind):
    data = read_image_data(KNOWN[kind])
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [KNOWN[kind][row][1] for row in range(len(KNOWN[kind]))]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # timm's
def test_timm(tmp_path):
    from timm.data import ImageDataset

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        PHOTO.save(tmp_path / name / "1.png")
    assert read_image_data(ImageDataset(str(tmp_path))).class_names == ("cat", "dog")


def test_targets_of_parts_are_not_visited():
    part = Photos(classes=["cat", "dog"], targets=[1, 0, 1, 1])
    both = ConcatDataset([part, Subset(part, [1, 0])])
    part.__class__ = type("Blind", (Photos,), {"__getitem__": None})
    assert read_image_data(both).labels.tolist() == [1, 0, 1, 1, 0, 1]


@pytest.mark.parametrize(
    "other",
    [Photos(classes=["dog", "cat"]), Photos(classes=["cat", "dog", "fish"]), Photos()],
    ids=["order", "more", "none"],
)
def test_parts_with_different_classes(other):
    data = ConcatDataset([Photos(classes=["cat", "dog"]), other])
    with pytest.raises(InputError, match=r"same classes in all parts .* part 1 has"):
        read_image_data(data)
    assert read_image_data(data, class_names=["a", "b"]).class_names == ("a", "b")


@pytest.mark.parametrize("positions", [{"cat": 5, "dog": 9}, {"cat": 1, "dog": 1}, {"cat": "0", "dog": "1"}])
def test_indices_with_gaps(positions):
    with pytest.raises(InputError, match=r"indices 0 … 1, each once.*class_names"):
        class_names_of(Photos(class_to_idx=positions))


def test_synonyms_stay_unique():
    classes = [("crane",), ("kite", "bird"), ("crane",), ("maillot",), ("maillot", "tank suit")]
    found = class_names_of(Photos(classes=classes))
    assert found == ["crane", "kite", "crane (2)", "maillot", "maillot, tank suit"]


def test_names_that_are_numbers():
    assert names_are_numbers(["3", "20", "100"])
    for names in (["1", "10", "2"], ["01", "02"], ["-1", "2"], ["1", "cat"], ["1.0", "2.0"], ["²", "³"]):
        assert not names_are_numbers(names)


@pytest.mark.parametrize("names", [["0", "1"], ["cat", "12"], ["n01440764", "n01443537"], ["1.0", "2.0"]])
def test_names_without_words(names):
    with pytest.warns(UserWarning, match="only numbers or WordNet ids"):
        warn_of_names_without_words(names)


def test_names_with_words():
    warn_of_names_without_words(["707-320", "n01", "route 66", "seven"])
