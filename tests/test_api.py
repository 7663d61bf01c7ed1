"""``detect`` and ``find_label_issues`` on images of colours, which the fake model of conftest.py tells apart."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from cleanlab.filter import find_label_issues as cleanlab_find_label_issues
from PIL import Image

import deft_plugin
from deft_plugin import Selection
from deft_plugin.data.digests import image_digest
from deft_plugin.errors import DeftError, InputError, UnknownNameError, UnreadableImageError
from deft_plugin.types import EpochEnd, SelectorTraits

pytestmark = pytest.mark.usefixtures("fake_model")

detect = functools.partial(deft_plugin.detect, model="fake", method="label_match")
find_label_issues = functools.partial(deft_plugin.find_label_issues, model="fake", method="label_match")


class Fixed:
    """A selector that gives what it was made with."""

    def __init__(self, **selection):
        self.selection = selection

    def select(self, run):
        n = len(run.labels)
        verdicts = {"is_clean": np.ones(n, bool), "label_quality": np.ones(n), "predicted_labels": run.labels}
        return Selection(**{**verdicts, **self.selection})


def hf(colours):
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=list(colours.names)), row=datasets.Value("int64")
    )
    columns = {"image": colours.images, "label": colours.labels, "row": range(len(colours.labels))}
    return datasets.Dataset.from_dict(columns, features=features)


class Torch(torch.utils.data.Dataset):
    def __init__(self, colours):
        self.colours, self.classes = colours, list(colours.names)

    def __len__(self):
        return len(self.colours.labels)

    def __getitem__(self, row):
        return self.colours.images[row], int(self.colours.labels[row])


class TestMask:
    @pytest.mark.parametrize("method", ["deft", "label_match", "small_loss", "gmm", "confident_learning"])
    def test_wrong_labels_are_true(self, colours, method):
        issues = find_label_issues(colours.images, colours.labels, class_names=colours.names, method=method)
        assert issues.dtype == bool
        assert issues.shape == (len(colours.labels),)
        # Colours are easy, whatever the learning rates.
        assert issues[colours.is_wrong].mean() > 0.9
        assert issues[~colours.is_wrong].mean() < 0.15

    @pytest.mark.parametrize("method", ["deft", "label_match", "small_loss", "gmm", "confident_learning"])
    def test_quality_is_low_where_the_label_is_wrong(self, colours, method):
        detection = detect(colours.images, colours.labels, class_names=colours.names, method=method)
        quality = detection.label_quality
        assert np.median(quality[colours.is_wrong]) < np.quantile(quality[~colours.is_wrong], 0.05)
        assert (detection.predicted_labels == colours.truth).mean() > 0.85
        np.testing.assert_array_equal(detection.given_labels, colours.labels)

    @pytest.mark.parametrize("ranked_by", ["label_quality", "self_confidence"])
    def test_indices_worst_first(self, colours, ranked_by):
        find = functools.partial(find_label_issues, colours.images, colours.labels, class_names=colours.names)
        indices = find(return_indices_ranked_by=ranked_by)
        quality = detect(colours.images, colours.labels, class_names=colours.names).label_quality
        np.testing.assert_array_equal(np.sort(indices), np.flatnonzero(find()))
        assert (np.diff(quality[indices]) >= 0).all()
        assert np.diff(quality[indices]).any()

    def test_unknown_ranking(self, colours):
        with pytest.raises(InputError, match=r"return_indices_ranked_by.*'worst'"):
            find_label_issues(colours.images, colours.labels, return_indices_ranked_by="worst")

    @pytest.mark.parametrize("method", ["deft", "small_loss", "gmm", "confident_learning"])
    def test_the_same_seed_gives_the_same_verdicts(self, colours, method):
        runs = [
            detect(colours.images, colours.labels, class_names=colours.names, method=method, seed=seed)
            for seed in (3, 3, 4)
        ]
        np.testing.assert_array_equal(runs[0].label_quality, runs[1].label_quality)
        np.testing.assert_array_equal(runs[0].is_label_issue, runs[1].is_label_issue)
        assert (runs[0].label_quality != runs[2].label_quality).any()
        assert [run.settings["seed"] for run in runs] == [3, 3, 4]

    @pytest.mark.parametrize("method", ["deft", "small_loss", "gmm", "confident_learning"])
    def test_duplicates_share_a_verdict(self, colours, method):
        """A third of all rows three times, far apart, with one label; and once more with another."""
        rows = np.tile(np.arange(40), 3)
        images = [colours.images[row] for row in rows] + [colours.images[0]]
        labels = [*colours.labels[rows], (colours.labels[0] + 1) % 3]
        detection = detect(images, labels, class_names=colours.names, method=method)
        for verdict in (detection.is_label_issue, detection.label_quality):
            of_row = verdict[:-1].reshape(3, 40)
            np.testing.assert_allclose(of_row, np.broadcast_to(of_row[0], of_row.shape), atol=1e-5)
        assert detection.label_quality[0] != detection.label_quality[-1]

    def test_data_are_not_changed(self, colours):
        labels = colours.labels.copy()
        detect(colours.images, labels, class_names=colours.names, method="small_loss")
        np.testing.assert_array_equal(labels, colours.labels)


class TestData:
    @pytest.fixture
    def expected(self, colours):
        return detect(colours.images, colours.labels, class_names=colours.names)

    @pytest.mark.parametrize(
        "read",
        [
            lambda colours: (hf(colours),),
            lambda colours: (hf(colours).remove_columns("label"), colours.labels),
            lambda colours: (Torch(colours),),
            lambda colours: ([np.asarray(image) for image in colours.images], colours.labels),
            lambda colours: (colours.images, colours.labels.tolist()),
            lambda colours: (colours.images, [colours.names[label] for label in colours.labels]),
            lambda colours: (colours.images, colours.labels.astype(float)),
        ],
        ids=["HF data set", "HF data set and labels", "torch data set", "arrays", "PIL", "strings", "floats"],
    )
    def test_every_form_gives_the_same(self, colours, expected, read):
        detection = detect(*read(colours), class_names=list(colours.names))
        np.testing.assert_array_equal(detection.is_label_issue, expected.is_label_issue)
        np.testing.assert_array_equal(detection.label_quality, expected.label_quality)
        assert detection.class_names == colours.names

    @pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
    def test_a_folder(self, colours, expected, colour_folder, as_path):
        files = sorted(colour_folder.rglob("*.png"))
        rows = [int(file.stem) for file in files]
        detection = detect(as_path(colour_folder), class_names=[*sorted(colours.names)])
        assert detection.class_names == ("blue", "green", "red")
        np.testing.assert_array_equal(detection.is_label_issue, expected.is_label_issue[rows])
        np.testing.assert_allclose(detection.label_quality, expected.label_quality[rows], atol=1e-3)

    def test_class_names_come_from_the_data(self, colours):
        assert detect(hf(colours)).class_names == colours.names
        assert detect(Torch(colours)).class_names == colours.names

    def test_parquet_and_saved_data_sets(self, colours, expected, tmp_path):
        data = hf(colours)
        data.to_parquet(tmp_path / "data.parquet")
        data.save_to_disk(tmp_path / "saved")
        for path in (tmp_path / "data.parquet", tmp_path / "saved"):
            np.testing.assert_array_equal(detect(path).is_label_issue, expected.is_label_issue)


class TestIds:
    """Labels that are numbers of their own."""

    IDS = np.array([3, 47219, 3_000_000])

    def test_they_come_back_by_name(self, colours):
        expected = detect(colours.images, colours.labels, class_names=colours.names, method="gmm")
        ids = self.IDS[colours.labels]
        found = detect(colours.images, ids, method="gmm")
        assert found.class_names == ("3", "47219", "3000000")
        assert found.to_frame()["given_label"].tolist() == list(map(str, ids))
        np.testing.assert_array_equal(found.is_label_issue, expected.is_label_issue)
        row = int(np.flatnonzero(ids == 47219)[0])
        for label in (47219, 47219.0, "47219", np.int64(47219)):
            assert found.clean_mask.is_clean(colours.images[row], label) == (not expected.is_label_issue[row])
        with pytest.raises(InputError, match="Unknown label 47220"):
            found.clean_mask.is_clean(colours.images[row], 47220)

    def test_columns_and_masks(self, colours):
        data = hf(colours).remove_columns("label").add_column("label", self.IDS[colours.labels])
        found = detect(data, method="gmm")
        kept = data.shuffle(seed=0).filter(found.clean_mask)
        assert sorted(kept["row"]) == np.flatnonzero(~found.is_label_issue).tolist()
        assert data.map(found.columns)["is_label_issue"] == found.is_label_issue.tolist()

    def test_names_that_are_numbers_and_counted(self, colours):
        """A ClassLabel with such names counts them: its 1 is the class "2"."""
        names = datasets.ClassLabel(names=["1", "2", "3"])
        data = hf(colours).cast_column("label", datasets.Value("int64")).cast_column("label", names)
        found = detect(data, method="gmm")
        kept = data.filter(found.clean_mask)
        assert kept["row"] == np.flatnonzero(~found.is_label_issue).tolist()
        assert data.map(found.columns)["is_label_issue"] == found.is_label_issue.tolist()

    def test_a_detector_knows_them(self, colours):
        deft = deft_plugin.Deft()
        with pytest.warns(UserWarning, match="only numbers"):
            detect(colours.images, self.IDS[colours.labels], method=deft)
        scored = deft.trained.score(colours.images[:9], self.IDS[colours.labels[:9]])
        given = [scored.class_names[label] for label in scored.given_labels]
        assert given == list(map(str, self.IDS[colours.labels[:9]]))


class TestWarnings:
    @pytest.mark.parametrize("names", [None, ["n01440764", "n01443537", "n01484850"]])
    def test_names_without_words_where_they_are_read(self, colours, names):
        with pytest.warns(UserWarning, match=r"only numbers or WordNet ids"):
            detect(colours.images, colours.labels, class_names=names, method="deft")
        detect(colours.images, colours.labels, class_names=names, method="gmm")

    def test_augmentation(self, colours):
        class Flips(Torch):
            flips = np.random.default_rng(0)

            def __getitem__(self, row):
                image, label = super().__getitem__(row)
                return (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flips.random() < 0.5 else image), label

        with pytest.warns(UserWarning, match=r"row \d+ is another one each time it is read.*augments"):
            detect(Flips(colours), method="gmm")


class TestFilter:
    """``dataset.filter(detection.clean_mask)``."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda data: data,
            lambda data: data.shuffle(seed=1),
            lambda data: data.select(range(30, 90, 2)),
            lambda data: data.train_test_split(0.5, seed=2)["test"],
        ],
        ids=["original", "shuffled", "subset", "split"],
    )
    def test_the_rows_that_are_clean_stay(self, colours, change):
        data = hf(colours)
        detection = detect(data)
        changed = change(data)
        kept = changed.filter(detection.clean_mask)["row"]
        assert list(kept) == [row for row in changed["row"] if not detection.is_label_issue[row]]
        assert 0 < len(kept) < len(changed)

    def test_rows_that_were_never_judged_are_an_error(self, colours, colour_maker):
        mask = detect(hf(colours)).clean_mask
        with pytest.raises(InputError, match="never judged"):
            hf(colour_maker(seed=1)).filter(mask)


