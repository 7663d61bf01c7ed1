"""A training step against the plain reference step: the same logits, losses and gradients."""

import pytest
import torch
from deft_benchmarks.speed.reference_step import reference_step

from deft_plugin.compute.precision import use_precision
from deft_plugin.deft.prompts import SoftPrompts
from deft_plugin.deft.step import DeftStep
from deft_plugin.settings import FinetuneSettings
from deft_plugin.tuning.tunings import ENCODER_TUNINGS

NAMES = ["cat", "guinea_pig", "dog", "great white shark", "ox", "hen", "sea", "lamp"]
N_CTX, BATCH = 4, 6


@pytest.fixture(autouse=True)
def full_precision():
    with use_precision("float32"):
        yield


class Setting:
    """One model with both steps, prompts and a tuning that have left their start."""

    def __init__(self, backbone, tuning):
        generator = torch.Generator().manual_seed(2)
        backbone.logit_scale = float(backbone.model.logit_scale.exp())
        self.backbone = backbone
        self.prompts = SoftPrompts(backbone, NAMES, n_ctx=N_CTX, seed=0, max_tokens=2000)
        self.tuning = ENCODER_TUNINGS[tuning](backbone, 0)
        with torch.no_grad():
            self.prompts.context += torch.randn(self.prompts.context.shape, generator=generator)
            for parameter in self.tuning.parameters().values():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        self.pixels = torch.randn(BATCH, 3, 32, 32, generator=generator)
        self.labels = torch.zeros(BATCH, dtype=torch.int64)
        self.complement = torch.ones(BATCH, dtype=torch.int64)
        with torch.no_grad():
            logits = self.reference(is_warmup=True)
        of_class = logits.positive - logits.negative  # (B, K)
        # Three labels that are as clean as can be, and three that are not.
        self.labels = torch.cat([of_class[:3].argmax(1), of_class[3:].argmin(1)])
        self.complement = (self.labels + torch.tensor([1, 2, 3, 4, 5, 6])) % len(NAMES)

    def trained(self):
        return {**self.tuning.parameters(), "context": self.prompts.context}

    def gradients(self, loss):
        tensors = self.trained()
        return dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True))

    def reference(self, *, is_warmup):
        texts = [f"{'a ' * N_CTX}{name.replace('_', ' ')}." for name in NAMES]
        return reference_step(
            self.backbone.model,
            self.backbone.tokenizer(texts),
            self.prompts.context,
            self.pixels,
            self.labels,
            self.complement,
            visual_tokens=self.tuning.parameters().get("visual_tokens"),
            is_warmup=is_warmup,
        )


def assert_equal(found, expected):
    error = (found - expected).detach().norm() / expected.detach().norm()
    assert float(error) < 1e-4


@pytest.mark.parametrize("is_warmup", [True, False])
@pytest.mark.parametrize("tuning", ["vpt_deep", "lora"])
@pytest.mark.parametrize("kind", ["clip", "custom"])
def test_equals_the_reference(tiny_backbone, kind, tuning, is_warmup):
    setting = Setting(tiny_backbone(kind=kind), tuning)
    assert setting.prompts.tokens.text_path == "shared prefix"
    expected = setting.reference(is_warmup=is_warmup)
    result = DeftStep(setting.backbone, setting.prompts, device="cpu")(
        setting.pixels, setting.labels, setting.complement, is_warmup=is_warmup
    )
    if not is_warmup:
        assert 0 < result.is_clean.sum() < BATCH  # both kinds are in the batch
    assert_equal(torch.sigmoid(result.margins), expected.p_clean)
    dp, sim = result.dp.mean(), result.sim.sum() / result.selected.sum()
    assert_equal(dp, expected.dp)
    assert_equal(sim, expected.sim)
    gradients, wanted = setting.gradients(dp + sim), setting.gradients(expected.dp + expected.sim)
    for name, gradient in gradients.items():
        assert wanted[name].norm() > 0
        assert_equal(gradient, wanted[name])


@pytest.mark.parametrize("kind", ["clip", "custom"])
def test_all_logits_equal_the_reference(tiny_backbone, kind):
    setting = Setting(tiny_backbone(kind=kind), "vpt_deep")
    expected = setting.reference(is_warmup=False)
    text = setting.prompts.encode()
    images = DeftStep(setting.backbone, setting.prompts, device="cpu").encode_images(setting.pixels)
    for features, logits in zip(text, (expected.positive, expected.negative), strict=True):
        assert_equal(setting.backbone.logit_scale * images @ features.T, logits)


def test_judging_is_what_the_step_says(tiny_backbone):
    setting = Setting(tiny_backbone(), "vpt_deep")
    step = DeftStep(setting.backbone, setting.prompts, device="cpu")
    result = step(setting.pixels, setting.labels, setting.complement, is_warmup=False)
    margins, is_clean, predicted = step.judge(setting.pixels, setting.labels, setting.prompts.encode())
    torch.testing.assert_close(margins, result.margins, rtol=1e-4, atol=1e-4)
    assert torch.equal(is_clean, result.is_clean)
    assert torch.equal(predicted, result.predicted)


def test_real_noise_also_asks_for_the_highest_p_clean(tiny_backbone):
    setting = Setting(tiny_backbone(), "vpt_deep")
    step = DeftStep(setting.backbone, setting.prompts, settings=FinetuneSettings(is_real_noise=True), device="cpu")
    expected = setting.reference(is_warmup=False)
    is_best = (expected.positive - expected.negative).argmax(-1) == setting.labels
    result = step(setting.pixels, setting.labels, setting.complement, is_warmup=False)
    assert torch.equal(result.is_clean, (expected.p_clean > 0.5) & is_best)


def test_a_batch_without_a_selected_example(tiny_backbone):
    setting = Setting(tiny_backbone(), "vpt_deep")
    step = DeftStep(setting.backbone, setting.prompts, device="cpu")
    rejected = ~step(setting.pixels, setting.labels, setting.complement, is_warmup=False).is_clean
    result = step(setting.pixels[rejected], setting.labels[rejected], setting.complement[rejected], is_warmup=False)
    assert (result.sim == 0).all()
    assert torch.isfinite(result.dp).all()
