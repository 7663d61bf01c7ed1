"""Prompts of an open_clip model as token ids, with a placeholder word in the place of each context vector.

So the model's own tokenizer decides where start, end and padding stand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from deft_plugin.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from deft_plugin.backbones.shared_prefix import PackedSuffixes

PLACEHOLDER = "a"


class Tokenizer(Protocol):
    """What open_clip's tokenizers have in common."""

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        """Turn texts into ids (T, context_length), padded or truncated; by default to the model's length."""
        ...


def describe_tokenizer(tokenizer: object) -> str:
    """Tell all that ids depend on, the same in every process: settings, vocabulary, rules.

    Parameters
    ----------
    tokenizer : object
        One of open_clip's, or another callable.
    """
    inner = getattr(tokenizer, "tokenizer", tokenizer)  # of transformers, inside open_clip's
    backend = getattr(inner, "backend_tokenizer", None)
    if backend is not None:
        rules: dict[str, Any] = json.loads(backend.to_str())
        rules.update(truncation=None, padding=None)  # as the last call left them
    else:
        rules = {"vocabulary": getattr(inner, "encoder", None) or _vocabulary(inner)}
    functions = {name: getattr(value, "__name__", "") for name, value in _attributes(tokenizer) if callable(value)}
    parts = (type(tokenizer).__name__, functions, plain_attributes(tokenizer), plain_attributes(inner), rules)
    return json.dumps(parts, sort_keys=True, default=repr)


def plain_attributes(thing: object) -> dict[str, Any]:
    """Attributes that are numbers or names, or tuples of them: the number of heads, a length, a way to pool."""
    return {
        name: value
        for name, value in _attributes(thing)
        if not name.startswith("_")
        and "checkpointing" not in name
        and all(isinstance(part, _PLAIN) for part in (value if isinstance(value, tuple) else (value,)))
    }


def _attributes(thing: object) -> list[tuple[str, Any]]:
    return sorted(getattr(thing, "__dict__", {}).items())


_PLAIN = (bool, int, float, str, type(None))


def _vocabulary(tokenizer: object) -> object:
    get = getattr(tokenizer, "get_vocab", None)
    return get() if callable(get) else None


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
    lengths : Tensor of shape (K,), int64, optional
        Tokens of each prompt up to and with the one that is pooled, if the beginning that all prompts share may be
        encoded once for all (`deft_plugin.backbones.shared_prefix`); None where the text tower does not allow it.
    """

    ids: Tensor
    context_start: int
    n_ctx: int
    lengths: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.ids.shape[0])

    @property
    def num_tokens(self) -> int:
        """Tokens that go through the text tower."""
        if self.lengths is None:
            return self.ids.numel()
        prefix = self.context_start + self.n_ctx
        return prefix + int((self.lengths - prefix).sum())

    @property
    def text_path(self) -> str:
        """How they are encoded: "shared prefix" or "general"."""
        return "general" if self.lengths is None else "shared prefix"

    @cached_property
    def suffixes(self) -> PackedSuffixes:
        """What stands behind the shared beginning; only with `lengths`."""
        from deft_plugin.backbones.shared_prefix import pack_suffixes

        assert self.lengths is not None
        return pack_suffixes(self.ids, self.context_start + self.n_ctx, self.lengths)

    def select(self, classes: Tensor) -> OpenClipPromptTokens:
        """Prompts of some classes only, in the order of `classes` (C,)."""
        lengths = None if self.lengths is None else self.lengths[classes]
        return replace(self, ids=self.ids[classes], lengths=lengths)


def tokenize_prompts(tokenizer: Tokenizer, class_names: Sequence[str], n_ctx: int) -> OpenClipPromptTokens:
    """Tokenise ``[V]_1 … [V]_n_ctx class name.`` for every class, at the tokenizer's own length.

    Raises
    ------
    InputError
        If a class name does not fit into that length behind the placeholders, if there is no class or no
        placeholder, or if the tokenizer does not make one token of a placeholder.
    """
    if n_ctx < 1 or not class_names:
        raise InputError(
            f"Expected at least one class and one context vector, but got {len(class_names)} and {n_ctx}. "
            "Pass the names of all classes, and n_ctx=16 as the paper does."
        )
    prompts = [f"{_placeholders(n_ctx)} {name.replace('_', ' ')}." for name in class_names]
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
    return OpenClipPromptTokens(ids=ids, context_start=layout.context_start, n_ctx=n_ctx)


class _PromptLayout:
    """Where a tokenizer puts things, found from its answers: some have no start token, or pad with the end.

    Attributes
    ----------
    pad_id : int
    context_start : int
        Number of tokens in front of the first word.
    """

    def __init__(self, tokenizer: Tokenizer, n_ctx: int, roomy: int) -> None:
        texts = [_placeholders(count) for count in (0, 1, n_ctx, n_ctx + 1)]
        empty, one, as_many, one_more = tokenizer(texts, context_length=roomy)
        self.pad_id = int(empty.mode().values)  # at this length, nearly all of it is padding
        self.context_start = int((empty != one).int().argmax())
        self._length_without_class = len(self._strip(as_many))
        behind_first = self.context_start + 1
        if not self._strip(one)[behind_first:].equal(self._strip(one_more)[behind_first + n_ctx :]):
            raise InputError(
                f"Expected a tokenizer that makes one token of the word {PLACEHOLDER!r}, which holds the "
                "place of a context vector, but this one does not. Use a model with another tokenizer."
            )

    def count_class_tokens(self, row: Tensor) -> int:
        """Count the tokens of the class name in the ids (L,) of a prompt."""
        return len(self._strip(row)) - self._length_without_class

    def _strip(self, row: Tensor) -> Tensor:
        return row[row != self.pad_id]


def _placeholders(count: int) -> str:
    return " ".join([PLACEHOLDER] * count)