class TestPredProbs:
    @pytest.fixture
    def pred_probs(self, colours):
        rng = np.random.default_rng(0)
        sure = 3 * np.eye(3)[np.where(rng.random(120) < 0.7, colours.truth, rng.integers(3, size=120))]
        logits = sure + rng.normal(size=(120, 3))
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    def test_without_images_it_is_cleanlab(self, colours, pred_probs, fake_model):
        expected = cleanlab_find_label_issues(colours.labels, pred_probs, n_jobs=1)
        issues = find_label_issues(labels=colours.labels, pred_probs=pred_probs, method="confident_learning")
        np.testing.assert_array_equal(issues, expected)
        assert 0 < expected.sum() < 60
        assert fake_model == []  # no model was loaded

    def test_indices_are_cleanlabs(self, colours, pred_probs):
        expected = cleanlab_find_label_issues(
            colours.labels, pred_probs, return_indices_ranked_by="self_confidence", n_jobs=1
        )
        indices = find_label_issues(
            labels=colours.labels,
            pred_probs=pred_probs,
            method="confident_learning",
            return_indices_ranked_by="self_confidence",
        )
        np.testing.assert_array_equal(indices, expected)

    def test_labels_and_class_names_of_a_data_set(self, colours, pred_probs, fake_model):
        detection = detect(hf(colours), pred_probs=pred_probs, method="confident_learning")
        expected = cleanlab_find_label_issues(colours.labels, pred_probs, n_jobs=1)
        np.testing.assert_array_equal(detection.is_label_issue, expected)
        assert detection.class_names == colours.names
        assert fake_model == []

    def test_the_call_by_position_is_cleanlabs(self, colours, pred_probs, fake_model):
        expected = cleanlab_find_label_issues(colours.labels, pred_probs, n_jobs=1)
        find = functools.partial(deft_plugin.find_label_issues, model="fake")
        for labels in (colours.labels, colours.labels.tolist(), torch.tensor(colours.labels)):
            np.testing.assert_array_equal(find(labels, pred_probs), expected)
            np.testing.assert_array_equal(find(labels, pred_probs=pred_probs), expected)
        np.testing.assert_array_equal(find(labels=colours.labels, pred_probs=pred_probs), expected)
        np.testing.assert_array_equal(find(colours.labels.tolist(), pred_probs.tolist()), expected)
        assert fake_model == []

    def test_the_call_by_position_where_it_cannot_be(self, colours, pred_probs):
        with pytest.raises(InputError, match=r"Expected data \(images\)"):
            find_label_issues(colours.labels, pred_probs, method="deft")
        with pytest.raises(InputError, match=r"labels and pred_probs.*method='confident_learning'"):
            detect(colours.labels, pred_probs)
        with pytest.raises(InputError, match="multi-label"):
            deft_plugin.find_label_issues([[0], [0, 1]], [[0.9, 0.1], [0.6, 0.7]])
        with pytest.raises(InputError, match="argmax"):
            find_label_issues(colours.images, pred_probs)

    @pytest.mark.parametrize("option", ["filter_by", "n_jobs", "multi_label", "frac_noise", "min_examples_per_class"])
    def test_options_of_cleanlab(self, colours, pred_probs, option):
        with pytest.raises(InputError, match=f"no {option}: .*cleanlab"):
            find_label_issues(colours.labels, pred_probs, **{option: 1})

    def test_options_of_nobody(self, colours):
        with pytest.raises(TypeError, match=r"'metod'\. Did you mean 'method'"):
            find_label_issues(colours.images, colours.labels, metod="deft")

    @pytest.mark.filterwarnings("ignore:May not flag all label issues in class")  # cleanlab's, of the absent one
    def test_columns_tell_the_classes(self, colours, pred_probs):
        """Of a data set without class names, too, where a class has no label."""
        probs = np.insert(pred_probs, 1, 0, axis=1)
        labels = np.array([0, 2, 3])[colours.labels]
        expected = detect(labels=labels, pred_probs=probs, method="confident_learning")
        for data in (colours.images, list(zip(colours.images, labels, strict=True))):
            found = detect(data, labels, pred_probs=probs, method="confident_learning")
            assert found.class_names == expected.class_names == ("0", "1", "2", "3")
            np.testing.assert_array_equal(found.given_labels, labels)
            np.testing.assert_array_equal(found.is_label_issue, expected.is_label_issue)

    @pytest.mark.parametrize("argument", ["image_column", "id_column", "split"])
    def test_columns_of_no_data(self, colours, pred_probs, argument):
        with pytest.raises(InputError, match=f"data with {argument}"):
            detect(labels=colours.labels, pred_probs=pred_probs, method="confident_learning", **{argument: "x"})

    def test_no_filter_without_images(self, colours, pred_probs):
        detection = detect(labels=colours.labels, pred_probs=pred_probs, method="confident_learning")
        assert detection.settings["seed"] == 0
        with pytest.raises(InputError, match="has seen the images"):
            _ = detection.clean_mask

    def test_own_pred_probs_go_before_the_classifiers(self, colours, pred_probs):
        """A selector that needs images and reads pred_probs gets the given ones."""
        seen = []

        class Reads(Fixed):
            def select(self, run):
                seen.append(run.pred_probs)
                return super().select(run)

        detect(colours.images, colours.labels, class_names=colours.names, method=Reads(), pred_probs=pred_probs)
        np.testing.assert_allclose(seen[0], pred_probs)


