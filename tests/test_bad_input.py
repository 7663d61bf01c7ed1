"""One table of what users get wrong, and of what looks wrong and is not.

A row is a name, what is done (with an empty folder to work in), the error, and words that its message must
have; without an error, what is done must work.
"""

from __future__ import annotations

import io
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import deft_plugin
from deft_plugin.backbones.open_clip import load_open_clip
from deft_plugin.data.labels import check_pred_probs
from deft_plugin.data.reading import read_image_data
from deft_plugin.errors import (
    DeftError,
    DuplicateNameError,
    InputError,
    MissingWeightsError,
    UnknownNameError,
    UnreadableImageError,
)
from deft_plugin.plugins import Plugins, build_plugin_manager, load_plugins

PHOTO = Image.effect_noise((48, 32), 40).convert("RGB")
PHOTOS = [PHOTO, PHOTO, PHOTO]
NAMES = ["cat", "dog", "fish"]


class Case(NamedTuple):
    name: str
    run: Callable[[Path], Any]
    error: type[Exception] | None = None
    words: tuple[str, ...] = ()


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def labels(values: Any, class_names: Any = None) -> Callable[[Path], Any]:
    return lambda folder: read_image_data(PHOTOS, labels=values, class_names=class_names)


def files(content: dict[str, bytes]) -> Callable[[Path], Any]:
    """Read a folder with these files, and all images in it."""

    def run(folder: Path) -> Any:
        for name, data in content.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        images = read_image_data(folder).images
        return [images.load(row) for row in range(len(images))]

    return run


def photo(data: bytes) -> Callable[[Path], Any]:
    """Read a folder whose second image is this one."""
    return files({"cat/1.png": encode(PHOTO), "dog/2.png": data})


def hf(**columns: Any) -> datasets.Dataset:
    features = {name: datasets.Image() for name in columns if name.startswith("image")}
    dataset = datasets.Dataset.from_dict(columns)
    return dataset.cast(datasets.Features({**dataset.features, **features}))


