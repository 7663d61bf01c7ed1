"""A trained detector on Hugging Face data sets and streams."""

from __future__ import annotations

import io
import pickle

import datasets
import numpy as np
import pytest
from datasets.fingerprint import Hasher
from PIL import Image
from torch.utils.data import DataLoader

from deft_plugin import Deft, Detector, FinetuneSettings, detect
from deft_plugin.data import images
from deft_plugin.deft.streaming import COLUMNS, BatchScorer
from deft_plugin.errors import InputError, UnreadableImageError
from deft_plugin.settings import FrozenSettings

NAMES = ["cat", "dog", "sea"]
COLOURS = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200)])


def photos(size=60, seed=0, names=NAMES):
    """Images of three colours as a Hugging Face data set; every fifth label is wrong."""
    generator = np.random.default_rng(seed)
    truth = np.arange(size) % 3
    labels = np.where(np.arange(size) % 5 == 0, (truth + 1) % 3, truth)
    pixels = np.clip(COLOURS[truth][:, None, None] + generator.normal(0, 30, (size, 32, 32, 3)), 0, 255)
    encoded = []
    for image in pixels.astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(names)))
    labels = [names.index(NAMES[label]) for label in labels]
    return datasets.Dataset.from_dict({"image": encoded, "label": labels}, features=features)


