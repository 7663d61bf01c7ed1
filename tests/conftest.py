"""A model without weights for all tests, and plugins that are installed for one test."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
import types
import zlib
from dataclasses import dataclass
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from deft_plugin import hookimpl
from deft_plugin.backbones.bridge import BridgeBackbone
from deft_plugin.backbones.open_clip import OpenClipBackbone

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200), "yellow": (200, 200, 60)}
NAMES = tuple(COLOURS)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
VOID_TAGS = ("meta", "link", "img", "input", "wbr")
# What a headless browser does at home: it must not ask the network for anything.
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@dataclass(frozen=True)
class FakeTokens:
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    num_tokens = num_classes
    text_path = "general"


class FakeBackbone:
    """Sees colours and reads their names: image features are colours on a 2 x 2 grid."""

    feature_dim = 12
    context_dim = 4
    context_std = 0.02
    logit_scale = 10.0
    has_cone = False

    def __init__(self, name="fake"):
        self.name = name
        self.fingerprint = f"{name}-1"
        self.encoded_batches = []
        self._carry = torch.randn(self.context_dim, self.feature_dim, generator=torch.Generator().manual_seed(0))

    def to(self, device):
        return self

    def preprocess(self, image):
        return torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1).float() / 255

    def encode_images(self, pixels):
        self.encoded_batches.append(len(pixels))
        return F.normalize(F.avg_pool2d(pixels.float(), 4).flatten(1), dim=-1)

    def encode_texts(self, texts):
        return torch.stack([self._text(text) for text in texts])

    def tokenize_prompts(self, class_names, n_ctx):
        return FakeTokens(tuple(class_names))

    def encode_prompts(self, tokens, context):
        texts = torch.stack([self._text(name) for name in tokens.class_names])
        return F.normalize(texts + 0.1 * context.float().mean(0) @ self._carry, dim=-1)

    def _text(self, text):
        """The colour that the text names, less grey; a vector of its own for any other text."""
        for name, colour in COLOURS.items():
            if name in text:
                cell = torch.tensor(colour).float() / 255 - 0.4
                return F.normalize(cell.repeat_interleave(4), dim=0)
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return F.normalize(torch.randn(self.feature_dim, generator=generator), dim=0)


def paint(colour, rng):
    """A photo of a colour, a little blotched; no two are the same."""
    pixels = np.array(COLOURS[colour]) + rng.normal(0, 30, (8, 8, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


class Colours(types.SimpleNamespace):
    """Images with given labels, some of them wrong.

    Attributes: images (list), truth, labels (arrays of int), names (tuple), is_wrong (array of bool).
    """


def make_colours(num_examples=120, num_classes=3, noise_ratio=0.2, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.arange(num_examples) % num_classes
    is_wrong = np.zeros(num_examples, bool)
    is_wrong[rng.permutation(num_examples)[: round(noise_ratio * num_examples)]] = True
    labels = np.where(is_wrong, (truth + rng.integers(1, num_classes, num_examples)) % num_classes, truth)
    images = [paint(NAMES[label], rng) for label in truth]
    return Colours(images=images, truth=truth, labels=labels, names=NAMES[:num_classes], is_wrong=is_wrong)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Threads that share tiny tensors wait for each other most of the time."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _float32():
    """Whatever this CPU computes fastest: no assertion depends on the machine."""
    from deft_plugin.compute.precision import use_precision

    with use_precision("float32"):
        yield


@pytest.fixture
def colours():
    return make_colours()


@pytest.fixture(scope="session")
def colour_maker():
    return make_colours


@pytest.fixture
def install(monkeypatch):
    """Install plugins for one test: ``install(name=module_or_callable)``, through the real entry-point group.

    A callable is called when the plugin is imported.
    """
    found, extra = importlib.metadata.entry_points, []

    def entry_points(**params):
        points = found(**params)
        return [*points, *extra] if params == {"group": "deft_plugin"} else points

    def add(**plugins):
        for name, plugin in plugins.items():
            module = f"{name}_module"
            if callable(plugin):
                extra.append(_Raising(name, plugin))
                continue
            monkeypatch.setitem(sys.modules, module, plugin)
            extra.append(importlib.metadata.EntryPoint(name, module, "deft_plugin"))

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return add


class _Raising:
    """An entry point that does what it is told when it is loaded."""

    def __init__(self, name, load):
        self.name, self.value, self.load = name, f"{name}_module", load


@pytest.fixture(scope="session")
def make_plugin():
    """Make a plugin module: ``make_plugin(register_selectors=function, ...)``."""

    def make(**hooks):
        module = types.ModuleType("plugin_of_a_test")
        for name, hook in hooks.items():
            setattr(module, name, hookimpl(hook))
        return module

    return make


@pytest.fixture
def fake_model(install, make_plugin, monkeypatch, tmp_path_factory):
    """Install a plugin with the backbone "fake"; gives the backbones that were loaded."""
    loaded = []

    def load(name):
        loaded.append(FakeBackbone(name))
        return loaded[-1]

    def register_backbones(register):
        register("fake", load, summary="sees colours")

    install(fake=make_plugin(register_backbones=register_backbones))
    monkeypatch.setenv("DEFT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    return loaded


@pytest.fixture(scope="session")
def fake_backbone():
    return FakeBackbone


@pytest.fixture
def colour_folder(colours, tmp_path):
    """A folder of class folders with the given labels of `colours`; row order is by class, then file."""
    root = tmp_path / "photos"
    for row, (image, label) in enumerate(zip(colours.images, colours.labels, strict=True)):
        folder = root / colours.names[label]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{row:03d}.png")
    return root


@pytest.fixture(scope="session")
def clip_tokenizer():
    """CLIP's own; reading its vocabulary takes a while."""
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()


