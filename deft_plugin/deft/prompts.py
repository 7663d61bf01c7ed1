"""Learnable prompts: M context vectors for each polarity, shared by all classes, in front of the class name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from deft_plugin.compute.precision import autocast
from deft_plugin.types import Backbone, PromptTokens

POLARITIES = 2
POSITIVE, NEGATIVE = 0, 1


class SoftPrompts:
    """Positive and negative prompts of all classes.

    Text is the dear part of DeFT: 2 K prompts a step. There are two ways to train them, both a piece at a time, so
    that memory does not grow with K:

    - `features` gives text features with gradients, for a step that learns from them at once;
    - with `encode` they are computed once for many steps, the steps' gradients with respect to the *features* are
      summed up, and `backward` carries the sum through the text tower in one go.

    Parameters
    ----------
    backbone : Backbone
    class_names : sequence of str of length K
    n_ctx : int
        M, context vectors of a prompt.
    seed : int
    device : str
        Where the backbone is.
    max_tokens : int
        Tokens that go through the text tower at a time.

    Attributes
    ----------
    context : Tensor of shape (2, M, E)
        Positive and negative, drawn from N(0, context_std²); on `device`.
    tokens : PromptTokens
        Of all classes.
    """

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        *,
        n_ctx: int,
        seed: int,
        device: str = "cpu",
        max_tokens: int = 8192,
    ) -> None:
        self._backbone, self._device, self._max_tokens = backbone, device, max_tokens
        self.tokens = backbone.tokenize_prompts(class_names, n_ctx)
        self._pieces = self._split(self.tokens)
        generator = torch.Generator().manual_seed(seed)
        shape = (POLARITIES, n_ctx, backbone.context_dim)
        # N(0, 0.02²) in CLIP. A tower whose token embeddings have another scale wants contexts of that scale.
        start = torch.randn(shape, generator=generator) * backbone.context_std
        self.context = start.to(device).requires_grad_()

    def features(self, polarity: int, classes: Tensor | None = None) -> Tensor:
        """Text features of all classes, or of `classes` (C,) only, (C, D), L2-normalised, with gradients.

        More than one piece is computed again in the backward pass, instead of being kept.

        Parameters
        ----------
        polarity : int
            `POSITIVE` or `NEGATIVE`.
        classes : Tensor of shape (C,), int64, optional
        """
        pieces = self._pieces if classes is None else self._split(self.tokens.select(classes))
        context = self.context[polarity]
        if len(pieces) == 1:
            return self._encode(pieces[0], context)
        encode: Any = self._encode  # checkpoint is typed as if it might give None
        return torch.cat([checkpoint(encode, tokens, context, use_reentrant=False) for tokens in pieces])

    @torch.no_grad()
    def encode(self) -> Tensor:
        """Text features of both polarities and all classes, (2, K, D), L2-normalised, without gradients."""
        return torch.stack(
            [torch.cat([self._encode(tokens, context) for tokens in self._pieces]) for context in self.context]
        )

    def backward(self, gradient: Tensor) -> None:
        """Add to ``context.grad`` what the gradient (2, K, D) of the text features gives."""
        for context, of_context in zip(self.context, gradient, strict=True):
            start = 0
            for tokens in self._pieces:
                # The pass of `encode` kept no graph: it is made again here, one piece in memory at a time.
                features = self._encode(tokens, context)
                features.backward(of_context[start : start + tokens.num_classes], inputs=[self.context])
                start += tokens.num_classes

    def _encode(self, tokens: PromptTokens, context: Tensor) -> Tensor:
        with autocast(self._device):
            return self._backbone.encode_prompts(tokens, context).float()

    def _split(self, tokens: PromptTokens) -> list[PromptTokens]:
        """Split prompts into pieces of about `max_tokens` tokens, one class at least."""
        num_pieces = min(math.ceil(tokens.num_tokens / self._max_tokens), tokens.num_classes)
        if num_pieces == 1:
            return [tokens]
        return [tokens.select(classes) for classes in torch.arange(tokens.num_classes).tensor_split(num_pieces)]