@pytest.fixture(autouse=True)
def _tiny(install, make_plugin, tiny_backbone, monkeypatch, tmp_path):
    def register_backbones(register):
        register("tiny", lambda _name: tiny_backbone(), summary="small and random")

    install(tiny=make_plugin(register_backbones=register_backbones))
    monkeypatch.setenv("DEFT_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trained(tiny_backbone, tmp_path_factory):
    """Detectors by tuning."""
    from deft_plugin.hookspecs import hookimpl
    from deft_plugin.plugins import Plugins, build_plugin_manager

    class Tiny:
        @hookimpl
        def register_backbones(self, register):
            register("tiny", lambda _name: tiny_backbone())

    manager = build_plugin_manager()
    manager.register(Tiny())
    found = {}
    for tuning in ("frozen", "lora", "vpt_deep"):
        deft = Deft(
            frozen=FrozenSettings(n_ctx=4, epochs=6), finetune=FinetuneSettings(n_ctx=4, epochs=4, warmup_epochs=3)
        )
        cache = tmp_path_factory.mktemp("cache")
        plugins = Plugins(manager, [])
        detect(photos(), method=deft, tuning=tuning, model="tiny", device="cpu", plugins=plugins, cache_dir=cache)
        found[tuning] = deft.trained
    return found


@pytest.fixture(params=["frozen", "lora", "vpt_deep"])
def detector(request, trained):
    return trained[request.param]


def expected(detector, data):
    found = detector.score(data, device="cpu")
    return found.label_quality, found.is_label_issue, [found.class_names[k] for k in found.predicted_labels]


def check(rows, detector, data):
    quality, is_issue, predicted = expected(detector, data)
    rows = list(rows)
    np.testing.assert_allclose([row["label_quality"] for row in rows], quality, atol=5e-3)  # ours are kept as float16
    sure = np.abs(quality - 0.5) > 0.01
    np.testing.assert_array_equal(np.array([row["is_label_issue"] for row in rows])[sure], is_issue[sure])
    assert np.mean([row["predicted_label"] == name for row, name in zip(rows, predicted, strict=True)]) > 0.95
    assert {*COLUMNS, "image", "label"} == set(rows[0])
    assert isinstance(rows[0]["image"], Image.Image)


def test_a_data_set(detector):
    data = photos(seed=1)
    scored = detector.add_columns(data, device="cpu", batch_size=16)
    check(scored, detector, data)
    assert scored.features["image"] == data.features["image"]
    assert [row["bytes"] for row in scored.cast_column("image", datasets.Image(decode=False))["image"]] == [
        row["bytes"] for row in data.cast_column("image", datasets.Image(decode=False))["image"]
    ], "images are not encoded again"


def test_a_stream(detector):
    data = photos(seed=1)
    check(detector.add_columns(data.to_iterable_dataset(), device="cpu", batch_size=7), detector, data)


def test_a_stream_in_a_loader_with_two_workers(trained):
    data = photos(seed=1)
    stream = trained["frozen"].add_columns(data.to_iterable_dataset(num_shards=2), device="cpu")
    loader = DataLoader(stream.remove_columns(["image"]), batch_size=None, num_workers=2)
    quality = expected(trained["frozen"], data)[0]
    np.testing.assert_allclose(sorted(row["label_quality"] for row in loader), sorted(quality), atol=5e-3)


def test_splits(trained):
    data = {"train": photos(seed=1), "test": photos(30, seed=2)}
    detector = trained["frozen"]
    for splits in (
        datasets.DatasetDict(data),
        datasets.IterableDatasetDict({name: part.to_iterable_dataset() for name, part in data.items()}),
    ):
        scored = detector.add_columns(splits, device="cpu")
        assert type(scored) is type(splits)
        for name, part in data.items():
            check(scored[name], detector, part)


def test_classes_are_recognised_by_name(trained):
    """In another order, and with one more that no row has."""
    data, turned = photos(seed=1), photos(seed=1, names=["sea", "lamp", "cat", "dog"])
    detector = trained["frozen"]
    np.testing.assert_allclose(
        detector.add_columns(turned, device="cpu")["label_quality"],
        detector.add_columns(data, device="cpu")["label_quality"],
    )
    found = detector.score(turned, device="cpu")
    np.testing.assert_allclose(found.label_quality, detector.score(data, device="cpu").label_quality)
    assert found.class_names == tuple(NAMES)
    names = data.cast_column("label", datasets.Value("int64")).map(lambda row: {"label": NAMES[row["label"]]})
    np.testing.assert_allclose(
        detector.add_columns(names, device="cpu")["label_quality"],
        detector.add_columns(data, device="cpu")["label_quality"],
    )


def test_a_class_that_it_does_not_know(trained):
    data = photos(seed=1, names=[*NAMES, "lamp"])
    labels = list(data["label"])
    labels[4] = 3
    data = data.remove_columns("label").add_column("label", labels, feature=data.features["label"])
    with pytest.raises(InputError, match=r"trained on \(3: cat, dog, sea …\), but got lamp"):
        trained["frozen"].score(data, device="cpu")
    with pytest.raises(InputError, match="but got lamp"):
        trained["frozen"].add_columns(data, device="cpu")


def test_features_that_were_computed_before(trained, tiny_backbone):
    from deft_plugin.data.reading import read_image_data
    from deft_plugin.runs.features import compute_image_features

    data, detector = photos(seed=1), trained["frozen"]
    features = compute_image_features(tiny_backbone(), read_image_data(data).images).features
    stored = datasets.Dataset.from_dict({"features": features.astype(np.float32), "label": data["label"]})
    stored = stored.cast_column("label", data.features["label"])
    scored = detector.add_columns(stored, feature_column="features")
    np.testing.assert_allclose(scored["label_quality"], expected(detector, data)[0], atol=1e-6)
    with pytest.raises(InputError, match=r"frozen encoder for features.*'lora'.*images"):
        trained["lora"].add_columns(stored, feature_column="features")


class TestBadInput:
    def broken(self):
        rows = photos(10).with_format("arrow")[:].to_pylist()
        rows[3]["image"]["bytes"] = b"nonsense"
        return datasets.Dataset.from_list(rows, features=photos(1).features)

    def test_an_unreadable_image(self, trained):
        with pytest.raises(UnreadableImageError):
            trained["frozen"].add_columns(self.broken(), device="cpu")

    def test_flagged(self, trained):
        scored = trained["frozen"].add_columns(self.broken(), device="cpu", on_bad_image="flag", batch_size=1)
        scored = scored.remove_columns("image")
        assert scored[3] == {**scored[3], "label_quality": 0.0, "is_label_issue": True, "predicted_label": None}
        assert [row["predicted_label"] is None for row in scored] == [row == 3 for row in range(10)]

    def test_columns_that_are_not_there(self, trained):
        with pytest.raises(InputError, match=r"Expected a column 'label', but got image, y.*label_column"):
            BatchScorer(trained["frozen"], device="cpu")({"image": [], "y": []})

    def test_a_stream_that_does_not_know_its_columns(self, trained):
        stream = datasets.IterableDataset.from_generator(lambda: iter(photos(12)))
        with pytest.raises(InputError, match="image_column and label_column"):
            trained["frozen"].add_columns(stream)
        scored = trained["frozen"].add_columns(stream, image_column="image", label_column="label", device="cpu")
        assert len(list(scored)) == 12

    def test_other_data(self, trained):
        with pytest.raises(InputError, match="but got list"):
            trained["frozen"].add_columns([1])

    def test_settings(self, trained):
        with pytest.raises(InputError, match="'raise' or 'flag'"):
            BatchScorer(trained["frozen"], on_bad_image="drop")
        with pytest.raises(ValueError, match="Unknown precision"):
            BatchScorer(trained["frozen"], precision="int8")


def test_the_hash_is_that_of_what_was_trained(detector, trained, tmp_path):
    scorer = BatchScorer(detector, device="cpu")
    before = Hasher.hash(scorer)
    scorer({"image": photos(2)["image"][:], "label": [0, 1]})
    detector.save(tmp_path / "d.safetensors")
    again = BatchScorer(Detector.load(tmp_path / "d.safetensors"), device="cpu")
    assert Hasher.hash(scorer) == Hasher.hash(pickle.loads(pickle.dumps(scorer))) == Hasher.hash(again) == before
    assert len({Hasher.hash(BatchScorer(other)) for other in trained.values()}) == 3


def test_one_image_is_read_once(trained, monkeypatch):
    reads = []
    read = images.read_image
    monkeypatch.setattr("deft_plugin.deft.streaming.read_image", lambda image: reads.append(image) or read(image))
    trained["frozen"].add_columns(photos(20), device="cpu", batch_size=8)
    assert len(reads) == 20