def bomb(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # PHOTO has more, but not twice as many
        return photo(encode(PHOTO))(folder)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(PHOTO, "JPEG", exif=exif)


def detect(labels: Any = (0, 1, 2), data: Any = PHOTOS, **settings: Any) -> Callable[[Path], Any]:
    """Judge three photos with a model that needs no weights, if nothing else is said."""

    def run(folder: Path) -> Any:
        plugins = settings.get("plugins") or load_plugins()
        model = {"model": "tiny", "method": "label_match", "class_names": NAMES, "cache_dir": folder}
        plugins.manager.register(Tiny, name="tiny")
        return deft_plugin.detect(data, labels, **{**model, **settings, "plugins": plugins})

    return run


class TinyModel:
    """Knows nothing: features are what they are."""

    name, fingerprint, feature_dim, logit_scale, has_cone = "tiny", "tiny", 4, 1.0, False

    def to(self, device: str) -> TinyModel:
        return self

    def preprocess(self, image: Image.Image) -> Any:
        return torch.zeros(3, 1, 1)

    def encode_images(self, pixels: Any) -> Any:
        return torch.full((len(pixels), 4), 0.5)

    def encode_texts(self, texts: list[str]) -> Any:
        return torch.eye(4)[: len(texts)]


class Tiny:
    """A plugin with that model."""

    @staticmethod
    @deft_plugin.hookimpl
    def register_backbones(register: Any) -> None:
        register("tiny", lambda name: TinyModel())


def selector(select: Callable[[Any], Any], load: Callable[[], Any] | None = None) -> Plugins:
    """Plugins of which one has the selector "odd"."""

    class Odd:
        pass

    Odd.select = staticmethod(select)
    return registered(odd=load or Odd)


def registered(*plugins: dict[str, Any], **selectors: Any) -> Plugins:
    """Plugins that register these selectors: a dict for each plugin."""
    host = Plugins(build_plugin_manager(), [])
    for number, names in enumerate([*plugins, selectors]):

        @deft_plugin.hookimpl
        def register_selectors(register: Any, names: dict[str, Any] = names) -> None:
            for name, load in names.items():
                register(name, load)

        plugin = types.ModuleType("plugin")
        plugin.register_selectors = register_selectors
        host.manager.register(plugin, name=f"plugin {number}")
    return host


def fail(*_: Any) -> Any:
    raise RuntimeError("no luck")


def model_folder(*names: str) -> Callable[[Path], Any]:
    """Load a folder that holds these files, each an empty JSON object."""

    def run(folder: Path) -> Any:
        (folder / "model").mkdir()
        for name in names:
            (folder / "model" / name).write_text("{}")
        return detect(model=str(folder / "model"))(folder)

    return run


STORED = [{"bytes": encode(PHOTO), "path": None}] * 3

CASES = [
    # Labels
    Case("fewer labels than images", labels([0, 1]), InputError, ("2 labels for 3 images",)),
    Case("more labels than images", labels([0, 1, 2, 0]), InputError, ("4 labels for 3 images",)),
    Case("label out of range", labels([0, 1, 3], NAMES), InputError, ("0 … 2", "row 2 is 3", "3 classes")),
    Case("negative label", labels([0, -1, 1]), InputError, ("row 1 is -1", "count from 0")),
    Case("NaN label", labels([0, float("nan"), 1]), InputError, ("row 1 is missing", "Remove")),
    Case("no label", labels(["cat", None, "dog"]), InputError, ("row 1 is missing", "Remove")),
    Case("fractional label", labels([0, 0.5, 1]), InputError, ("whole numbers", "row 1 is 0.5")),
    Case("one-hot labels", labels(np.eye(3)), InputError, ("(3, 3)", "argmax")),
    Case("label unknown", labels(["cat", "dog", "fsh"], NAMES), InputError, ("row 2", "Did you mean 'fish'")),
    Case("strings and integers", labels(["cat", 1, "dog"]), InputError, ("int, str",)),
    Case("a mask as labels", labels([True, False, True]), InputError, ("booleans", "astype(int)")),
    Case(
        "one class only",
        lambda _: deft_plugin.detect(PHOTOS, [1, 1, 1], class_names=NAMES),
        InputError,
        ("at least two classes", "'dog'"),
    ),
    Case("floats that are whole numbers", labels(np.array([0.0, 2.0, 1.0]))),
    Case("Hugging Face column", lambda _: read_image_data(PHOTOS, hf(label=["a", "b", "a"])["label"])),
    Case("two classes", labels([0, 1, 0], ["cat", "dog"])),
    Case("an empty class", labels([0, 2, 0], NAMES)),
    # Class names
    Case("class name twice", labels([0, 1, 2], ["cat", "dog", "cat"]), InputError, ("'cat'", "more than once")),
    Case("empty class name", labels([0, 1, 2], ["cat", "", "fish"]), InputError, ("class_names[1]", "''")),
    Case("class name no string", labels([0, 1, 2], ["cat", "dog", 3]), InputError, ("class_names[2]", "3")),
    Case("one string as class names", labels([0, 1, 2], "cat"), InputError, ("list of strings", "got str")),
    # Predicted probabilities
    Case("logits", lambda _: check_pred_probs([[3.0, -1.0]], 1, 2), InputError, ("row 0", "softmax")),
    Case("NaN probability", lambda _: check_pred_probs([[np.nan, 1.0]], 1, 2), InputError, ("row 0", "nan")),
    Case(
        "probabilities of fewer classes",
        lambda _: check_pred_probs([[1.0]], 1, 2),
        InputError,
        ("(1, 2)", "(1, 1)"),
    ),
    # Data
    Case("empty list", lambda _: read_image_data([], labels=[]), InputError, ("empty",)),
    Case(
        "empty data set",
        lambda _: read_image_data(hf(image=STORED, label=[0, 1, 2]).select([])),
        InputError,
        ("empty",),
    ),
    Case("images without labels", lambda _: read_image_data(PHOTOS), InputError, ("labels=", "(image, label)")),
    Case("one image", lambda _: read_image_data(PHOTO), InputError, ("got Image", "sequence of images")),
    Case(
        "no such folder",
        lambda folder: read_image_data(folder / "x"),
        InputError,
        ("does not exist", "looked up"),
    ),
    Case("empty folder", read_image_data, InputError, ("folder of class folders", "no folder in it")),
    Case("images outside of class folders", files({"a.png": encode(PHOTO)}), InputError, ("a.png", "Move")),
    Case(
        "class folders without images",
        files({"cat/a.txt": b"", "dog/b.txt": b""}),
        InputError,
        ("none in cat, dog",),
    ),
    Case(
        "no image column",
        lambda _: read_image_data(hf(label=[0, 1])),
        InputError,
        ("column of images", "'label'", "cast_column"),
    ),
    Case(
        "two image columns",
        lambda _: read_image_data(hf(image=STORED, image_2=STORED, label=[0, 1, 2])),
        InputError,
        ("'image', 'image_2'", "image_column="),
    ),
    Case(
        "no label column",
        lambda _: read_image_data(hf(image=STORED)),
        InputError,
        ("column of labels", "'image'"),
    ),
    Case(
        "two label columns",
        lambda _: read_image_data(hf(image=STORED, fine=[0, 1, 2], coarse=[0, 1, 1])),
        InputError,
        ("'fine', 'coarse'", "labels='...'"),
    ),
    Case(
        "unknown label column",
        lambda _: read_image_data(hf(image=STORED, fine=[0, 1, 2]), "fin"),
        InputError,
        ("'fin'", "'fine'"),
    ),
    Case(
        "all splits at once",
        lambda _: read_image_data(datasets.DatasetDict(train=hf(label=[0]))),
        InputError,
        ("DatasetDict", "one split"),
    ),
    Case(
        "streamed data set",
        lambda _: read_image_data(hf(image=STORED, label=[0, 1, 2]).to_iterable_dataset()),
        InputError,
        ("IterableDataset", "streaming"),
    ),
    # Images
    Case(
        "truncated image",
        photo(encode(PHOTO)[:200]),
        UnreadableImageError,
        ("row 1", "dog/2.png", "on_bad_image"),
    ),
    Case(
        "truncated JPEG",
        photo(encode(PHOTO, "JPEG")[:-300]),
        UnreadableImageError,
        ("row 1", "dog/2.png", "truncated"),
    ),
    Case("zero-byte image", photo(b""), UnreadableImageError, ("row 1", "dog/2.png")),
    Case("text instead of an image", photo(b"<html>404</html>"), UnreadableImageError, ("row 1", "dog/2.png")),
    Case("decompression bomb", bomb, UnreadableImageError, ("row 0", "cat/1.png", "decompression bomb")),
    Case(
        "normalised tensors",
        lambda _: read_image_data([np.full((4, 4, 3), -2.0)] * 3, [0, 1, 2]).images.load(1),
        InputError,
        ("row 1", "[0, 1]", "Normalize"),
    ),
    Case("CMYK", photo(encode(PHOTO.convert("CMYK"), "JPEG"))),
    Case("16-bit", photo(encode(Image.fromarray(np.full((4, 4), 40_000, np.uint16))))),
    Case("greyscale", photo(encode(PHOTO.convert("L")))),
    Case("black and white", photo(encode(PHOTO.convert("1")))),
    Case("palette", photo(encode(PHOTO.convert("P")))),
    Case("alpha", photo(encode(PHOTO.convert("RGBA")))),
    Case("animated", photo(encode(PHOTO, "GIF", save_all=True, append_images=[PHOTO.convert("L")]))),
    Case("EXIF-rotated", photo(rotated())),
    # Models
    Case(
        "unknown model",
        detect(model="brigde-lite0"),
        UnknownNameError,
        ("Unknown backbone 'brigde-lite0'", "Did you mean 'bridge-lite0'", "open_clip", "tiny"),
    ),
    Case("no name of a model", detect(model=""), UnknownNameError, ("Unknown backbone ''", "bridge-lite0")),
    Case(
        "unknown architecture",
        detect(model="ViT-B-61/openai"),
        UnknownNameError,
        ("architecture 'ViT-B-61'", "Did you mean 'ViT-B-16"),
    ),
    Case(
        "unknown weights",
        detect(model="ViT-B-16/opnai"),
        UnknownNameError,
        ("weights 'opnai'", "'ViT-B-16'", "Did you mean 'openai'"),
    ),
    Case("empty model folder", model_folder(), MissingWeightsError, ("open_clip_config.json", "hf download")),
    Case(
        "model folder without weights",
        model_folder("open_clip_config.json"),
        MissingWeightsError,
        ("Expected weights in", "open_clip_model.safetensors", "there are none", "hf download"),
    ),
    Case(
        "model that writes captions",
        lambda _: load_open_clip("coca_ViT-B-32/laion2b_s13b_b90k"),
        InputError,
        ("a CoCa", "'ViT-B-16/openai'"),
    ),
    # Methods
    Case(
        "unknown method",
        detect(method="labelmatch"),
        UnknownNameError,
        ("Unknown selector 'labelmatch'", "Did you mean 'label_match'", "confident_learning", "small_loss"),
    ),
    Case(
        "unknown tuning",
        detect(method="deft", tuning="frozne"),
        UnknownNameError,
        ("Unknown tuning 'frozne'", "Did you mean 'frozen'", "auto"),
    ),
    Case(
        "images needed, but only probabilities",
        detect(data=None, pred_probs=np.eye(3)),
        InputError,
        ("Expected data (images)", "'confident_learning'"),
    ),
    Case("nothing at all", detect(None, None), InputError, ("Expected data (images)", "got neither")),
    Case(
        "probabilities without labels",
        detect(None, None, pred_probs=np.eye(3), method="confident_learning"),
        InputError,
        ("labels", "NoneType"),
    ),
    Case(
        "probabilities of fewer rows",
        detect(data=None, pred_probs=np.eye(3)[:2], method="confident_learning"),
        InputError,
        ("pred_probs of shape (3, 3)", "got (2, 3)"),
    ),
    Case(
        "probabilities of more classes",
        detect(pred_probs=np.full((3, 4), 0.25)),
        InputError,
        ("pred_probs of shape (3, 3)", "got (3, 4)"),
    ),
    Case(
        "probabilities that do not sum to 1",
        detect(data=None, pred_probs=np.ones((3, 3)), method="confident_learning"),
        InputError,
        ("row 0", "softmax"),
    ),
    Case("noise ratio in percent", detect(noise_ratio=40), InputError, ("noise_ratio in [0, 1)", "0.4 for 40 %")),
    Case("no batch", detect(batch_size=0), InputError, ("batch_size of at least 1", "got 0")),
    Case("a method that works", detect()),
    # Plugins
    Case(
        "two plugins with one name",
        detect(method="odd", plugins=registered({"odd": fail}, {"odd": fail})),
        DuplicateNameError,
        ("'odd'", "'plugin 0'", "'plugin 1'", "Rename"),
    ),
    Case(
        "plugin that raises",
        detect(method="odd", plugins=selector(fail)),
        DeftError,
        ("Selector 'odd' failed", "RuntimeError: no luck"),
    ),
    Case(
        "plugin that gives nothing",
        detect(method="odd", plugins=selector(lambda run: None)),
        DeftError,
        ("'odd' gave", "is_clean of shape (3,), bool"),
    ),
    Case(
        "plugin that gives too little",
        detect(
            method="odd",
            plugins=selector(
                lambda run: deft_plugin.Selection(
                    is_clean=np.ones(2, bool), label_quality=np.ones(3), predicted_labels=run.labels
                )
            ),
        ),
        DeftError,
        ("'odd' gave", "is_clean of shape (3,), bool", "(2,)"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_gets_a_clear_error(case, tmp_path):
    if case.error is None:
        assert case.run(tmp_path) is not None
        return
    with pytest.raises(case.error) as caught:
        case.run(tmp_path)
    message = str(caught.value)
    for word in case.words:
        assert word in message
    assert "\n" not in message
