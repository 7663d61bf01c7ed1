"""A trained detector on other images, and from its file."""

import numpy as np
import pytest
import torch
from PIL import Image

from deft_plugin import Deft, Detector, FinetuneSettings, detect
from deft_plugin.errors import InputError
from deft_plugin.settings import FrozenSettings

COLOURS = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200)])
NAMES = ("cat", "dog", "sea")


def photos(size, seed):
    """Images of three colours; every fifth label is wrong."""
    generator = np.random.default_rng(seed)
    truth = np.arange(size) % 3
    labels = np.where(np.arange(size) % 5 == 0, (truth + 1) % 3, truth)
    pixels = np.clip(COLOURS[truth][:, None, None] + generator.normal(0, 30, (size, 32, 32, 3)), 0, 255)
    return [Image.fromarray(image.astype(np.uint8)) for image in pixels], labels, labels != truth


@pytest.fixture(scope="module")
def plugins(tiny_backbone):
    from deft_plugin.hookspecs import hookimpl
    from deft_plugin.plugins import Plugins, build_plugin_manager

    class Tiny:
        @hookimpl
        def register_backbones(self, register):
            register("tiny", lambda _name: tiny_backbone())
            register("other", lambda _name: tiny_backbone(seed=1))

    manager = build_plugin_manager()
    manager.register(Tiny())
    return Plugins(manager, [])


def train(tuning, plugins, cache_dir):
    images, labels, _ = photos(90, 0)
    deft = Deft(
        frozen=FrozenSettings(n_ctx=4, epochs=6),
        finetune=FinetuneSettings(n_ctx=4, epochs=8, warmup_epochs=6, batch_size=16),
    )
    arguments = {"class_names": NAMES, "model": "tiny", "device": "cpu", "plugins": plugins, "cache_dir": cache_dir}
    detection = detect(images, labels, method=deft, tuning=tuning, **arguments)
    return deft.trained, detection


@pytest.fixture(scope="module", params=["frozen", "vpt_deep", "lora", "bitfit"])
def trained(request, plugins, tmp_path_factory):
    return train(request.param, plugins, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def score(plugins, tmp_path):
    def run(detector, size=40, seed=1, **settings):
        images, labels, is_wrong = photos(size, seed)
        found = detector.score(
            images, labels, **{"plugins": plugins, "device": "cpu", "cache_dir": tmp_path, "model": "tiny", **settings}
        )
        return found, is_wrong

    return run


def test_judges_new_images(trained, score):
    found, is_wrong = score(trained[0])
    assert len(found) == 40
    assert found.label_quality[~is_wrong].mean() > found.label_quality[is_wrong].mean() + 0.2


def test_saved_and_loaded_it_says_the_same(trained, score, tmp_path):
    file = tmp_path / "x" / "detector.safetensors"
    trained[0].save(file)
    again = Detector.load(file)
    assert again.class_names == NAMES
    np.testing.assert_array_equal(score(again)[0].label_quality, score(trained[0])[0].label_quality)


def test_training_images_are_judged_as_in_training(trained, score):
    """With an encoder that was trained on them; frozen tuning judges by folds that have not seen the example."""
    detector, detection = trained
    found, _ = score(detector, size=90, seed=0)
    if detector.tuning == "frozen":
        assert (found.is_label_issue == detection.is_label_issue).mean() > 0.8
    else:
        np.testing.assert_allclose(found.label_quality, detection.label_quality, atol=0.02)


def test_one_image_alone(trained, score):
    found, _ = score(trained[0], size=1)
    assert len(found) == 1


def test_another_model(trained, score):
    with pytest.raises(InputError, match=r"Expected the model that the detector was trained on, 'tiny'.*model='tiny'"):
        score(trained[0], model="other")


def test_other_classes(trained, plugins, tmp_path):
    images, labels, _ = photos(12, 0)
    with pytest.raises(InputError, match=r"Expected the classes of the training data.*detector\.score"):
        detect(
            images,
            labels,
            class_names=NAMES[::-1],
            method=trained[0],
            model="tiny",
            device="cpu",
            plugins=plugins,
            cache_dir=tmp_path,
        )


def test_a_checkpoint_is_no_detector(tmp_path):
    from deft_plugin.compute.checkpoints import save_tensors

    save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"epoch": 1})
    with pytest.raises(InputError, match=r"that Detector\.save wrote, but .*x\.safetensors is another one"):
        Detector.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("version", "advice"), [(None, "format none. Train anew"), (99, "format 99. Update deft-plugin")]
)
def test_another_format_is_refused(trained, tmp_path, version, advice):
    from deft_plugin.compute.checkpoints import load_tensors, save_tensors

    file = tmp_path / "x.safetensors"
    trained[0].save(file)
    tensors, state = load_tensors(file)
    del state["format_version"]
    save_tensors(file, tensors, state if version is None else {**state, "format_version": version})
    with pytest.raises(InputError, match=rf"Expected a detector of format 1, but .*x\.safetensors has {advice}"):
        Detector.load(file)
