"""Findings in PyTorch, scikit-learn, and files for viewers, with the fake model of conftest.py."""

from __future__ import annotations

import io
import json

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from deft_adapters.estimator import DeftDetector
from deft_adapters.exports import write_fiftyone, write_spotlight
from deft_adapters.torch_data import clean_subset, sample_weights
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.utils import estimator_checks
from torch.utils.data import DataLoader, WeightedRandomSampler
from torchvision.datasets import ImageFolder

from deft_plugin import Detection, InputError, Selection, SelectorTraits, detect
from deft_plugin.data import read_image

pytestmark = pytest.mark.usefixtures("fake_model")


class Torch(torch.utils.data.Dataset):
    def __init__(self, colours):
        self.colours, self.classes, self.targets = colours, list(colours.names), colours.labels.tolist()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        return np.array(self.colours.images[row]), self.targets[row]


class Colours:
    """Other images with the labels of `colours`."""

    def __init__(self, images, colours):
        self.images, self.names, self.labels = images, colours.names, colours.labels


class ByLabel:
    """Keeps every label, without images."""

    def select(self, run):
        size = len(run.labels)
        return Selection(is_clean=np.ones(size, bool), label_quality=np.ones(size), predicted_labels=run.labels)

    traits = SelectorTraits(needs_images=False)


@pytest.fixture
def detection(colours):
    return detect(colours.images, colours.labels, class_names=colours.names, model="fake", method="label_match")


class TestTorch:
    def test_clean_subset(self, colours, detection):
        subset = clean_subset(detection, Torch(colours))
        assert isinstance(subset, torch.utils.data.Subset)
        assert list(subset.indices) == np.flatnonzero(~colours.is_wrong).tolist()
        pixels, labels = next(iter(DataLoader(subset, batch_size=200)))
        assert len(pixels) == (~colours.is_wrong).sum()
        np.testing.assert_array_equal(labels, colours.truth[~colours.is_wrong])

    def test_another_data_set(self, colours, colour_maker, detection):
        with pytest.raises(InputError, match="there are 60 rows instead of 120"):
            clean_subset(detection, Torch(colour_maker(num_examples=60)))
        other = Torch(colours)
        other.targets[7] = (other.targets[7] + 1) % 3
        with pytest.raises(InputError, match="row 7 has another label"):
            clean_subset(detection, other)

    def test_one_exchanged_image_is_found(self, colours, detection):
        """Two images of one class change places: neither number nor labels tell."""
        kept = np.flatnonzero(~detection.is_label_issue & (detection.given_labels == 0))
        first, second = kept[3], kept[4]
        images = list(colours.images)
        images[first], images[second] = images[second], images[first]
        other = Torch(Colours(images, colours))
        for check in (clean_subset, sample_weights):
            with pytest.raises(InputError, match=rf"row {first} has another image\. Pass the whole data set"):
                check(detection, other)

    def test_an_image_that_is_not_used_need_not_be_the_judged_one(self, colours, detection):
        images = list(colours.images)
        images[detection.ranked_issue_indices()[0]] = Image.new("RGB", (8, 8))
        assert len(clean_subset(detection, Torch(Colours(images, colours)))) == (~colours.is_wrong).sum()

    def test_labels_that_only_the_rows_know(self, colours, detection):
        pairs = list(zip(colours.images, colours.labels.tolist(), strict=True))
        assert len(clean_subset(detection, pairs)) == (~colours.is_wrong).sum()
        pairs[7] = (pairs[7][0], (pairs[7][1] + 1) % 3)
        with pytest.raises(InputError, match="row 7 has another label"):
            clean_subset(detection, pairs)

    def test_a_subset_of_a_subset(self, colours):
        inner = torch.utils.data.Subset(Torch(colours), range(110, 10, -1))
        outer = torch.utils.data.Subset(inner, range(5, 95))
        found = detect(outer, model="fake", method="label_match")
        assert len(clean_subset(found, outer)) == (~found.is_label_issue).sum()
        with pytest.raises(InputError, match=r"another (label|image)"):
            clean_subset(found, torch.utils.data.Subset(inner, range(94, 4, -1)))

    def test_images_that_are_augmented(self, colours, detection, colour_folder):
        """torchvision's are compared without transforms; of others, the data that were judged are."""
        found = detect(colour_folder, model="fake", method="label_match")
        changed = ImageFolder(colour_folder, transform=lambda image: torch.rand(3, 8, 8))
        assert len(clean_subset(found, changed)) == (~found.is_label_issue).sum()
        changed.samples[0], changed.samples[1] = changed.samples[1], changed.samples[0]
        with pytest.raises(InputError, match="has another image"):
            sample_weights(found, changed)
        noise = Torch(Colours([np.random.default_rng(0).random((8, 8, 3))] * 120, colours))
        with pytest.raises(InputError, match=r"another image\. .*judged="):
            clean_subset(detection, noise)
        assert len(clean_subset(detection, noise, judged=Torch(colours))) == (~colours.is_wrong).sum()

    def test_of_pred_probs_alone_labels_are_compared(self, colours):
        found = detect(
            labels=colours.labels, pred_probs=np.full((120, 3), 1 / 3), class_names=colours.names, method=ByLabel()
        )
        assert len(clean_subset(found, Torch(colours))) == 120
        other = Torch(colours)
        other.targets[3] = (other.targets[3] + 1) % 3
        with pytest.raises(InputError, match="row 3 has another label"):
            sample_weights(found, other)

    def test_weights(self, colours, detection):
        hard, soft = sample_weights(detection), sample_weights(detection, soft=True)
        np.testing.assert_array_equal(hard == 0, colours.is_wrong)
        np.testing.assert_allclose(soft, detection.label_quality, rtol=1e-6)
        drawn = list(WeightedRandomSampler(hard, 500))
        assert not colours.is_wrong[drawn].any()
        pixels = np.stack([np.asarray(image).ravel() for image in colours.images])
        LogisticRegression(max_iter=2000).fit(pixels, colours.labels, sample_weight=hard.numpy())