class TestSelectors:
    def test_an_object_as_method(self, colours):
        is_clean = np.arange(120) % 5 != 0
        detection = detect(colours.images, colours.labels, class_names=colours.names, method=Fixed(is_clean=is_clean))
        np.testing.assert_array_equal(detection.is_label_issue, ~is_clean)
        assert detection.method == "Fixed"

    def test_duplicates_are_judged_by_one_fold(self, colours):
        """Else one twin would be judged by what was trained on the other."""
        seen = []

        class Looks(Fixed):
            def select(self, run):
                seen.append(run.folds)
                return super().select(run)

        rows = np.tile(np.arange(40), 3)
        images = [colours.images[row] for row in rows]
        detect(images, np.arange(120) % 3, class_names=colours.names, method=Looks())
        of_row = seen[0].reshape(3, 40)
        assert (of_row == of_row[0]).all()
        assert set(seen[0]) == set(range(10))

    def test_details_are_kept(self, colours):
        method = Fixed(details={"rounds": np.int64(3), "oracle": True})
        detection = detect(colours.images, colours.labels, class_names=colours.names, method=method)
        assert detection.details == {"rounds": 3, "oracle": True}

    @pytest.mark.parametrize(
        ("selection", "words"),
        [
            ({"is_clean": np.ones(3, bool)}, r"is_clean of shape \(120,\).*\(3,\)"),
            ({"is_clean": np.ones(120, int)}, "is_clean .*bool.*int64"),
            ({"is_clean": np.array([1.0])}, "is_clean"),
            ({"label_quality": np.ones((120, 3))}, r"label_quality .*\(120, 3\)"),
            ({"label_quality": 0.5}, r"label_quality .*\(\)"),
            ({"label_quality": np.full(120, np.nan)}, "label_quality"),
            ({"label_quality": np.full(120, 1.5)}, "label_quality .*1.5"),
            ({"predicted_labels": np.zeros(119, int)}, r"predicted_labels .*\(119,\)"),
            ({"predicted_labels": np.full(120, 0.5)}, "predicted_labels .*int.*float64"),
            ({"predicted_labels": np.full(120, 3)}, r"predicted_labels .*3"),
            ({"details": {"model": object()}}, "details"),
        ],
    )
    def test_a_plugin_that_gives_something_else(self, colours, install, make_plugin, selection, words):
        install(bad=make_plugin(register_selectors=lambda register: register("odd", lambda: Fixed(**selection))))
        with pytest.raises(DeftError, match=words) as caught:
            detect(colours.images, colours.labels, class_names=colours.names, method="odd")
        assert "'odd'" in str(caught.value)

    def test_a_plugin_that_gives_nothing(self, colours):
        class Forgetful(Fixed):
            def select(self, run):
                return None

        with pytest.raises(DeftError, match=r"Expected is_clean of shape .*, bool, but 'Forgetful' gave"):
            detect(colours.images, colours.labels, class_names=colours.names, method=Forgetful())

    def test_a_plugin_that_raises(self, colours, install, make_plugin):
        class Raises(Fixed):
            def select(self, run):
                raise KeyError("weights")

        install(bad=make_plugin(register_selectors=lambda register: register("odd", Raises)))
        with pytest.raises(DeftError, match="Selector 'odd' failed with KeyError: 'weights'") as caught:
            detect(colours.images, colours.labels, class_names=colours.names, method="odd")
        assert isinstance(caught.value.__cause__, KeyError)

    def test_what_a_selector_is_handed(self, colours):
        seen = []

        class Looks(Fixed):
            def select(self, run):
                seen.append(run)
                return super().select(run)

        data = {"class_names": colours.names, "noise_ratio": 0.3, "seed": 5, "tuning": "frozen"}
        detection = detect(colours.images, colours.labels, method=Looks(), **data)
        run = seen[0]
        np.testing.assert_array_equal(run.labels, colours.labels)
        assert (run.num_classes, run.noise_ratio, run.noise_ratio_source, run.seed) == (3, 0.3, "given", 5)
        assert run.image_features.shape == (120, 12)
        np.testing.assert_allclose(np.linalg.norm(run.image_features.astype(float), axis=1), 1, atol=1e-2)
        np.testing.assert_array_equal(run.digests, [list(image_digest(image)) for image in colours.images])
        settings = {"model": "fake", "seed": 5, "noise_ratio": 0.3, "tuning": "frozen"}
        assert settings.items() <= detection.settings.items()


