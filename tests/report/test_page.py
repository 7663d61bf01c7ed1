"""The HTML page of a report, without a browser: what is in it, and that nothing breaks out of it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import os
import pickle
import re

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

import deft_plugin
from deft_plugin.data.digests import image_digest
from deft_plugin.data.reading import read_image_data
from deft_plugin.errors import InputError, UnreadableImageError
from deft_plugin.report.figures import matrix_of_labels, pairs_of_labels, quality_histogram
from deft_plugin.results.detection import Detection

HOSTILE = ("</script><script>alert(1)</script>", "\"><img src=x onerror='alert(2)'>", "{{ 7 * 7 }}&amp;")


class Photos:
    """Images in memory; some cannot be read."""

    def __init__(self, images, unreadable=(), names=None):
        self.images, self.unreadable = images, unreadable
        self.names = names or [f"photos/{row}.png" for row in range(len(images))]

    def __len__(self):
        return len(self.images)

    def load(self, row):
        if row in self.unreadable:
            raise UnreadableImageError(f"Cannot read row {row}.")
        return self.images[row]

    def path(self, row):
        return self.names[row]

    def fingerprint(self):
        return "photos"


def make_photos(num_examples, size=(40, 30), **options):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (num_examples, 5, 4, 3), dtype=np.uint8)
    return Photos([Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC) for pixels in small], **options)


def make_detection(**changes) -> Detection:
    images = make_photos(7, unreadable={4})
    digests = np.frombuffer(
        b"".join(bytes(16) if row == 4 else image_digest(image) for row, image in enumerate(images.images)), np.uint8
    )
    values = {
        "method": "deft",
        "label_quality": np.array([0.9, 0.4, 0.1, 0.4, 0.0, 0.2, 0.99]),
        "is_label_issue": np.array([False, True, True, True, True, True, False]),
        "predicted_labels": np.array([0, 2, 1, 1, -1, 1, 2]),
        "given_labels": np.array([0, 1, 2, 2, 1, 0, 2]),
        "class_names": ("cat", "dog", "fish"),
        "image_digests": digests.reshape(-1, 16),
        "is_image_issue": np.array([False, False, False, False, True, False, False]),
        "settings": {"model": "fake <1>", "seed": 7, "seconds": 1.5},
        "images": images,
    }
    return Detection(**{**values, **changes})


@pytest.fixture
def read_page(parse_page, tmp_path):
    """Write the page of a detection, and parse it."""
    return lambda detection, **options: parse_page(
        detection.report(tmp_path / "page.html", **options).read_text(encoding="utf-8")
    )


def texts(elements):
    return [" ".join(each["text"].split()) for each in elements]


class TestContents:
    def test_classes_that_are_too_small_are_said(self, read_page):
        small = make_detection(details={"classes_too_small_to_judge": ["fish", "<dog>"]})
        assert "2 classes have one or two images" in " ".join(texts(read_page(small).all("p")))
        assert "have one or two images" not in " ".join(texts(read_page(make_detection()).all("p")))

    def test_header(self, read_page):
        page = read_page(make_detection())
        facts = dict(zip(texts(page.all("dt")), texts(page.all("dd")), strict=True))
        assert facts["Method"] == "deft"
        assert facts["Model"] == "fake <1>"
        assert (facts["Seed"], facts["Rows"], facts["Unreadable images"]) == ("7", "7", "1")
        assert facts["Label issues"] == "4 57.1%"
        assert texts(page.all("h1")) == texts(page.all("title"))[:1] == ["Label issues found by deft"]

    def test_a_title_and_no_model(self, read_page):
        page = read_page(make_detection(settings={}), title="Photos & more")
        assert texts(page.all("h1")) == ["Photos & more"]
        assert "Model" not in texts(page.all("dt"))

    def test_issues_of_classes(self, read_page):
        rows = read_page(make_detection()).all("button", **{"class": "class-row"})
        assert texts(rows) == ["fish 2 67% of 3 examples", "cat 1 50% of 2 examples", "dog 1 100% of 1 examples"]
        assert [row["data-given"] for row in rows] == ["2", "0", "1"]

    def test_matrix_and_pairs(self, read_page):
        page = read_page(make_detection())
        cells = [each for each in page.all("button") if each.get("class", "").startswith("cell")]
        found = {(each["data-given"], each["data-predicted"]): each["text"] for each in cells}
        assert found == {("2", "1"): "2", ("0", "1"): "1", ("1", "2"): "1"}
        assert texts(page.all("button", **{"class": "pair"})) == ["2 fish → dog", "1 cat → dog", "1 dog → fish"]

    def test_rows_are_worst_first_and_unreadable_ones_last(self, read_page):
        page = read_page(make_detection())
        data = page.data("page-data")
        assert data["row"] == [2, 5, 1, 3, 4]
        assert data["given"] == [2, 0, 1, 2, 1]
        assert data["predicted"] == [1, 1, 2, 1, -1]
        assert data["quality"] == [0.1, 0.2, 0.4, 0.4, 0.0]
        assert data["path"] == [f"photos/{row}.png" for row in (2, 5, 1, 3, 4)]
        assert data["digest"][0] == make_detection().image_digests[2].tobytes().hex()
        assert data["digest"][4] == ""
        assert data["decision"] == ["none"] * 5
        (thumbnails,) = [page.data("thumbnails-0")]
        assert [each is None for each in thumbnails] == [False] * 4 + [True]

    def test_an_image_that_can_be_read_no_longer(self, read_page):
        page = read_page(make_detection(images=make_photos(7, unreadable={4, 2})))
        assert page.data("thumbnails-0")[0] is None

    def test_only_the_worst(self, read_page):
        page = read_page(make_detection(), max_images=2)
        assert page.data("page-data")["row"] == [2, 5]
        assert len(page.data("thumbnails-0")) == 2
        assert any("has the worst 2 of 5" in text for text in texts(page.all("p")))

    def test_no_issue(self, read_page):
        none = np.zeros(7, bool)
        fine = {"is_label_issue": none, "is_image_issue": none, "predicted_labels": np.zeros(7, int)}
        page = read_page(make_detection(**fine))
        assert page.data("page-data")["row"] == []
        assert "There is no label issue." in texts(page.all("p"))
        assert page.all("table") == []

    def test_earlier_decisions_are_shown_also_of_rows_that_are_no_issue(self, read_page):
        decisions = np.array(["keep", "none", "relabel", "none", "none", "none", "none"])
        data = read_page(make_detection(decisions=decisions)).data("page-data")
        assert (data["row"], data["decision"]) == (
            [2, 5, 1, 3, 0, 4],
            ["relabel", "none", "none", "none", "keep", "none"],
        )

    def test_two_pages_have_marks_of_their_own(self, read_page):
        key = read_page(make_detection()).data("page-data")["key"]
        assert read_page(make_detection(settings={"seconds": 2})).data("page-data")["key"] == key
        for changes in ({"method": "gmm"}, {"label_quality": np.array([0.9, 0.4, 0.1, 0.3, 0.0, 0.2, 0.99])}):
            assert read_page(make_detection(**changes)).data("page-data")["key"] != key
        assert read_page(make_detection(), max_images=2).data("page-data")["key"] != key


class TestFigures:
    def test_many_classes_leave_those_with_the_most_issues(self):
        rng = np.random.default_rng(0)
        given, predicted = rng.integers(0, 150, (2, 4000))
        given[:900], predicted[:900] = 7, 140
        detection = make_detection(
            label_quality=np.full(4000, 0.1),
            is_label_issue=given != predicted,
            predicted_labels=predicted,
            given_labels=given,
            class_names=[f"class {k}" for k in range(150)],
            image_digests=None,
            is_image_issue=np.zeros(4000, bool),
        )
        pairs = pairs_of_labels(detection)
        assert (pairs[0].given, pairs[0].predicted) == (7, 140)
        assert sum(pair.count for pair in pairs) == (given != predicted).sum()
        matrix = matrix_of_labels(pairs)
        appears = np.bincount(given[given != predicted], minlength=150) + np.bincount(
            predicted[given != predicted], minlength=150
        )
        assert len(matrix.labels) == 20
        assert min(appears[matrix.labels]) >= np.sort(appears)[-20]
        assert not matrix.is_whole
        for row in matrix.rows:
            for pair in row:
                expected = ((given == pair.given) & (predicted == pair.predicted)).sum() * (
                    pair.given != pair.predicted
                )
                assert pair.count == expected
        assert matrix.issues == sum(pair.count for row in matrix.rows for pair in row)

    def test_a_few_classes_are_all_there(self):
        matrix = matrix_of_labels(pairs_of_labels(make_detection()))
        assert (matrix.labels, matrix.is_whole, matrix.issues) == ([0, 1, 2], True, 4)

    def test_histogram_leaves_unreadable_images_out(self):
        bins = quality_histogram(make_detection())
        assert sum(each.flagged for each in bins) == 4
        assert sum(each.kept for each in bins) == 2
        assert (bins[-1].kept, bins[-1].low, bins[-1].high) == (1, 0.95, 1.0)
        assert (bins[8].flagged, bins[8].flagged_height, bins[2].flagged_height) == (2, 100, 50)


class TestSafety:
    @pytest.fixture
    def page(self, read_page):
        photos = make_photos(7, unreadable={4}, names=[f"{HOSTILE[0]}/{HOSTILE[1]}{row}" for row in range(7)])
        detection = make_detection(
            class_names=HOSTILE, images=photos, method=HOSTILE[1], settings={"model": HOSTILE[0], "seed": 7}
        )
        return read_page(detection, title=HOSTILE[0])

    def test_names_make_no_element(self, page, read_page):
        plain = read_page(make_detection())
        tags, expected = ([each["tag"] for each in one.elements] for one in (page, plain))
        assert tags == expected
        assert len(page.all("img")) == len(plain.all("img")) == 1, "the one of the template"
        assert not any(name.startswith("on") for each in page.elements for name in each)

    def test_names_are_shown_as_they_are(self, page):
        assert texts(page.all("h1")) == [HOSTILE[0]]
        assert {each["title"] for each in page.all("span", **{"class": "name"})} == set(HOSTILE)
        data = page.data("page-data")
        assert data["class_names"] == list(HOSTILE)
        assert data["path"][0] == f"{HOSTILE[0]}/{HOSTILE[1]}2"

    def test_policy_allows_the_scripts_of_the_page_alone(self, page):
        (policy,) = [
            each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy.startswith("default-src 'none'; img-src data:; ")
        assert "unsafe" not in policy
        (script,) = [each for each in page.all("script") if each.get("type") is None]
        (style,) = page.all("style")
        for kind, element in (("script", script), ("style", style)):
            digest = base64.b64encode(hashlib.sha256(element["text"].encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy

    def test_nothing_comes_from_elsewhere(self, page):
        for element in page.elements:
            for name in ("src", "href", "action", "srcset", "style", "poster"):
                assert element.get(name, "data:,") == "data:,"
        script, style = page.all("script")[-1]["text"], page.all("style")[0]["text"]
        assert "innerHTML" not in script
        assert "http" not in script
        assert "url(" not in style
        assert "@import" not in style

    def test_names_that_are_no_utf8(self, read_page):
        photos = make_photos(7, names=[os.fsdecode(b"photos/\xff.png")] * 7)
        page = read_page(make_detection(class_names=("cat", os.fsdecode(b"\xe9t\xe9"), "\0"), images=photos))
        assert page.data("page-data")["path"][0] == os.fsdecode(b"photos/\xff.png")


class TestThumbnails:
    def test_they_are_small_pictures_of_the_images(self, read_page):
        images = make_photos(7, size=(640, 480), unreadable={4})
        page = read_page(make_detection(images=images))
        assert page.data("page-data")["thumbnail_format"] == "webp"
        with Image.open(io.BytesIO(base64.b64decode(page.data("thumbnails-0")[0]))) as thumbnail:
            assert (thumbnail.format, thumbnail.size) == ("WEBP", (160, 120))
            expected = images.images[2].resize((160, 120), Image.Resampling.LANCZOS)
            assert np.abs(np.asarray(thumbnail.convert("RGB"), float) - np.asarray(expected, float)).mean() < 6

    def test_small_images_are_not_blown_up(self, read_page):
        page = read_page(make_detection(images=make_photos(7, size=(1, 8))))
        with Image.open(io.BytesIO(base64.b64decode(page.data("thumbnails-0")[0]))) as thumbnail:
            assert thumbnail.size == (1, 8)

    def test_without_webp(self, monkeypatch, read_page):
        monkeypatch.setattr("PIL.features.check", lambda name: name != "webp")
        page = read_page(make_detection())
        assert page.data("page-data")["thumbnail_format"] == "jpeg"
        assert base64.b64decode(page.data("thumbnails-0")[0]).startswith(b"\xff\xd8")

    def test_size_of_a_page(self, tmp_path, parse_page):
        size, rng = 600, np.random.default_rng(0)
        detection = make_detection(
            label_quality=rng.uniform(0, 0.5, size),
            is_label_issue=np.ones(size, bool),
            predicted_labels=rng.integers(0, 3, size),
            given_labels=rng.integers(0, 3, size),
            image_digests=None,
            is_image_issue=np.zeros(size, bool),
            images=make_photos(size, size=(200, 160)),
        )
        file = detection.report(tmp_path / "page.html")
        assert file.stat().st_size < 4e6
        page = parse_page(file.read_text(encoding="utf-8"))
        assert [len(page.data(f"thumbnails-{k}")) for k in range(6)] == [100] * 6


class TestWriting:
    def test_the_same_detection_gives_the_same_page(self, tmp_path):
        first, second = (make_detection().report(tmp_path / name) for name in ("a.html", "new/b.html"))
        assert first.read_bytes() == second.read_bytes()
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.html", "b.html", "new"]

    def test_what_cannot_be_written(self, tmp_path):
        with pytest.raises(InputError, match=r"a file to write, but .* is a folder\. Name a file in it"):
            make_detection().report(tmp_path)
        with pytest.raises(InputError, match="max_images of at least 1, but got 0"):
            make_detection().report(tmp_path / "x.html", max_images=0)

    def test_a_failure_leaves_the_old_page(self, tmp_path):
        class Broken(Photos):
            def load(self, row):
                raise RuntimeError("disk on fire")

        file = make_detection().report(tmp_path / "x.html")
        before = file.read_bytes()
        with pytest.raises(RuntimeError, match="disk on fire"):
            make_detection(images=Broken([None] * 7)).report(file)
        assert file.read_bytes() == before


class TestImages:
    """Where the images come from."""

    @pytest.fixture
    def loaded(self, tmp_path):
        make_detection().save(tmp_path / "d")
        return Detection.load(tmp_path / "d")

    def test_a_fresh_detection_has_them(self, fake_model, colours, colour_folder, read_page):
        apart = {"labels": colours.labels, "class_names": colours.names}
        for data, options in ((colours.images, apart), (colour_folder, {})):
            detection = deft_plugin.detect(data, method="label_match", model="fake", **options)
            page = read_page(detection)
            assert len(page.data("page-data")["row"]) == detection.is_label_issue.sum() == 24
            assert None not in page.data("thumbnails-0")

    def test_they_belong_to_a_detection_but_are_no_part_of_its_value(self, loaded):
        assert loaded.images is None
        assert loaded == make_detection()
        assert "images" not in repr(make_detection())
        copied = pickle.loads(pickle.dumps(make_detection(images=[lambda: "no pickle"])))
        assert copied.images is None
        assert copied == make_detection()
        assert dataclasses.replace(make_detection(), method="gmm").images is not None

    def test_a_loaded_detection_needs_them(self, loaded, tmp_path):
        with pytest.raises(InputError, match=r"data that were judged.*Pass them as data="):
            loaded.report(tmp_path / "x.html")
        assert not (tmp_path / "x.html").exists()

    def test_they_can_be_passed(self, loaded, tmp_path):
        data = make_photos(7).images
        data[4] = None
        expected = make_detection(images=read_image_data(data, loaded.given_labels, loaded.class_names).images)
        page = expected.report(tmp_path / "x.html").read_bytes()
        pairs = list(zip(data, range(7), strict=True))
        for given in (data, tuple(data), pairs, read_image_data(data, loaded.given_labels, loaded.class_names)):
            assert loaded.report(tmp_path / "y.html", given).read_bytes() == page

    @pytest.mark.parametrize("label_column", [None, "label", "other"])
    def test_as_a_hugging_face_data_set(self, loaded, tmp_path, label_column, parse_page):
        data = make_photos(7).images
        data[4] = None
        names = ClassLabel(names=list(loaded.class_names))
        features = Features({"photo": ImageFeature(), "label": names, "other": names})
        rows = {"photo": data, "label": loaded.given_labels, "other": loaded.given_labels}
        dataset = Dataset.from_dict(rows, features=features)
        detection = dataclasses.replace(loaded, label_column=label_column)
        page = parse_page(detection.report(tmp_path / "y.html", dataset).read_text(encoding="utf-8"))
        assert page.data("page-data")["row"] == [2, 5, 1, 3, 4]

    def test_other_images_are_refused(self, loaded, tmp_path):
        images = make_photos(7).images
        other = [*images[:5], images[6], images[5]]
        for data, words in (
            (images[:6], "there are 6 rows instead of 7"),
            (read_image_data(images[:6], [0, 1, 2, 0, 1, 2]), "there are 6 rows instead of 7"),
            (other, "row 5 has another image"),
            ([*images[:2], None, *images[3:]], "row 2 can no longer be read"),
            (images, "row 4 can be read now"),
        ):
            with pytest.raises(InputError, match=f"data that were judged, in the same order, but {words}. Pass those"):
                loaded.report(tmp_path / "x.html", data)
        with pytest.raises(InputError, match=r"Expected data as a datasets\.Dataset.*but got int"):
            loaded.report(tmp_path / "x.html", 7)

    def test_every_image_that_is_shown_is_checked(self, loaded, tmp_path):
        """Those that are not shown need not be."""
        for row in range(7):
            images: list = make_photos(7).images
            images[4] = None
            images[row] = Image.new("RGB", (40, 30))
            if loaded.is_label_issue[row]:
                with pytest.raises(InputError, match=rf"row {row} (has another image|can be read now)"):
                    loaded.report(tmp_path / "x.html", images)
                assert not (tmp_path / "x.html").exists()
            else:
                loaded.report(tmp_path / "y.html", images)

    def test_other_labels_are_refused(self, loaded, tmp_path):
        images: list = make_photos(7).images
        images[4] = None
        labels = loaded.given_labels.copy()
        labels[6] = 0
        with pytest.raises(InputError, match="row 6 has another label"):
            loaded.report(tmp_path / "x.html", read_image_data(images, labels, loaded.class_names))
        names = ("fish", "dog", "cat")  # in another order, and the same by name
        renamed = [names.index(loaded.class_names[label]) for label in loaded.given_labels]
        loaded.report(tmp_path / "x.html", read_image_data(images, renamed, names))

    def test_without_digests_only_their_number_is_known(self, tmp_path):
        detection = make_detection(image_digests=None, images=None)
        assert detection.report(tmp_path / "x.html", make_photos(7).images).exists()
        with pytest.raises(InputError, match="there are 8 rows instead of 7"):
            detection.report(tmp_path / "x.html", make_photos(8).images)

    def test_no_image_can_be_read(self, read_page):
        unread = {
            "is_label_issue": np.ones(7, bool),
            "is_image_issue": np.ones(7, bool),
            "label_quality": np.zeros(7),
            "predicted_labels": np.full(7, -1),
            "image_digests": np.zeros((7, 16), np.uint8),
        }
        page = read_page(make_detection(**unread, images=None), data=[None] * 7)
        assert page.data("thumbnails-0") == [None] * 7
        assert re.search(r"Unreadable images\s*7", page.all("dl")[0]["text"])
