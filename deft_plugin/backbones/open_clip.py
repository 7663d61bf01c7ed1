"""Any open_clip model as a backbone.

A prompt is tokenised with a placeholder word for each context vector; the context then replaces the placeholders'
embeddings inside the text tower. Importing this module imports neither torch nor open_clip.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deft_plugin.backbones.open_clip_sources import find_source
from deft_plugin.backbones.prompt_tokens import (
    PLACEHOLDER,
    OpenClipPromptTokens,
    Tokenizer,
    describe_tokenizer,
    plain_attributes,
    tokenize_prompts,
)
from deft_plugin.backbones.text_towers import unsupported_model, wrap_text_tower
from deft_plugin.backbones.vision_towers import wrap_vision_tower
from deft_plugin.errors import InputError, MissingWeightsError

if TYPE_CHECKING:
    import torch
    from open_clip import CLIP, CustomTextCLIP
    from PIL import Image
    from torch import Tensor

    from deft_plugin.types import Backbone, PromptTokens

TEXTS_PER_CHUNK = 256


def load_open_clip(name: str) -> Backbone:
    """Load a pretrained open_clip model onto the CPU.

    Parameters
    ----------
    name : str
        "architecture/pretrained", such as "ViT-B-16/openai", or a folder with ``open_clip_config.json`` and
        weights. A folder goes before a published model of the same name.

    Raises
    ------
    UnknownNameError
        If open_clip knows no such architecture, or no such weights for it.
    MissingWeightsError
        If weights, configuration or tokenizer are broken, or not here and not to be downloaded.
    InputError
        If the model is neither a CLIP nor a CustomTextCLIP.
    """
    import open_clip

    source = find_source(name)
    try:
        if "multimodal_cfg" in (open_clip.get_model_config(source.model_name) or {}):
            raise unsupported_model("a CoCa")  # before its weights are downloaded
        # Raises where open_clip.create_model would go on with random weights.
        loaded: Any = open_clip.create_model_from_pretrained(
            source.model_name, source.tag, force_quick_gelu=source.quick_gelu
        )
        tokenizer: Any = open_clip.get_tokenizer(source.model_name)
    except InputError:
        raise
    except Exception as error:  # there are as many ways to fail as file formats and download clients
        raise MissingWeightsError(
            f"Expected the pretrained model {name!r}, but open_clip cannot load it "
            f"({type(error).__name__}: {error}). {source.remedy}"
        ) from error
    model, preprocess = loaded
    return OpenClipBackbone(model, preprocess, tokenizer, name=name)


class OpenClipBackbone:
    """An open_clip model that DeFT can prompt.

    Parameters
    ----------
    model : open_clip.CLIP or open_clip.CustomTextCLIP
        Used as it is: whoever passes it vouches for its weights. It is set to evaluation mode and frozen.
    preprocess : callable
        Turns an image into pixels (3, H, W), float32: open_clip's evaluation transform.
    tokenizer : callable
        The tokenizer of the text tower.
    name : str
    fingerprint : str, optional
        By default SHA-256 of name, architecture, preprocessing, tokenizer and weights.

    Raises
    ------
    InputError
        If `model` is not one of the two, or its text tower is neither a TextTransformer nor a HFTextEncoder.
    """

    has_cone = True
    context_std = 0.02

    def __init__(
        self,
        model: CLIP | CustomTextCLIP,
        preprocess: Callable[[Image.Image], Tensor],
        tokenizer: Tokenizer,
        *,
        name: str,
        fingerprint: str | None = None,
    ) -> None:
        self.text_tower = wrap_text_tower(model)
        self.vision_tower = wrap_vision_tower(model.visual)
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.context_dim = self.text_tower.width
        self.feature_dim = int(self.encode_texts([PLACEHOLDER]).shape[1])
        self._preprocess = preprocess
        # Taken now, before tuning changes the model: later it would depend on who reads it first.
        self.fingerprint = fingerprint or _fingerprint(name, self.model, preprocess, tokenizer)

    @property
    def image_tower(self) -> torch.nn.Module:
        """What a tuning adapts."""
        return self.model.visual

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def set_gradient_checkpointing(self, *, enable: bool) -> None:
        """Let the image tower keep less for the backward pass, and compute it again."""
        self.vision_tower.set_gradient_checkpointing(enable=enable)

    def to(self, device: str) -> OpenClipBackbone:
        """Move both towers to a device, in place."""
        self.model.to(device)
        return self

    def preprocess(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into pixels (3, H, W), float32."""
        return self._preprocess(image)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, H, W) into L2-normalised float32 image features (B, D)."""
        return _normalise(self.vision_tower.encode(pixels.to(self.device)))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts into L2-normalised float32 text features (T, D), without gradients.

        A text that is longer than the text tower's context is truncated, as everywhere in open_clip.
        """
        import torch

        features: list[Tensor] = []
        with torch.no_grad():
            for start in range(0, len(texts), TEXTS_PER_CHUNK):
                ids = self.tokenizer(list(texts[start : start + TEXTS_PER_CHUNK]))  # (chunk, L)
                features.append(_normalise(self.model.encode_text(ids.to(self.device))))
        return torch.cat(features)

    def tokenize_prompts(self, class_names: Sequence[str], n_ctx: int) -> OpenClipPromptTokens:
        """Tokenise ``[V]_1 … [V]_n_ctx class name.`` for every class.

        Raises
        ------
        InputError
            If a class name does not fit into the context length behind the context vectors, or if there is no
            class or no context vector.
        """
        tokens = tokenize_prompts(self.tokenizer, class_names, n_ctx)
        return self.text_tower.lay_out(replace(tokens, ids=tokens.ids.to(self.device)))

    def encode_prompts(self, tokens: PromptTokens, context: Tensor) -> Tensor:
        """Encode prompts with the context vectors (n_ctx, context_dim) into (K, D); differentiable in them.

        Raises
        ------
        InputError
            If `tokens` come from another kind of backbone, or have room for another number of vectors.
        """
        if not isinstance(tokens, OpenClipPromptTokens):
            raise InputError(
                f"Expected prompts tokenised by an open_clip backbone, but got {type(tokens).__name__}. Pass "
                "what tokenize_prompts of the same backbone gave."
            )
        if context.shape != (tokens.n_ctx, self.context_dim):
            raise InputError(
                f"Expected context vectors of shape {(tokens.n_ctx, self.context_dim)}, but got "
                f"{tuple(context.shape)}. Tokenise the prompts with the number of vectors in the context."
            )
        return _normalise(self.text_tower.encode(tokens, context.to(self.device)))  # (K, D)


def _normalise(features: Tensor) -> Tensor:
    import torch.nn.functional as F

    return F.normalize(features.float(), dim=-1)


def _fingerprint(name: str, model: torch.nn.Module, preprocess: object, tokenizer: object) -> str:
    """Hash what features depend on, the same in every process."""
    import torch

    settings = getattr(model.visual, "preprocess_cfg", None)
    # What a model prints does not tell the number of heads, and the like.
    modules = [plain_attributes(module) for module in model.modules()]
    description = f"{name}\n{model!r}\n{modules}\n{settings!r}\n{preprocess!r}\n{describe_tokenizer(tokenizer)}"
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", description).encode())  # functions show their address
    for key, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