class TestBadImages:
    @pytest.fixture
    def broken_folder(self, colour_folder):
        """Row 2 of the folder, in the class blue, cannot be read."""
        file = sorted((colour_folder / "blue").iterdir())[2]
        file.write_bytes(file.read_bytes()[:60])
        return SimpleNamespace(root=colour_folder, file=f"blue/{file.name}")

    def test_raise_names_row_and_file(self, broken_folder):
        with pytest.raises(UnreadableImageError) as caught:
            detect(broken_folder.root)
        message = str(caught.value)
        assert "row 2" in message
        assert broken_folder.file in message
        assert "1 of 120" in message
        assert "on_bad_image='flag'" in message

    @pytest.mark.parametrize("method", ["label_match", "deft", "confident_learning"])
    def test_flag_keeps_the_row(self, broken_folder, method):
        detection = detect(broken_folder.root, on_bad_image="flag", method=method)
        assert len(detection) == 120
        assert np.flatnonzero(detection.is_image_issue).tolist() == [2]
        assert detection.is_label_issue[2]
        assert detection.label_quality[2] == 0
        assert detection.predicted_labels[2] == -1
        assert detection.class_names[detection.given_labels[2]] == "blue"

    def test_the_others_are_judged_as_if_it_were_not_there(self, colours):
        stored = hf(colours).cast_column("image", datasets.Image(decode=False))
        rows = [{**row, "image": {"bytes": b"broken", "path": None}} if i == 7 else row for i, row in enumerate(stored)]
        broken = datasets.Dataset.from_list(rows, features=hf(colours).features)
        detection = detect(broken, on_bad_image="flag")
        others = np.delete(np.arange(120), 7)
        whole = detect(hf(colours).select(others))
        np.testing.assert_array_equal(detection.label_quality[others], whole.label_quality)
        np.testing.assert_array_equal(detection.predicted_labels[others], whole.predicted_labels)
        # The row is dropped by the mask, not lost by an error.
        kept = broken.cast_column("image", datasets.Image(decode=False)).filter(detection.clean_mask)
        assert 7 not in kept["row"]
        assert len(kept) == (~detection.is_label_issue).sum()

    def test_the_second_time_from_the_cache(self, broken_folder):
        detect(broken_folder.root, on_bad_image="flag")
        with pytest.raises(UnreadableImageError, match="row 2"):
            detect(broken_folder.root)