@pytest.mark.parametrize("names", [None, ["1", "2", "3"]], ids=["ids", "names that are numbers"])
def test_targets_that_are_ids(colours, names):
    dataset = Torch(colours)
    del dataset.classes
    if names is None:
        dataset.targets = np.array([3, 47219, 3_000_000])[colours.labels].tolist()
    found = detect(dataset, class_names=names, model="fake", method="gmm")
    assert list(clean_subset(found, dataset).indices) == np.flatnonzero(~found.is_label_issue).tolist()
    dataset.targets[5:7] = reversed(dataset.targets[5:7])
    with pytest.raises(InputError, match="row 5 has another label"):
        clean_subset(found, dataset)


def test_an_estimator_gives_ids_back(colours):
    ids = np.array([3, 47219, 3_000_000])
    with pytest.warns(UserWarning, match="only numbers"):
        fitted = DeftDetector(model="fake").fit(colours.images, ids[colours.labels])
    assert fitted.classes_.tolist() == ids.tolist()
    assert (fitted.predicted_labels_ == ids[colours.truth]).mean() > 0.5


class TestEstimator:
    @pytest.mark.parametrize(
        "check",
        [
            estimator_checks.check_estimator_cloneable,
            estimator_checks.check_estimator_repr,
            estimator_checks.check_get_params_invariance,
            estimator_checks.check_mixin_order,
            estimator_checks.check_no_attributes_set_in_init,
            estimator_checks.check_parameters_default_constructible,
            estimator_checks.check_set_params,
        ],
        ids=lambda check: check.__name__,
    )
    def test_scikit_learns_checks(self, check):
        check("DeftDetector", DeftDetector())

    def test_clone_and_repr(self):
        estimator = DeftDetector(model="fake", class_names=["a", "b"], seed=3)
        assert clone(estimator).get_params() == estimator.get_params()
        assert repr(estimator) == "DeftDetector(class_names=['a', 'b'], model='fake', seed=3)"

    def test_fit(self, colours):
        estimator = DeftDetector(class_names=colours.names, model="fake", device="cpu")
        assert estimator.fit(colours.images, colours.labels) is estimator
        expected = detect(colours.images, colours.labels, class_names=colours.names, model="fake", device="cpu")
        np.testing.assert_array_equal(estimator.label_quality_, expected.label_quality)
        np.testing.assert_array_equal(estimator.is_label_issue_, expected.is_label_issue)
        np.testing.assert_array_equal(estimator.predicted_labels_, expected.predicted_labels)
        assert estimator.classes_.tolist() == [0, 1, 2]
        assert estimator.label_quality_[colours.is_wrong].mean() < estimator.label_quality_[~colours.is_wrong].mean()

    def test_labels_as_words_and_images_as_an_array(self, colours):
        X = np.stack([np.asarray(image) for image in colours.images])
        y = np.array(colours.names)[colours.labels]
        estimator = DeftDetector(model="fake", device="cpu").fit(X, y)
        assert estimator.classes_.tolist() == sorted(colours.names)
        assert set(estimator.predicted_labels_) <= set(colours.names)
        assert (estimator.predicted_labels_ == np.array(colours.names)[colours.truth]).mean() > 0.9

    def test_trust_scores_are_high_where_the_label_is_right(self, colours):
        estimator = DeftDetector(class_names=colours.names, model="fake", device="cpu")
        trust = estimator.trust_scores(colours.images, colours.labels)
        np.testing.assert_array_equal(trust, estimator.label_quality_)
        assert trust[~colours.is_wrong].mean() > trust[colours.is_wrong].mean()

    def test_other_images(self, colours, colour_maker):
        other = colour_maker(seed=5)
        estimator = DeftDetector(class_names=colours.names, model="fake", device="cpu")
        with pytest.raises(NotFittedError):
            estimator.score_samples(other.images, other.labels)
        quality = estimator.fit(colours.images, colours.labels).score_samples(other.images, other.labels)
        assert quality[~other.is_wrong].mean() > quality[other.is_wrong].mean() + 0.3


