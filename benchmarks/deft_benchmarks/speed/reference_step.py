"""A training step of DeFT written as plainly as can be: what the fast one must equal.

All 2 K prompts go through the text tower at full context length, anew at each step, in the model's own way; the image
tower is the model's own, or the textbook loop for visual prompts. Source: Wei et al., NeurIPS 2024, eq. 2-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class ReferenceResult:
    """Logits and losses of a batch.

    Attributes
    ----------
    positive, negative : Tensor of shape (B, K)
    p_clean : Tensor of shape (B,)
        Of the given labels.
    dp, sim : Tensor
        Mean losses; sim over the selected examples.
    """

    positive: Tensor
    negative: Tensor
    p_clean: Tensor
    dp: Tensor
    sim: Tensor


def reference_step(
    model: Any,
    ids: Tensor,
    context: Tensor,
    pixels: Tensor,
    labels: Tensor,
    complement: Tensor,
    *,
    visual_tokens: Tensor | None = None,
    is_warmup: bool = False,
) -> ReferenceResult:
    """Compute logits and losses.

    Parameters
    ----------
    model : open_clip.CLIP or open_clip.CustomTextCLIP with a TextTransformer
    ids : Tensor of shape (K, 77), int64
        Start token, one placeholder for each context vector, class name, end, padding.
    context : Tensor of shape (2, M, width)
        Positive and negative.
    pixels : Tensor of shape (B, 3, H, W)
    labels, complement : Tensor of shape (B,), int64
    visual_tokens : Tensor of shape (blocks, n_tokens, width), optional
        Deep visual prompts.
    """
    images = F.normalize(encode_images(model, pixels, visual_tokens).float(), dim=-1)
    positive_text, negative_text = (
        F.normalize(encode_prompts(model, ids, vectors).float(), dim=-1) for vectors in context
    )
    scale = model.logit_scale.exp()
    positive = scale * images @ positive_text.T
    negative = scale * images.detach() @ negative_text.T
    p = torch.exp(positive.detach()) / (torch.exp(positive.detach()) + torch.exp(negative))  # (B, K)
    row = torch.arange(len(labels), device=labels.device)
    is_clean = torch.ones_like(labels, dtype=torch.bool) if is_warmup else p[row, labels] > 0.5
    pseudo = torch.where(is_clean, labels, positive.argmax(-1))
    dp = (-torch.log(p[row, pseudo]) - torch.log(1 - p[row, complement])).mean()
    log_likelihood = positive.log_softmax(-1)[row, labels]
    sim = -(log_likelihood * is_clean).sum() / is_clean.sum().clamp(min=1)
    return ReferenceResult(positive=positive, negative=negative, p_clean=p[row, labels], dp=dp, sim=sim)


def encode_prompts(model: Any, ids: Tensor, context: Tensor) -> Tensor:
    """Encode prompts at full context length (K, D)."""
    text: Any = getattr(model, "text", model)
    embeddings = text.token_embedding(ids)  # (K, 77, width)
    behind = embeddings[:, 1 + len(context) :]
    x = torch.cat([embeddings[:, :1], context.expand(len(ids), -1, -1), behind], dim=1)
    x = text.transformer(x + text.positional_embedding, attn_mask=text.attn_mask)
    x = text.ln_final(x)[torch.arange(len(ids), device=ids.device), ids.argmax(-1)]  # at the end of text
    projection: Any = text.text_projection
    features: Any = projection(x) if callable(projection) else x @ projection
    return features


def encode_images(model: Any, pixels: Tensor, visual_tokens: Tensor | None) -> Tensor:
    """Encode pixels (B, D), with the visual tokens of each block behind the patches."""
    visual: Any = model.visual
    if visual_tokens is None:
        return visual(pixels)
    x: Any = visual._embeds(pixels)
    length = x.shape[1]
    for block, tokens in zip(visual.transformer.resblocks, visual_tokens, strict=True):
        x = block(torch.cat([x[:, :length], tokens.expand(len(x), -1, -1).to(x.dtype)], dim=1))
    pooled, _ = visual._pool(x[:, :length])
    return pooled @ visual.proj