class TestSettings:
    @pytest.mark.parametrize("noise_ratio", [-0.1, 1, 1.5, 40, float("nan")])
    def test_noise_ratio_out_of_range(self, colours, noise_ratio):
        with pytest.raises(InputError, match=r"noise_ratio in \[0, 1\)"):
            detect(colours.images, colours.labels, noise_ratio=noise_ratio)

    @pytest.mark.parametrize("batch_size", [0, -3])
    def test_batch_size_too_small(self, colours, batch_size):
        with pytest.raises(InputError, match=f"batch_size of at least 1, but got {batch_size}"):
            detect(colours.images, colours.labels, batch_size=batch_size)

    def test_batch_size_is_used(self, colours, fake_model):
        detect(colours.images, colours.labels, batch_size=50)
        assert fake_model[0].encoded_batches == [50, 50, 20]

    def test_on_bad_image(self, colours):
        with pytest.raises(InputError, match="'raise' or 'flag', but got 'skip'"):
            detect(colours.images, colours.labels, on_bad_image="skip")

    @pytest.mark.parametrize(("argument", "meant"), [("method", "label_match"), ("model", "bridge-lite0")])
    def test_unknown_names(self, colours, argument, meant, fake_model):
        with pytest.raises(UnknownNameError, match=f"Did you mean '{meant}'"):
            detect(colours.images, colours.labels, **{argument: meant[:-2] + meant[-1]})
        assert fake_model == []

    def test_features_are_computed_once(self, colours, fake_model):
        for method in ("label_match", "gmm"):
            detect(colours.images, colours.labels, method=method)
        assert fake_model[0].encoded_batches
        assert fake_model[1].encoded_batches == []

    def test_cache_dir(self, colours, tmp_path):
        detect(colours.images, colours.labels, cache_dir=tmp_path / "here")
        assert list((tmp_path / "here").rglob("*.npy"))


