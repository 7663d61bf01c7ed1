"""Small random open_clip models: what their own ``encode_text`` says is the reference for prompts."""

import copy
import dataclasses
import functools
import json
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
import transformers
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transformer import QuickGELU, TextTransformer
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from deft_plugin.backbones import open_clip as backbones
from deft_plugin.backbones import open_clip_sources as sources
from deft_plugin.backbones.open_clip import OpenClipBackbone, load_open_clip
from deft_plugin.backbones.open_clip_sources import is_open_clip_name
from deft_plugin.errors import InputError, MissingWeightsError, UnknownNameError

VISION = {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1}
TEXT = {"width": 32, "heads": 2, "layers": 2}
NAMES = ["cat", "guinea_pig", "dog"]
REAL_TEXTS = ["a photo of a cat.", "a photo of a guinea pig.", "a photo of a dog."]
VOCABULARY = ["a", "photo", "of", "cat", "guinea", "pig", "dog", "."]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that share tiny tensors wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def bpe():
    """CLIP's own tokenizer; reading its vocabulary takes a while."""
    return SimpleTokenizer()


def preprocess(image):
    return torch.from_numpy(np.array(image.resize((16, 16)))).permute(2, 0, 1).float() / 255


def word_tokenizer(folder, *, template, pad="<pad>", first_id=0, byte_level=False, **settings):
    """A transformers tokenizer of whole words, saved and read as open_clip reads one from the hub."""
    specials = {token: first_id + i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>"])}
    words = [*VOCABULARY, *(f"Ġ{word}" for word in VOCABULARY)] if byte_level else VOCABULARY
    vocabulary = {**specials, **{word: first_id + 4 + i for i, word in enumerate(words)}}
    words_to_ids = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    split = pre_tokenizers.ByteLevel(add_prefix_space=False) if byte_level else pre_tokenizers.Whitespace()
    words_to_ids.pre_tokenizer = split
    words_to_ids.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(specials.items()))
    PreTrainedTokenizerFast(
        tokenizer_object=words_to_ids,
        pad_token=pad,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    return HFTokenizer(str(folder), **{"context_length": 32, **settings})


def spread(model):
    """Scale the weights up: a freshly initialised tower gives all texts nearly the same feature."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model.eval()


def clip(tokenizer, **text):
    return spread(open_clip.CLIP(24, VISION, {**TEXT, **text})), tokenizer


def custom(tokenizer, **text):
    return spread(open_clip.CustomTextCLIP(24, VISION, {**TEXT, **text})), tokenizer


def transformer(tokenizer, **settings):
    """A CustomTextCLIP with settings of TextTransformer that a configuration file cannot express."""
    model, _ = custom(tokenizer)
    model.text = TextTransformer(**TEXT, output_dim=24, **settings)
    return spread(model), tokenizer


def hugging_face(tokenizer, config, pooler, **settings):
    model, _ = custom(tokenizer)
    model.text = HFTextEncoder("", 24, config=config, pooler_type=pooler, proj_type="mlp", **settings)
    return spread(model), tokenizer


def siglip_words(folder):
    return word_tokenizer(folder, template="$A </s>", pad="</s>", clean="canonicalize")


BERT_WORDS = {"template": "<s> $A </s>"}
SMALL_BERT = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


def bert(folder):
    return hugging_face(
        word_tokenizer(folder, **BERT_WORDS),
        transformers.BertConfig(**SMALL_BERT, pad_token_id=0),
        "cls_pooler",
    )


def roberta(folder):
    return hugging_face(
        word_tokenizer(folder, **BERT_WORDS, byte_level=True),
        transformers.RobertaConfig(**SMALL_BERT, pad_token_id=0),
        "mean_pooler",
    )


def mt5(folder):
    config = transformers.MT5Config(
        vocab_size=40, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, pad_token_id=0
    )
    model, tokenizer = hugging_face(word_tokenizer(folder, template="$A </s>"), config, "mean_pooler")
    model.text.transformer = model.text.transformer.encoder  # as HFTextEncoder does with a model of the hub
    return model, tokenizer


def nllb(folder):
    config = transformers.M2M100Config(
        vocab_size=40,
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        max_position_embeddings=40,
        pad_token_id=0,
    )
    model, tokenizer = hugging_face(word_tokenizer(folder, **BERT_WORDS), config, "cls_pooler")
    model.text.transformer = model.text.transformer.encoder
    return model, tokenizer


MODELS = {
    "clip": lambda _: clip(bpe()),
    "clip eos, projection with bias": lambda folder: clip(
        word_tokenizer(folder, **BERT_WORDS), pool_type="eos", eos_id=2, proj_bias=True, context_length=32
    ),
    "CLIPA: both directions, no end token": lambda folder: clip(
        word_tokenizer(folder, **BERT_WORDS, strip_sep_token=True),
        pool_type="last",
        no_causal_mask=True,
        context_length=32,
    ),
    "custom": lambda _: custom(bpe()),
    "custom eos": lambda folder: custom(
        word_tokenizer(folder, **BERT_WORDS), pool_type="eos", eos_id=2, context_length=32
    ),
    "custom last, causal": lambda _: custom(bpe(), pool_type="last"),
    "custom first, both directions": lambda _: custom(bpe(), pool_type="first", no_causal_mask=True),
    "custom without projection": lambda _: custom(bpe(), proj_type="none"),
    "SigLIP: no start token, padded with the end token": lambda folder: custom(
        siglip_words(folder), pool_type="last", no_causal_mask=True, proj_bias=True, context_length=32
    ),
    "class token behind the padding": lambda folder: custom(
        word_tokenizer(folder, **BERT_WORDS, tokenizer_mode="clips"), pool_type="last", context_length=32
    ),
    "padding mask": lambda _: transformer(bpe(), no_causal_mask=True, use_pad_mask=True),
    "class embedding": lambda _: transformer(bpe(), embed_cls=True, correct_cls_mask=True),
    "class embedding, legacy mask": lambda _: transformer(bpe(), embed_cls=True),
    "bert": bert,
    "roberta: words change behind a space": roberta,
    "mt5": mt5,
    "nllb": nllb,
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def any_backbone(request, tmp_path_factory):
    model, tokenizer = request.param(tmp_path_factory.mktemp("tokenizer"))
    return OpenClipBackbone(model, preprocess, tokenizer, name="small")


@pytest.fixture
def backbone():
    model, tokenizer = clip(bpe())
    return OpenClipBackbone(model, preprocess, tokenizer, name="small")


def token_embedding(model):
    text = getattr(model, "text", model)
    return text.transformer.get_input_embeddings() if isinstance(text, HFTextEncoder) else text.token_embedding


def context_of_real_text(backbone, tokens):
    """Embeddings of "a photo of a" in the place of the four context vectors."""
    ids = backbone.tokenizer(REAL_TEXTS[:1])[0]
    return token_embedding(backbone.model)(ids[tokens.context_start : tokens.context_start + 4]).detach()


class TestPrompts:
    def test_with_a_real_text_as_context_it_is_the_model_s_own_encoding(self, any_backbone):
        tokens = any_backbone.tokenize_prompts(NAMES, 4)
        context = context_of_real_text(any_backbone, tokens)
        expected = any_backbone.model.encode_text(any_backbone.tokenizer(REAL_TEXTS), normalize=True)
        torch.testing.assert_close(any_backbone.encode_prompts(tokens, context), expected, rtol=0, atol=1e-5)

        # The comparison can fail: order of the context and class matter far beyond the tolerance.
        assert (any_backbone.encode_prompts(tokens, context.flip(0)) - expected).abs().amax() > 1e-2
        assert (expected[0] - expected[1]).abs().amax() > 1e-2

    def test_gradients_reach_every_context_vector(self, any_backbone):
        tokens = any_backbone.tokenize_prompts(NAMES, 16)
        context = (0.02 * torch.randn(16, any_backbone.context_dim)).requires_grad_()
        features = any_backbone.encode_prompts(tokens, context)
        features[:, 0].sum().backward()
        assert tokens.num_classes == len(features) == 3
        assert features.shape[1] == any_backbone.feature_dim
        assert torch.isfinite(context.grad).all()
        assert (context.grad.abs().amax(dim=1) > 0).all()
        assert all(parameter.grad is None for parameter in any_backbone.model.parameters())

    @pytest.mark.parametrize("build", [clip, custom])
    @pytest.mark.parametrize("pool_type", ["argmax", "eos"])
    def test_cutting_behind_the_longest_end_of_text_changes_nothing(self, build, pool_type):
        model, tokenizer = build(bpe(), pool_type=pool_type, eos_id=49407)
        backbone = OpenClipBackbone(model, preprocess, tokenizer, name="small")
        tokens = backbone.tokenize_prompts(NAMES, 4)
        whole_ids = tokenizer(["a a a a cat.", "a a a a guinea pig.", "a a a a dog."])
        assert tokens.ids.shape == (3, 1 + 4 + 3 + 1)  # start, context, "guinea pig .", end
        assert whole_ids.shape == (3, 77)
        context = torch.randn(4, backbone.context_dim)
        whole = backbone.encode_prompts(dataclasses.replace(tokens, ids=whole_ids), context)
        torch.testing.assert_close(backbone.encode_prompts(tokens, context), whole, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("build", [clip, custom])
    @pytest.mark.parametrize("text", [{"no_causal_mask": True}, {"pool_type": "last"}])
    def test_nothing_is_cut_where_a_feature_depends_on_what_is_behind(self, build, text):
        model, tokenizer = build(bpe(), **text)
        backbone = OpenClipBackbone(model, preprocess, tokenizer, name="small")
        assert backbone.tokenize_prompts(NAMES, 4).ids.shape == (3, 77)

    def test_layout_is_start_context_class_end(self, backbone):
        tokens = backbone.tokenize_prompts(["guinea_pig"], 2)
        encode = backbone.tokenizer.encode
        assert tokens.context_start == 1
        assert tokens.ids.tolist() == [[49406, *encode("a a"), *encode("guinea pig."), 49407]]

    @pytest.mark.parametrize("name", ["clip", "SigLIP: no start token, padded with the end token", "bert"])
    def test_longest_class_name_that_fits(self, name, tmp_path):
        model, tokenizer = MODELS[name](tmp_path)
        backbone = OpenClipBackbone(model, preprocess, tokenizer, name="small")
        rows = [tokenizer([" ".join(["dog"] * count)]) for count in range(1, 77)]
        specials = {"clip": 2, "bert": 2}.get(name, 1)
        stop = 0 if name.startswith("SigLIP") else 1  # its tokenizer drops punctuation
        room = rows[0].shape[1] - specials - stop - 16
        tokens = backbone.tokenize_prompts(["cat", " ".join(["dog"] * room)], 16)
        assert tokens.num_classes == 2
        with pytest.raises(InputError, match=rf"at most {room + stop} tokens.*'dog .*has {room + stop + 1} tokens"):
            backbone.tokenize_prompts(["cat", " ".join(["dog"] * (room + 1))], 16)

    def test_context_that_fills_everything(self, backbone):
        with pytest.raises(InputError, match=r"at most 0 tokens.*behind 80 context vectors.*'cat' has 2 tokens"):
            backbone.tokenize_prompts(["cat"], 80)

    @pytest.mark.parametrize(("class_names", "n_ctx"), [([], 16), (["cat"], 0)])
    def test_nothing_to_prompt(self, backbone, class_names, n_ctx):
        with pytest.raises(InputError, match="at least one class and one context vector"):
            backbone.tokenize_prompts(class_names, n_ctx)

    def test_tokenizer_without_the_placeholder(self, backbone):
        def spell(texts, context_length=77):
            ids = torch.zeros(len(texts), context_length, dtype=torch.long)
            for row, text in zip(ids, texts, strict=True):
                spelt = torch.tensor([ord(letter) for letter in text.replace("a", "ae")[:context_length]])
                row[: len(spelt)] = spelt
            return ids

        backbone.tokenizer = spell
        with pytest.raises(InputError, match="one token of the word 'a'"):
            backbone.tokenize_prompts(["cat"], 4)

    def test_context_of_another_shape(self, backbone):
        tokens = backbone.tokenize_prompts(["cat"], 4)
        with pytest.raises(InputError, match=r"shape \(4, 32\), but got \(5, 32\)"):
            backbone.encode_prompts(tokens, torch.zeros(5, 32))

    def test_tokens_of_another_backbone(self, backbone):
        with pytest.raises(InputError, match="but got str"):
            backbone.encode_prompts("cat", torch.zeros(4, 32))


class TestFeatures:
    def test_images(self, backbone):
        pixels = backbone.preprocess(Image.new("RGB", (40, 30), "red")).expand(2, -1, -1, -1)
        features = backbone.encode_images(pixels)
        torch.testing.assert_close(features, F.normalize(backbone.model.visual(pixels), dim=-1))
        assert features.shape == (2, backbone.feature_dim)

    def test_gradients_pass_through_images(self, backbone):
        pixels = torch.rand(1, 3, 16, 16, requires_grad=True)
        backbone.encode_images(pixels)[0, 0].backward()
        assert pixels.grad.abs().sum() > 0

    def test_texts_in_chunks_without_gradients(self, backbone, monkeypatch):
        monkeypatch.setattr(backbones, "TEXTS_PER_CHUNK", 2)
        backbone.model.requires_grad_(True)
        features = backbone.encode_texts(REAL_TEXTS)
        with torch.no_grad():
            expected = backbone.model.encode_text(backbone.tokenizer(REAL_TEXTS), normalize=True)
        torch.testing.assert_close(features, expected)
        assert not features.requires_grad

    def test_float32_and_unit_length_within_autocast(self, any_backbone):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            tokens = any_backbone.tokenize_prompts(NAMES, 4)
            features = [
                any_backbone.encode_images(torch.rand(1, 3, 16, 16)),
                any_backbone.encode_texts(["a cat"]),
                any_backbone.encode_prompts(tokens, torch.randn(4, any_backbone.context_dim)),
            ]
        for rows in features:
            assert rows.dtype == torch.float32
            torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))

    def test_settings(self, backbone):
        assert backbone.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
        assert backbone.context_dim == 32
        assert backbone.feature_dim == 24
        assert backbone.has_cone
        assert backbone.to("cpu") is backbone
        assert backbone.device == torch.device("cpu")

    def test_evaluation_mode_and_frozen(self):
        model = open_clip.CLIP(24, VISION, TEXT).train()
        backbone = OpenClipBackbone(model, preprocess, bpe(), name="small")
        assert not any(module.training for module in backbone.model.modules())
        assert not any(parameter.requires_grad for parameter in backbone.model.parameters())

    def test_coca_is_refused(self):
        coca = open_clip.CoCa(24, {**TEXT, "context_length": 8}, {**TEXT, "embed_cls": True}, VISION)
        with pytest.raises(InputError, match=r"CLIP, or a CustomTextCLIP.* but got CoCa"):
            OpenClipBackbone(coca, preprocess, bpe(), name="coca")


class TestFingerprint:
    def build(self, name="small", preprocess=preprocess, quick_gelu=False, change=0.0, fingerprint=None):
        torch.manual_seed(0)
        model = open_clip.CLIP(24, VISION, TEXT, quick_gelu=quick_gelu)
        model.visual.conv1.weight.data[0, 0, 0, 0] += change
        return OpenClipBackbone(model, preprocess, bpe(), name=name, fingerprint=fingerprint)

    def test_same_for_the_same_model(self):
        assert self.build().fingerprint == self.build().fingerprint
        assert len(self.build().fingerprint) == 64

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "other"},
            {"change": 1e-3},
            {"quick_gelu": True},
            {"preprocess": open_clip.image_transform(16, is_train=False)},
        ],
    )
    def test_changes_with_what_features_depend_on(self, change):
        assert self.build(**change).fingerprint != self.build().fingerprint

    def test_changes_with_the_number_of_heads(self):
        """No weight tells it, nor does what a model prints."""
        models = [open_clip.CLIP(24, VISION, {**TEXT, "heads": heads}) for heads in (2, 4)]
        models[1].load_state_dict(models[0].state_dict())
        first, second = (OpenClipBackbone(model, preprocess, bpe(), name="small").fingerprint for model in models)
        assert first != second

    def test_changes_with_the_tokenizer(self):
        one, other = bpe(), copy.copy(bpe())
        other.encoder = {**other.encoder, "dog</w>": other.encoder["cat</w>"], "cat</w>": other.encoder["dog</w>"]}
        model = self.build().model
        fingerprints = [OpenClipBackbone(model, preprocess, of, name="small").fingerprint for of in (one, other, one)]
        assert fingerprints[0] == fingerprints[2] != fingerprints[1]

    def test_does_not_depend_on_addresses(self):
        functions = [lambda image: preprocess(image) for _ in range(2)]
        assert repr(functions[0]) != repr(functions[1])
        first, second = (self.build(preprocess=function).fingerprint for function in functions)
        assert first == second

    def test_is_that_of_the_weights_before_tuning(self):
        backbone = self.build()
        backbone.model.visual.conv1.weight.data.zero_()
        assert backbone.fingerprint == self.build().fingerprint

    def test_bfloat16_weights(self):
        fingerprints = {
            OpenClipBackbone(self.build().model.to(dtype), preprocess, bpe(), name="small").fingerprint
            for dtype in (torch.float32, torch.bfloat16)
        }
        assert len(fingerprints) == 2

    def test_given(self):
        assert self.build(fingerprint="mine").fingerprint == "mine"


CONFIG = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}


@pytest.fixture
def folder(tmp_path):
    """A model folder with random weights, as if it came from the hub."""
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**CONFIG).state_dict(), tmp_path / "open_clip_model.safetensors")
    settings = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.fixture
def published(folder, monkeypatch):
    """An architecture "small" for which open_clip knows published weights, already downloaded."""
    weights = {"file": str(folder / "open_clip_model.safetensors"), "hf_hub": "someone/small/"}
    tags = {"openai": {**weights, "quick_gelu": True}, "laion": weights}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", CONFIG)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "small", tags)


class TestLoad:
    def test_folder(self, folder):
        torch.manual_seed(0)
        model = open_clip.CLIP(**CONFIG).eval()
        torch.manual_seed(1)
        backbone = load_open_clip(str(folder))
        expected = model.encode_text(bpe()(REAL_TEXTS), normalize=True)
        torch.testing.assert_close(backbone.encode_texts(REAL_TEXTS), expected.detach())
        assert backbone.name == str(folder)
        assert not backbone.model.training
        assert backbone.fingerprint == load_open_clip(str(folder)).fingerprint

    def test_preprocessing_is_that_of_evaluation(self, folder):
        backbone = load_open_clip(str(folder))
        image = Image.new("RGB", (20, 30), (255, 0, 255))
        pixels = backbone.preprocess(image)
        expected = torch.tensor([1.0, -1.0, 1.0])[:, None, None].expand(3, 16, 16)
        torch.testing.assert_close(pixels, expected)
        assert pixels.dtype == torch.float32

    def test_folder_with_a_hugging_face_text_tower(self, tmp_path):
        word_tokenizer(tmp_path, **BERT_WORDS)
        transformers.BertConfig(**SMALL_BERT, pad_token_id=0).save_pretrained(tmp_path)
        text = {"hf_model_name": str(tmp_path), "hf_tokenizer_name": str(tmp_path), "context_length": 20}
        config = {**CONFIG, "text_cfg": text}
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
        model = open_clip.CustomTextCLIP(24, VISION, {**text, "hf_model_pretrained": False})
        save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
        backbone = load_open_clip(str(tmp_path))
        assert backbone.fingerprint == load_open_clip(str(tmp_path)).fingerprint
        tokens = backbone.tokenize_prompts(NAMES, 4)
        prompts = backbone.encode_prompts(tokens, context_of_real_text(backbone, tokens))
        torch.testing.assert_close(prompts, backbone.encode_texts(REAL_TEXTS), rtol=0, atol=1e-5)

    @pytest.mark.parametrize(("tag", "is_quick"), [("openai", True), ("laion", False)])
    def test_activation_is_the_one_the_weights_were_trained_with(self, published, tag, is_quick):
        backbone = load_open_clip(f"small/{tag}")
        activations = {type(module) for module in backbone.model.modules() if "GELU" in type(module).__name__}
        assert activations == {QuickGELU if is_quick else torch.nn.GELU}
        assert backbone.name == f"small/{tag}"

    def test_quick_gelu_is_what_sets_openai_s_architectures_apart(self):
        models_of_openai = [name for name, tag in open_clip.list_pretrained() if tag == "openai"]
        plain = [name for name in models_of_openai if not name.endswith("-quickgelu")]
        assert "ViT-B-16" in plain
        for name in plain:
            assert sources._published_source(name, "openai").quick_gelu
            config = open_clip.get_model_config(name)
            assert {**config, "quick_gelu": True} == open_clip.get_model_config(f"{name}-quickgelu")

    def test_unknown_architecture(self):
        with pytest.raises(UnknownNameError, match=r"'ViT-B-61', and no folder .*Did you mean 'ViT-B-16'"):
            load_open_clip("ViT-B-61/openai")

    def test_unknown_weights(self):
        with pytest.raises(UnknownNameError, match=r"'openia' for open_clip's 'ViT-B-16'. Did you mean 'openai'"):
            load_open_clip("ViT-B-16/openia")

    def test_architecture_alone(self):
        with pytest.raises(UnknownNameError, match=r"Unknown weights ''.*laion2b_s34b_b88k"):
            load_open_clip("ViT-B-16")

    def test_no_internet(self, monkeypatch):
        def refuse(*_args, **_kwargs):
            raise OSError("cannot connect")

        monkeypatch.setattr(open_clip.factory, "download_pretrained", refuse)
        with pytest.raises(MissingWeightsError, match="cannot connect") as caught:
            load_open_clip("ViT-B-16/openai")
        for remedy in [
            "hf download timm/vit_base_patch16_clip_224.openai --local-dir FOLDER",
            "bridge-lite0",
        ]:
            assert remedy in str(caught.value)

    def test_no_weights_in_the_folder(self, folder):
        (folder / "open_clip_model.safetensors").unlink()
        with pytest.raises(MissingWeightsError, match=r"open_clip_model.safetensors.* but there are none.*hf down"):
            load_open_clip(str(folder))

    def test_no_configuration_in_the_folder(self, folder):
        (folder / "open_clip_config.json").unlink()
        with pytest.raises(MissingWeightsError, match=r"the file open_clip_config.json .* but there is none"):
            load_open_clip(str(folder))

    @pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_config.json"])
    def test_truncated_file(self, folder, file):
        (folder / file).write_bytes((folder / file).read_bytes()[:100])
        with pytest.raises(MissingWeightsError, match="open_clip cannot load it"):
            load_open_clip(str(folder))

    def test_weights_of_another_architecture(self, folder):
        wide = {**CONFIG, "embed_dim": 48}
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": wide}))
        with pytest.raises(MissingWeightsError, match="size mismatch"):
            load_open_clip(str(folder))

    def test_coca_is_refused_before_it_is_downloaded(self, monkeypatch):
        monkeypatch.setattr(
            open_clip.factory, "download_pretrained", lambda *_args, **_kwargs: pytest.fail("downloads")
        )
        with pytest.raises(InputError, match=r"CLIP, or a CustomTextCLIP.* but got a CoCa"):
            load_open_clip("coca_ViT-B-32/laion2b_s13b_b90k")


class TestName:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("ViT-B-16/openai", True),
            ("xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", True),
            ("bridge-lite0", False),
            ("./missing", False),
            ("/missing/folder", False),
            ("a/b/c", False),
            ("", False),
        ],
    )
    def test_names(self, name, expected):
        assert is_open_clip_name(name) is expected

    def test_folders(self, tmp_path):
        assert is_open_clip_name(str(tmp_path))
        assert not is_open_clip_name(str(tmp_path / "missing"))

    def test_telling_takes_no_heavy_import(self):
        code = (
            "import sys, deft_plugin.backbones.open_clip; "
            "from deft_plugin.backbones.open_clip_sources import is_open_clip_name; "
            "assert is_open_clip_name('ViT-B-16/openai'); "
            "assert not {'torch', 'open_clip', 'transformers'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