class TestSpotlight:
    COLUMNS = ("row", "image", "is_label_issue", "label_quality", "given_label", "predicted_label", "is_image_issue")

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_files(self, colour_folder, tmp_path, suffix):
        found = detect(colour_folder, model="fake", method="label_match")
        file = tmp_path / "out" / f"x.{suffix}"
        write_spotlight(found, file)
        frame = pd.read_csv(file) if suffix == "csv" else pd.read_parquet(file)
        assert list(frame.columns) == list(self.COLUMNS)
        assert frame["label_quality"].is_monotonic_increasing
        assert all(read_image(path).size == (8, 8) for path in frame["image"])
        np.testing.assert_array_equal(frame["is_label_issue"], found.is_label_issue[frame["row"]])

    def test_pictures(self, colours, detection, tmp_path):
        write_spotlight(detection, tmp_path / "x.parquet")
        frame = pd.read_parquet(tmp_path / "x.parquet")
        row = frame.iloc[0]
        picture = np.asarray(Image.open(io.BytesIO(row["image"])), float)
        assert np.abs(picture - np.asarray(colours.images[row["row"]])).mean() < 30
        with pytest.raises(InputError, match=r"files for a \.csv, but 120 of 120 are not"):
            write_spotlight(detection, tmp_path / "x.csv")
        with pytest.raises(InputError, match=r"ends in \.csv or \.parquet"):
            write_spotlight(detection, tmp_path / "x.json")

    def test_loaded_from_disk(self, colours, detection, tmp_path):
        detection.save(tmp_path / "d")
        loaded = Detection.load(tmp_path / "d")
        with pytest.raises(InputError, match="Expected the data that were judged"):
            write_spotlight(loaded, tmp_path / "x.parquet")
        data = datasets.Dataset.from_dict({"image": colours.images, "label": colours.labels})
        write_spotlight(loaded, tmp_path / "x.parquet", data.cast_column("image", datasets.Image()))
        assert len(pd.read_parquet(tmp_path / "x.parquet")) == 120


class TestFiftyOne:
    def test_labels(self, colour_folder, tmp_path):
        found = detect(colour_folder, model="fake", method="label_match")
        write_fiftyone(found, tmp_path / "labels.json", colour_folder)
        written = json.loads((tmp_path / "labels.json").read_text())
        assert written["classes"] == list(found.class_names)
        files = {path.relative_to(colour_folder).with_suffix("").as_posix() for path in colour_folder.rglob("*.png")}
        assert set(written["labels"]) == files
        for key, label in written["labels"].items():
            assert label["label"] == key.split("/")[0]
            assert 0 <= label["confidence"] <= 1
        flagged = [label["attributes"]["is_label_issue"] for label in written["labels"].values()]
        assert sum(flagged) == found.is_label_issue.sum()

    def test_images_that_are_no_files_there(self, detection, colour_folder, tmp_path):
        with pytest.raises(InputError, match="row 0 is none"):
            write_fiftyone(detection, tmp_path / "x.json", colour_folder)
        found = detect(colour_folder, model="fake", method="label_match")
        with pytest.raises(InputError, match=r"files in .*other, but row 0 is"):
            write_fiftyone(found, tmp_path / "x.json", tmp_path / "other")