class TestEvents:
    def test_listeners_are_told_of_each_epoch(self, colours, install, make_plugin):
        events = []
        install(logger=make_plugin(deft_epoch_end=lambda event: events.append(event)))
        detect(colours.images, colours.labels, class_names=colours.names, method="deft")
        assert [event.epoch for event in events] == list(range(1, events[0].num_epochs + 1))
        assert all(isinstance(event, EpochEnd) for event in events)
        assert set(events[0].losses) == {"dp", "sim"}
        assert events[-1].losses["sim"] < events[0].losses["sim"]
        assert events[0].scalars["selected_fraction"] == 1  # warm-up
        assert 0.6 < events[-1].scalars["selected_fraction"] < 0.95

    def test_a_listener_that_raises_is_reported_and_changes_nothing(self, colours, install, make_plugin):
        expected = find_label_issues(colours.images, colours.labels, class_names=colours.names, method="deft")

        def deft_epoch_end(event):
            raise ConnectionError("no server")

        install(logger=make_plugin(deft_epoch_end=deft_epoch_end))
        with pytest.warns(RuntimeWarning, match="'logger' failed.*ConnectionError: no server"):
            issues = find_label_issues(colours.images, colours.labels, class_names=colours.names, method="deft")
        np.testing.assert_array_equal(issues, expected)

    def test_verbose_shows_progress_on_standard_error(self, colours, capsys):
        detect(colours.images, colours.labels, class_names=colours.names, method="deft", verbose=True)
        shown = capsys.readouterr()
        assert "Image features" in shown.err
        assert "Learn prompts" in shown.err
        assert shown.out == ""

    def test_silent_by_default(self, colours, capsys):
        detect(colours.images, colours.labels, class_names=colours.names, method="deft")
        assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("method", ["deft", "label_match", "gmm", "confident_learning"])
