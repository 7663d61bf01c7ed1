"""A text tower of a few lines: what autograd gives when everything is encoded at once is the reference."""

import contextlib
from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional as F

from deft_plugin.deft import prompts
from deft_plugin.deft.prompts import NEGATIVE, POSITIVE, SoftPrompts

NAMES = ["cat", "guinea_pig", "dog", "ox", "hen"]
N_CTX, WIDTH, DIM = 4, 6, 7


@dataclass
class Tokens:
    vectors: torch.Tensor

    @property
    def num_classes(self):
        return len(self.vectors)

    num_tokens = num_classes

    def select(self, classes):
        return Tokens(self.vectors[classes])


class TinyBackbone:
    """Text features are a non-linear function of class name and context."""

    context_dim = WIDTH
    context_std = 0.5

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.randn(WIDTH, WIDTH, generator=generator)
        self.out = torch.randn(WIDTH, DIM, generator=generator)
        self.most_classes_at_once = 0
        self.autocast = []

    def tokenize_prompts(self, class_names, n_ctx):
        assert n_ctx == N_CTX
        vectors = [[hash_of(name, i) for i in range(WIDTH)] for name in class_names]
        return Tokens(torch.tensor(vectors))

    def encode_prompts(self, tokens, context):
        self.most_classes_at_once = max(self.most_classes_at_once, tokens.num_classes)
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        weights = (tokens.vectors @ self.mix @ context.T).softmax(-1)  # (K, M)
        return F.normalize((tokens.vectors + torch.tanh(weights @ context)) @ self.out, dim=-1)


def hash_of(name, i):
    return (sum(map(ord, name)) * (i + 3) % 17) / 8 - 1


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    monkeypatch.setattr(prompts, "autocast", lambda _device: contextlib.nullcontext())


def soft_prompts(*, seed=0, max_tokens=128, backbone=None):
    return SoftPrompts(backbone or TinyBackbone(), NAMES, n_ctx=N_CTX, seed=seed, max_tokens=max_tokens)


def set_apart(soft):
    """Move the contexts, as some steps would."""
    with torch.no_grad():
        soft.context += torch.randn(soft.context.shape, generator=torch.Generator().manual_seed(9))
    return soft


def test_start():
    context = soft_prompts().context
    assert context.shape == (2, N_CTX, WIDTH)
    assert context.requires_grad
    assert context.is_leaf
    assert not torch.equal(context[POSITIVE], context[NEGATIVE])
    assert torch.equal(context, soft_prompts().context)
    assert not torch.equal(context, soft_prompts(seed=1).context)


def test_context_is_drawn_at_the_scale_of_the_tower():
    backbone = TinyBackbone()
    backbone.context_dim, backbone.context_std = 5000, 0.07
    context = soft_prompts(backbone=backbone).context.detach()
    assert float(context.std()) == pytest.approx(0.07, rel=0.02)
    assert float(context.mean()) == pytest.approx(0, abs=2e-3)


def test_encode():
    backbone = TinyBackbone()
    soft = set_apart(soft_prompts(backbone=backbone))
    features = soft.encode()
    assert features.shape == (2, len(NAMES), DIM)
    assert not features.requires_grad
    tokens = backbone.tokenize_prompts(NAMES, N_CTX)
    for polarity in (POSITIVE, NEGATIVE):
        expected = backbone.encode_prompts(tokens, soft.context.detach()[polarity])
        torch.testing.assert_close(features[polarity], expected)


@pytest.mark.parametrize("max_tokens", [1, 2, 5, 128])
def test_chunks_do_not_change_features(max_tokens):
    backbone = TinyBackbone()
    features = set_apart(soft_prompts(max_tokens=max_tokens, backbone=backbone)).encode()
    torch.testing.assert_close(features, set_apart(soft_prompts()).encode())
    assert backbone.most_classes_at_once == min(max_tokens, len(NAMES))


def loss_of_step(features, step):
    """Some loss of all text features, another one in each step."""
    generator = torch.Generator().manual_seed(step)
    target = torch.randn(features.shape, generator=generator)
    return ((features * target).sum(-1).exp() * (step + 1)).sum()


@pytest.mark.parametrize("max_tokens", [1, 2, 128])
def test_backward_is_autograd_through_everything_at_once(max_tokens):
    backbone = TinyBackbone()
    tokens = backbone.tokenize_prompts(NAMES, N_CTX)
    reference = set_apart(soft_prompts()).context.detach().clone().requires_grad_()
    everything = torch.stack([backbone.encode_prompts(tokens, context) for context in reference])
    sum(loss_of_step(everything, step) for step in range(4)).backward()

    backbone = TinyBackbone()
    soft = set_apart(soft_prompts(max_tokens=max_tokens, backbone=backbone))
    features = soft.encode().requires_grad_()
    for step in range(4):
        loss_of_step(features, step).backward()  # sums up in features.grad
    soft.backward(features.grad)
    torch.testing.assert_close(soft.context.grad, reference.grad, rtol=1e-4, atol=1e-5)
    assert (soft.context.grad.abs().sum((1, 2)) > 0).all()
    assert backbone.most_classes_at_once == min(max_tokens, len(NAMES))


@pytest.mark.parametrize("max_tokens", [1, 2, 128])
@pytest.mark.parametrize("classes", [None, [3, 0, 3]])
@pytest.mark.parametrize("polarity", [POSITIVE, NEGATIVE])
def test_features_with_gradients(max_tokens, classes, polarity):
    backbone = TinyBackbone()
    tokens = backbone.tokenize_prompts(NAMES, N_CTX)
    index = torch.arange(len(NAMES)) if classes is None else torch.tensor(classes)
    reference = set_apart(soft_prompts()).context.detach().clone().requires_grad_()
    expected = backbone.encode_prompts(tokens, reference[polarity])[index]
    loss_of_step(expected, 0).backward()

    soft = set_apart(soft_prompts(max_tokens=max_tokens))
    features = soft.features(polarity, None if classes is None else index)
    torch.testing.assert_close(features, expected)
    loss_of_step(features, 0).backward()
    torch.testing.assert_close(soft.context.grad, reference.grad, rtol=1e-4, atol=1e-5)


def test_backward_of_one_polarity_leaves_the_other_alone():
    soft = set_apart(soft_prompts())
    gradient = torch.zeros(2, len(NAMES), DIM)
    gradient[NEGATIVE] = 1
    soft.backward(gradient)
    touched = soft.context.grad.abs().sum((1, 2)) > 0
    assert touched.tolist() == [False, True]


def test_backward_adds_up():
    gradient = torch.randn(2, len(NAMES), DIM, generator=torch.Generator().manual_seed(0))
    once, twice = set_apart(soft_prompts()), set_apart(soft_prompts())
    once.backward(gradient)
    for _ in range(2):
        twice.backward(gradient)
    torch.testing.assert_close(twice.context.grad, 2 * once.context.grad)


def test_runs_in_the_format_of_the_device_but_keeps_float32(monkeypatch):
    def half(_device):
        return torch.autocast("cpu", dtype=torch.bfloat16)

    monkeypatch.setattr(prompts, "autocast", half)
    backbone = TinyBackbone()
    soft = set_apart(soft_prompts(backbone=backbone))
    features = soft.encode()
    soft.backward(torch.ones_like(features))
    assert all(backbone.autocast)
    assert features.dtype == soft.context.grad.dtype == torch.float32


def test_a_shape_that_does_not_fit_is_not_cut_off():
    soft = soft_prompts()
    with pytest.raises(ValueError, match="shorter"):
        soft.backward(torch.zeros(1, len(NAMES), DIM))
