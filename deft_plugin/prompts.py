"""Learnable prompts: M context vectors for each polarity, shared by all classes, in front of the class name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deft_plugin.precision import autocast
from deft_plugin.types import Backbone, PromptTokens

POLARITIES = 2
POSITIVE, NEGATIVE = 0, 1


class SoftPrompts:
    """Positive and negative prompts of all classes.

    Text is the dear part of DeFT: 2 K prompts a step. So text features are computed once for many steps
    (`encode`), the steps' gradients with respect to the *features* are summed up, and `backward` carries the sum
    through the text tower in one go, a piece at a time, so that memory does not grow with K.

    Parameters
    ----------
    backbone : Backbone
    class_names : sequence of str of length K
    n_ctx : int
        M, context vectors of a prompt.
    seed : int
    device : str
        Where the backbone is.
    chunk : int
        Classes that go through the text tower at a time.

    Attributes
    ----------
    context : Tensor of shape (2, M, E)
        Positive and negative, drawn from N(0, context_std²).
    """

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        *,
        n_ctx: int,
        seed: int,
        device: str = "cpu",
        chunk: int = 128,
    ) -> None:
        self._backbone = backbone
        self._device = device
        self._chunks = [
            backbone.tokenize_prompts(class_names[start : start + chunk], n_ctx)
            for start in range(0, len(class_names), chunk)
        ]
        generator = torch.Generator().manual_seed(seed)
        shape = (POLARITIES, n_ctx, backbone.context_dim)
        self.context = (torch.randn(shape, generator=generator) * backbone.context_std).requires_grad_()

    @torch.no_grad()
    def encode(self) -> Tensor:
        """Text features of both polarities and all classes, (2, K, D), L2-normalised."""
        return torch.stack(
            [torch.cat([self._encode(tokens, context) for tokens in self._chunks]) for context in self.context]
        )

    def backward(self, gradient: Tensor) -> None:
        """Add to ``context.grad`` what the gradient (2, K, D) of the text features gives."""
        for context, of_context in zip(self.context, gradient, strict=True):
            start = 0
            for tokens in self._chunks:
                features = self._encode(tokens, context)
                features.backward(of_context[start : start + tokens.num_classes], inputs=[self.context])
                start += tokens.num_classes

    def _encode(self, tokens: PromptTokens, context: Tensor) -> Tensor:
        with autocast(self._device):
            return self._backbone.encode_prompts(tokens, context.to(self._device)).to(context)
