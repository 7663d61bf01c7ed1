"""Image towers of open_clip, with room for learned tokens beside the patches (visual prompt tuning)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from deft_plugin.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deft_plugin.types import Backbone


class VisionTower(Protocol):
    """An image tower that turns pixels into features that are not normalised yet."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, H, W) into (B, D)."""
        ...

    def set_gradient_checkpointing(self, *, enable: bool) -> None:
        """Keep less of the forward pass, and compute it again in the backward pass."""
        ...


@runtime_checkable
class HasVisionTower(Protocol):
    """A backbone whose image tower is one of open_clip, as `wrap_vision_tower` gives it."""

    @property
    def vision_tower(self) -> VisionTower:
        """The tower."""
        ...


def promptable_tower(backbone: Backbone) -> PromptableViT | None:
    """Give the image tower of a backbone if it has room for learned tokens."""
    tower = backbone.vision_tower if isinstance(backbone, HasVisionTower) else None
    return tower if isinstance(tower, PromptableViT) else None


def wrap_vision_tower(visual: Any) -> VisionTower:
    """Find the way through an open_clip image tower: its own forward pass, or one that takes learned tokens."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    is_plain = (
        isinstance(visual, VisionTransformer)
        and visual.transformer.batch_first
        and all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks)
    )
    return PromptableViT(visual) if is_plain else _AnyTower(visual)


class _AnyTower:
    """A tower that is used as it is."""

    def __init__(self, visual: Any) -> None:
        self._visual = visual

    def encode(self, pixels: Tensor) -> Tensor:
        return self._visual(pixels)

    def set_gradient_checkpointing(self, *, enable: bool) -> None:
        if not hasattr(self._visual, "set_grad_checkpointing"):
            raise InputError(
                f"Expected an image tower with gradient checkpointing, but {type(self._visual).__name__} has none. "
                "Leave gradient_checkpointing off, or use a smaller batch."
            )
        self._visual.set_grad_checkpointing(enable)


class PromptableViT:
    """open_clip's VisionTransformer, with learned tokens behind the patches of each block.

    Parameters
    ----------
    visual : open_clip.transformer.VisionTransformer
        With blocks of the default kind.

    Attributes
    ----------
    tokens : Parameter of shape (blocks, n_tokens, width), optional
        ``tokens[i]`` stand behind the patches in block i, instead of those of the block before. With a single row,
        they stand there from the first block on. None: the tower as it was.

    Notes
    -----
    Where the class token alone is pooled, the last block computes it alone: nothing else of that block is used.

    References
    ----------
    ``VisionTransformer.forward`` in open_clip/transformer.py. Jia et al., "Visual Prompt Tuning", ECCV 2022.
    """

    def __init__(self, visual: Any) -> None:
        self.visual = visual
        self.tokens: torch.nn.Parameter | None = None
        self._class_token_only = visual.attn_pool is None and visual.pool_type == "tok" and not visual.output_tokens
        self._is_checkpointing = False

    @property
    def num_blocks(self) -> int:
        """Number of transformer blocks."""
        return len(self.visual.transformer.resblocks)

    @property
    def width(self) -> int:
        """Width of a token."""
        return int(self.visual.transformer.width)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height, width = self.visual.patch_size
        return int(height), int(width)

    def set_gradient_checkpointing(self, *, enable: bool) -> None:
        """Keep the input of each block only."""
        self._is_checkpointing = enable

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode pixels (B, 3, H, W) into (B, D)."""
        x = self.visual._embeds(pixels)  # (B, L, width)
        length, blocks = x.shape[1], self.visual.transformer.resblocks
        for index, block in enumerate(blocks):
            x = self._with_tokens(x, index, length)
            is_last = index == len(blocks) - 1
            x = self._run(block, x, 1 if is_last and self._class_token_only else x.shape[1])
        pooled, _ = self.visual._pool(x[:, :length])  # without the learned tokens
        return pooled if self.visual.proj is None else pooled @ self.visual.proj

    def _with_tokens(self, x: Tensor, index: int, length: int) -> Tensor:
        import torch

        if self.tokens is None or index >= len(self.tokens):
            return x
        own = self.tokens[index].to(x.dtype).expand(len(x), -1, -1)  # (B, n_tokens, width)
        return torch.cat([x[:, :length], own], dim=1)

    def _run(self, block: Any, x: Tensor, num_outputs: int) -> Tensor:
        import torch
        from torch.utils.checkpoint import checkpoint

        if self._is_checkpointing and torch.is_grad_enabled():
            run: Any = _run_block  # checkpoint is typed as if it might give None
            return checkpoint(run, block, x, num_outputs, use_reentrant=False)
        return _run_block(block, x, num_outputs)


def _run_block(block: Any, x: Tensor, num_outputs: int) -> Tensor:
    """Output of a block for its first `num_outputs` tokens, which see all of x (B, L, width).

    References
    ----------
    ``ResidualAttentionBlock.forward`` in open_clip/transformer.py.
    """
    own = x[:, :num_outputs]
    # nn.MultiheadAttention swaps the first two axes, and its projection of a tensor that is not contiguous then
    # copies the weights for every position: with this layout it is contiguous.
    normed = block.ln_1(x).transpose(0, 1).contiguous().transpose(0, 1)
    if num_outputs == x.shape[1]:
        attended = block.attention(q_x=normed)
    else:
        attended = block.attention(q_x=normed[:, :num_outputs], k_x=normed, v_x=normed)
    own = own + block.ls_1(attended)
    return own + block.ls_2(block.mlp(block.ln_2(own)))
