"""Text towers of open_clip that take learned vectors in place of some token embeddings.

What open_clip does not offer is to encode a prompt whose first tokens are learned vectors. Each wrapper follows
the forward pass of one kind of tower, and puts the context in between its embeddings and its transformer.

A causal tower that pools one token encodes what all prompts begin with once (`shared_prefix`); the others take the
general path, every prompt at full length. The tower alone decides, when prompts are laid out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from deft_plugin.errors import InputError

if TYPE_CHECKING:
    import torch
    from open_clip import CLIP, CustomTextCLIP
    from torch import Tensor

    from deft_plugin.backbones.prompt_tokens import OpenClipPromptTokens


class TextTower(Protocol):
    """A text tower that takes learned vectors in place of some token embeddings.

    Attributes
    ----------
    width : int
        Width of its token embeddings.
    """

    width: int

    def lay_out(self, tokens: OpenClipPromptTokens) -> OpenClipPromptTokens:
        """Leave out tokens that no feature depends on, and decide how the prompts are encoded."""
        ...

    def encode(self, tokens: OpenClipPromptTokens, context: Tensor) -> Tensor:
        """Encode prompts into (K, D), with `context` (n_ctx, width) in the place of the placeholders."""
        ...


def wrap_text_tower(model: CLIP | CustomTextCLIP) -> TextTower:
    """Find the way to put a context into the text tower of `model`.

    Raises
    ------
    InputError
        If `model` is not one of the two, or its text tower is neither a TextTransformer nor a HFTextEncoder.
    """
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
    raise unsupported_model(type(tower).__name__)


def unsupported_model(kind: str) -> InputError:
    """Build the error for a model of another kind."""
    return InputError(
        "Expected an open_clip CLIP, or a CustomTextCLIP whose text tower is a TextTransformer or a "
        f"HFTextEncoder, but got {kind}. Use another model, such as 'ViT-B-16/openai'."
    )


class _ClipText:
    """The text tower that a CLIP has spread over its own attributes.

    References
    ----------
    ``CLIP.encode_text`` in open_clip/model.py.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.width = int(model.token_embedding.embedding_dim)

    def lay_out(self, tokens: OpenClipPromptTokens) -> OpenClipPromptTokens:
        is_causal = self.model.attn_mask is not None
        return _lay_out(tokens, is_causal, self.model.text_pool_type, self.model.text_eos_id, self.model.transformer)

    def encode(self, tokens: OpenClipPromptTokens, context: Tensor) -> Tensor:
        model, ids = self.model, tokens.ids
        if tokens.lengths is not None:
            return _project(_encode_shared(model, tokens, context), model.text_projection)
        length = ids.shape[1]
        x = model.token_embedding(ids).to(model.transformer.get_cast_dtype())  # (K, L, width)
        x = _insert(x, context, tokens.context_start) + model.positional_embedding[:length].to(x.dtype)
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

    def lay_out(self, tokens: OpenClipPromptTokens) -> OpenClipPromptTokens:
        tower = self.tower
        laid_out = _lay_out(tokens, tower.attn_mask is not None, self.pool_type, tower.eos_id, tower.transformer)
        # A mask of the padding is not one for all prompts.
        return replace(laid_out, lengths=None) if tower.use_pad_mask else laid_out

    def encode(self, tokens: OpenClipPromptTokens, context: Tensor) -> Tensor:
        tower, ids, start = self.tower, tokens.ids, tokens.context_start
        if tokens.lengths is not None:
            return _project(_encode_shared(tower, tokens, context), tower.text_projection)
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

    def lay_out(self, tokens: OpenClipPromptTokens) -> OpenClipPromptTokens:
        return tokens  # they see those behind them

    def encode(self, tokens: OpenClipPromptTokens, context: Tensor) -> Tensor:
        ids = tokens.ids
        mask = (ids != self.tower.config.pad_token_id).long()  # (K, L)
        x = _insert(self.embedding(ids), context, tokens.context_start)  # (K, L, width)
        hidden = self.tower.transformer(inputs_embeds=x, attention_mask=mask)
        return self.tower.proj(self.tower.pooler(hidden, mask))  # (K, D)


def _lay_out(
    tokens: OpenClipPromptTokens, is_causal: bool, pool_type: str, eos_id: int, transformer: Any
) -> OpenClipPromptTokens:
    """Cut behind the longest end of text, if that is pooled and sees no token behind it."""
    from deft_plugin.backbones.shared_prefix import can_share_prefix

    if not is_causal or pool_type not in ("argmax", "eos"):
        return tokens
    ids = tokens.ids
    scores = ids if pool_type == "argmax" else (ids == eos_id).int()  # highest at the end of text
    lengths = scores.argmax(dim=-1) + 1  # (K,)
    cut = ids[:, : int(lengths.max())].contiguous()
    return replace(tokens, ids=cut, lengths=lengths if can_share_prefix(transformer) else None)


def _encode_shared(tower: Any, tokens: OpenClipPromptTokens, context: Tensor) -> Tensor:
    """Compute the final hidden state (K, width) of each prompt's end, with the shared beginning encoded once."""
    import torch

    from deft_plugin.backbones.shared_prefix import encode_packed

    dtype = tower.transformer.get_cast_dtype()
    suffixes, start = tokens.suffixes, tokens.context_start
    positions = tower.positional_embedding.to(dtype)
    prefix = torch.cat([tower.token_embedding(tokens.ids[0, :start]).to(dtype), context.to(dtype)])
    prefix = prefix + positions[: len(prefix)]  # (P, width)
    behind = tower.token_embedding(suffixes.ids).to(dtype) + positions[suffixes.positions]  # (T, width)
    return tower.ln_final(encode_packed(tower.transformer, prefix, behind, suffixes))


def _insert(embeddings: Tensor, context: Tensor, start: int) -> Tensor:
    """Replace the `embeddings` (K, L, width) from `start` on by `context` (n_ctx, width)."""
    import torch

    shared = context.to(embeddings.dtype).expand(len(embeddings), -1, -1)  # (K, n_ctx, width)
    return torch.cat([embeddings[:, :start], shared, embeddings[:, start + len(context) :]], dim=1)


def _pool(x: Tensor, ids: Tensor, pool_type: str, eos_id: int, projection: torch.nn.Linear | Tensor | None) -> Tensor:
    """Pool hidden states (K, L, width) and project them into (K, D)."""
    from open_clip.transformer import text_global_pool

    return _project(text_global_pool(x, ids, pool_type, eos_token_id=eos_id), projection)


def _project(pooled: Tensor, projection: torch.nn.Linear | Tensor | None) -> Tensor:
    """Project pooled hidden states (K, width): open_clip has layers, matrices and no projection."""
    if projection is None:
        return pooled
    return projection(pooled) if callable(projection) else pooled @ projection  # (K, D)
