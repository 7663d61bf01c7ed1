"""The README's Python blocks run, one after the other, on real photos and the embedded model."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from deft_benchmarks.demo_data import load_clothing_demo

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


class Photos(torch.utils.data.Dataset):
    def __init__(self, images, labels):
        self.images, self.targets = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.images[row], self.targets[row]


@pytest.fixture(scope="module")
def dataset():
    """60 photos of three kinds of clothes, some with a wrong label."""
    data = load_clothing_demo()
    labels = np.asarray(data["label"])
    rows = np.concatenate([np.flatnonzero(labels == k)[:20] for k in (0, 4, 9)])
    chosen = data.select(rows)
    given = np.asarray(chosen["label"])
    given[::9] = np.roll(given, 20)[::9]
    names = chosen.features["label"]
    chosen = chosen.remove_columns("label").add_column("label", given.tolist(), feature=names)
    return chosen.add_column("id", list(range(60)))


@pytest.fixture(scope="module")
def names(dataset, tmp_path_factory):
    """What the blocks take for granted: folders in the working directory, and some variables."""
    folder = tmp_path_factory.mktemp("user")
    class_names = dataset.features["label"].names
    images, labels = list(dataset["image"]), list(dataset["label"])
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        for root in ("photos", "new_photos"):
            (folder / root / class_names[label]).mkdir(parents=True, exist_ok=True)
            image.save(folder / root / class_names[label] / f"{row:02d}.jpg")
    with (folder / "review.csv").open("w", newline="") as file:
        csv.writer(file).writerow(["row", "image_digest", "given_label", "decision", "new_label"])
    probs = np.full((60, len(class_names)), 0.01)
    probs[range(60), labels] = 1 - 0.01 * (len(class_names) - 1)
    return folder, {
        "dataset": dataset,
        "images": images,
        "labels": labels,
        "class_names": class_names,
        "pred_probs": probs,
        "torch_dataset": Photos(images, labels),
    }


@pytest.fixture(autouse=True)
def _as_a_user(names, monkeypatch):
    monkeypatch.chdir(names[0])
    monkeypatch.setenv("DEFT_CACHE_DIR", str(names[0] / "cache"))


@pytest.mark.filterwarnings("ignore:May not flag all label issues in class")  # cleanlab's: few photos of a class
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number, names):
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), names[1])


def test_the_blocks_are_there():
    assert len(BLOCKS) >= 8
    text = "\n".join(BLOCKS)
    for entrance in ("Datalab(", ".filter(", "find_label_issues(", "DeftDetector(", "add_columns(", "apply_review("):
        assert entrance in text


def test_what_was_made(names):
    folder, variables = names
    assert (folder / "report.html").stat().st_size > 10_000
    assert {"label_quality", "is_label_issue", "predicted_label"} <= set(variables["scored"].column_names)
    assert len(variables["train"]) == len(variables["clean"]) < 60