def test_a_model_with_a_cone_makes_no_tensor_of_a_read_only_array(colours, fake_backbone, monkeypatch, method):
    """Torch warns of that, and only once in a process; features without a cone are copied by the centring."""
    from_numpy = torch.from_numpy

    def checked(array):
        assert array.flags.writeable
        return from_numpy(array)

    monkeypatch.setattr(torch, "from_numpy", checked)
    monkeypatch.setattr(fake_backbone, "has_cone", True)
    detect(colours.images, colours.labels, class_names=colours.names, method=method)


def test_images_that_differ_in_size_and_mode(colours):
    images = list(colours.images)
    images[0] = images[0].resize((13, 7))
    images[1] = images[1].convert("RGBA")
    images[2] = Image.fromarray(np.asarray(images[2])[:, :, 0])
    assert len(detect(images, colours.labels, class_names=colours.names)) == 120


@pytest.mark.filterwarnings("ignore:May not flag all label issues")  # cleanlab's own, of the class without examples
def test_columns_of_pred_probs_tell_the_number_of_classes_as_in_cleanlab():
    from cleanlab.filter import find_label_issues as cleanlab_issues

    pred_probs = np.random.default_rng(0).dirichlet(np.ones(4), 60)
    labels = np.arange(60) % 3
    found = find_label_issues(labels=labels, pred_probs=pred_probs, method="confident_learning")
    np.testing.assert_array_equal(found, cleanlab_issues(labels, pred_probs, n_jobs=1))


class TestSmallClasses:
    """One is judged by what was learned of the others of its class: there must be some."""

    def test_are_said_instead_of_flagged(self, colour_maker):
        colours = colour_maker(num_examples=24, num_classes=3, noise_ratio=0)
        names = [f"one {row}" for row in range(24)]
        found = detect(colours.images, list(range(24)), class_names=names, method="deft")
        assert not found.is_label_issue.any()
        assert set(found.label_quality.tolist()) == {0.5}
        assert found.classes_too_small == tuple(names)

    def test_twins_are_one_image(self, colours):
        labels = colours.labels.copy()
        labels[:3] = 3
        images = [*colours.images]
        images[1] = images[0]
        names = [*colours.names, "rare"]
        found = detect(images, labels, class_names=names)
        assert found.classes_too_small == ("rare",)
        assert not found.is_label_issue[:3].any()
        others = detect(images, labels, class_names=names, model="fake", method="label_match")
        assert others.classes_too_small == ("rare",)

    def test_three_images_are_judged(self, colours):
        labels = colours.labels.copy()
        labels[:3] = 3
        found = detect(colours.images, labels, class_names=[*colours.names, "rare"])
        assert found.classes_too_small == ()

    def test_probabilities_that_were_given_judge_any_class(self):
        probs = np.tile([0.9, 0.1], (12, 1))
        assert detect(labels=[0] * 11 + [1], pred_probs=probs, method=ByProbabilities()).is_label_issue[11]


class ByProbabilities:
    traits = SelectorTraits(needs_images=False)

    def select(self, run):
        of_labels = run.pred_probs[np.arange(len(run.labels)), run.labels]
        return Selection(is_clean=of_labels > 0.5, label_quality=of_labels, predicted_labels=run.pred_probs.argmax(1))
