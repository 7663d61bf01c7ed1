"""Prompts that begin alike: in a causal transformer their common beginning is encoded once for all classes.

No token sees what stands behind it. So start token and context vectors, which are the same for every class, have
the same hidden states in every prompt: their keys and values are computed once, and a class costs its own few tokens
only. These are packed without padding, since names differ in length. The result is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class PackedSuffixes:
    """What stands behind the common beginning of all prompts, one prompt behind the other.

    Attributes
    ----------
    ids : Tensor of shape (T,), int64
        Tokens of all classes: class name up to and with the end of text.
    positions : Tensor of shape (T,), int64
        Of each token in its prompt.
    packed : Tensor of shape (T,), int64
        Where each token stands in the flattened (K, S), which has one row for a class and padding at the end.
    lengths : Tensor of shape (K,), int64
        Tokens of each class.
    """

    ids: Tensor
    positions: Tensor
    packed: Tensor
    lengths: Tensor


def pack_suffixes(ids: Tensor, prefix_length: int, lengths: Tensor) -> PackedSuffixes:
    """Pack prompts `ids` (K, L) behind their first `prefix_length` tokens, up to `lengths` (K,).

    Examples
    --------
    >>> packed = pack_suffixes(torch.tensor([[1, 7, 9, 0], [1, 7, 8, 9]]), 1, torch.tensor([3, 4]))
    >>> packed.ids
    tensor([7, 9, 7, 8, 9])
    >>> packed.packed
    tensor([0, 1, 3, 4, 5])
    """
    own = lengths - prefix_length  # (K,)
    column = torch.arange(int(own.max()), device=ids.device)
    is_token = column < own.unsqueeze(1)  # (K, S)
    packed = is_token.flatten().nonzero().squeeze(1)
    return PackedSuffixes(
        ids=ids[:, prefix_length : prefix_length + len(column)].reshape(-1)[packed],
        positions=(prefix_length + column).expand(len(own), -1).reshape(-1)[packed],
        packed=packed,
        lengths=own,
    )


def can_share_prefix(transformer: Any) -> bool:
    """Tell whether all blocks of an open_clip ``Transformer`` are of the kind that `encode_packed` follows."""
    from open_clip.transformer import ResidualAttentionBlock

    return all(
        type(block) is ResidualAttentionBlock
        and type(block.attn) is torch.nn.MultiheadAttention
        and not hasattr(block, "ln_1_kv")
        for block in transformer.resblocks
    )


def encode_packed(transformer: Any, prefix: Tensor, suffixes: Tensor, layout: PackedSuffixes) -> Tensor:
    """Run the blocks of a causal open_clip ``Transformer``; differentiable in both inputs.

    Parameters
    ----------
    transformer : open_clip.transformer.Transformer
        One of those that `can_share_prefix`.
    prefix : Tensor of shape (P, width)
        Embeddings, with positions, of the common beginning.
    suffixes : Tensor of shape (T, width)
        The same of the packed tokens.
    layout : PackedSuffixes

    Returns
    -------
    Tensor of shape (K, width)
        Hidden state of the last token of each class.

    References
    ----------
    ``ResidualAttentionBlock.forward`` in open_clip/transformer.py.
    """
    num_shared = len(prefix)
    x = torch.cat([prefix, suffixes])  # (P + T, width)
    *blocks, last = transformer.resblocks
    for block in blocks:
        x = x + block.ls_1(_attend(block.attn, block.ln_1(x), num_shared, layout))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    ends = x[num_shared:].index_select(0, layout.lengths.cumsum(0) - 1)  # (K, width)
    # Nothing else of the last block is used.
    ends = ends + last.ls_1(_attend(last.attn, last.ln_1(x), num_shared, layout, ends_only=True))
    return ends + last.ls_2(last.mlp(last.ln_2(ends)))


def _attend(
    attention: torch.nn.MultiheadAttention,
    x: Tensor,
    num_shared: int,
    layout: PackedSuffixes,
    *,
    ends_only: bool = False,
) -> Tensor:
    """Causal attention in every prompt, (P + T, width); or its output for the last tokens only, (K, width)."""
    num_heads, num_classes, length = attention.num_heads, len(layout.lengths), int(layout.lengths.max())
    projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)  # (P + T, 3 · width)
    shared, own = projected[:num_shared], projected[num_shared:]
    q, k, v = _heads(shared.unsqueeze(0), num_heads)  # (1, H, P, width / H) each
    # index_copy and index_select go backward by plain copies; indexing would add up, which is slow.
    padded = own.new_zeros(num_classes * length, own.shape[1]).index_copy(0, layout.packed, own)
    own_q, own_k, own_v = _heads(padded.unflatten(0, (num_classes, length)), num_heads)  # (K, H, S, width / H) each
    keys, values = (
        torch.cat([of_all.expand(num_classes, -1, -1, -1), of_class], dim=2)
        for of_all, of_class in ((k, own_k), (v, own_v))
    )  # (K, H, P + S, width / H)
    column = torch.arange(num_shared + length, device=x.device)
    if ends_only:
        row = (layout.lengths - 1).view(-1, 1, 1, 1)
        own_q = own_q.gather(2, row.expand(-1, num_heads, 1, own_q.shape[-1]))  # (K, H, 1, width / H)
    else:
        row = torch.arange(length, device=x.device).view(1, 1, -1, 1)
    # Written out: for many short sequences it is faster than the fused attention of a CPU, above all backward.
    scores = own_q @ keys.transpose(2, 3) / own_q.shape[-1] ** 0.5  # (K, H, S or 1, P + S)
    weights = scores.masked_fill(column > num_shared + row, float("-inf")).softmax(-1)
    attended = _rows(weights.to(values.dtype) @ values)
    if ends_only:
        return attention.out_proj(attended)
    of_prefix = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return attention.out_proj(torch.cat([_rows(of_prefix), attended.index_select(0, layout.packed)]))


def _heads(projected: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split (B, L, 3 · width) into queries, keys and values, (B, H, L, width / H) each."""
    q, k, v = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1))
    return q, k, v


def _rows(x: Tensor) -> Tensor:
    """Join (B, H, L, width / H) into (B · L, width)."""
    return x.transpose(1, 2).flatten(2).flatten(0, 1)