@pytest.fixture(scope="session")
def tiny_backbone(clip_tokenizer):
    """Builder of a random open_clip model: a ViT of 3 blocks at 32 pixels."""
    import open_clip

    def build(*, kind="clip", seed=0, **vision):
        kinds = {"clip": open_clip.CLIP, "custom": open_clip.CustomTextCLIP}
        sizes = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8, **vision}
        text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = kinds[kind](24, sizes, text)
            for parameter in model.parameters():  # a fresh model gives all texts nearly the same feature
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        return OpenClipBackbone(model, _to_pixels, clip_tokenizer, name="tiny", fingerprint=f"tiny {seed}")

    return build


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory):
    """An open_clip folder with a small random ViT, for processes of their own."""
    import open_clip
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("model")
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = open_clip.CLIP(**config).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, root / "open_clip_model.safetensors")
    (root / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return root


def _to_pixels(image):
    pixels = np.asarray(image.convert("RGB").resize((32, 32)), np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


@pytest.fixture(scope="session")
def tiny_bridge():
    """Builder of the embedded model's image tower with random weights, and no text tower."""
    import timm

    def build():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            tower = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        return BridgeBackbone(tower, torch.nn.Identity(), None)

    return build


class Page(HTMLParser):
    """Elements of an HTML page with their attributes, the text inside of them, and the anchor of their section."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.section = [], [], None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.section = element.get("aria-labelledby") if tag == "section" else self.section
        self.elements.append({**element, "section": self.section})
        if tag not in VOID_TAGS:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        if tag not in VOID_TAGS:
            assert self.open.pop()["tag"] == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **attributes):
        found = [each for each in self.elements if each["tag"] == tag]
        return [each for each in found if all(each.get(name) == value for name, value in attributes.items())]

    def data(self, name):
        (element,) = self.all("script", id=name)
        return json.loads(element["text"])


@pytest.fixture(scope="session")
def parse_page():
    """Parser of an HTML page; elements that are not closed in order are an error."""
    return Page


def missing_browser():
    """Say what is missing; None if there is all that these tests need."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError as error:
        return f"playwright cannot be imported: {error}"
    return None if any(map(shutil.which, BROWSERS)) else f"no browser, none of {', '.join(BROWSERS)}"


@pytest.fixture(scope="module")
def browser():
    """A browser for tests of pages; they are skipped if there is none."""
    if reason := missing_browser():
        if os.environ.get("DEFT_REQUIRE_BROWSER"):
            pytest.fail(f"{reason}, but DEFT_REQUIRE_BROWSER is set")
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        executable = next(filter(None, map(shutil.which, BROWSERS)))
        launched = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield launched
        launched.close()
