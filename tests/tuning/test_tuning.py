"""Tunings of small random encoders: what is trained, and that the encoder comes back to the last bit."""

import pytest
import torch
from deft_benchmarks.speed.reference_step import encode_images

from deft_plugin.errors import InputError, UnknownNameError
from deft_plugin.settings import FROZEN, TUNINGS, check_tuning
from deft_plugin.tuning.tunings import ENCODER_TUNINGS, pick_tuning


def pixels(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def trained(name, backbone, steps=3):
    """Put a tuning in, and move the encoder's features somewhere."""
    tuning = ENCODER_TUNINGS[name](backbone, 0)
    optimizer = torch.optim.SGD(tuning.parameters().values(), lr=0.5)
    target = torch.randn(3, backbone.feature_dim, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        loss = -(backbone.encode_images(pixels()) * target).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return tuning


def state(backbone):
    return {name: value.clone() for name, value in backbone.image_tower.state_dict().items()}


@pytest.fixture(params=[*ENCODER_TUNINGS, "lora of a cnn", "bitfit of a cnn", "full of a cnn"])
def name(request):
    return request.param.split()[0]


@pytest.fixture
def build(request, tiny_backbone, tiny_bridge):
    is_cnn = request.node.callspec.params["name"].endswith("cnn")
    return tiny_bridge if is_cnn else tiny_backbone


class TestEveryTuning:
    def test_changes_features_and_comes_out_to_the_last_bit(self, name, build):
        backbone = build()
        weights, before = state(backbone), backbone.encode_images(pixels())
        modules = [type(module) for module in backbone.image_tower.modules()]
        tuning = trained(name, backbone)
        with torch.no_grad():
            during = backbone.encode_images(pixels())
        assert (during - before).abs().max() > 1e-3
        tuning.remove()
        assert torch.equal(backbone.encode_images(pixels()), before)
        after = state(backbone)
        assert set(after) == set(weights)
        assert all(torch.equal(after[key], weights[key]) for key in weights)
        assert [type(module) for module in backbone.image_tower.modules()] == modules
        assert not any(parameter.requires_grad for parameter in backbone.image_tower.parameters())
        assert not any(module.training for module in backbone.image_tower.modules())

    def test_only_its_parameters_are_trained(self, name, build):
        backbone = build()
        tuning = ENCODER_TUNINGS[name](backbone, 0)
        backbone.encode_images(pixels()).square().sum().backward()
        own = {id(parameter) for parameter in tuning.parameters().values()}
        assert own
        assert all(id(p) in own for p in backbone.image_tower.parameters() if p.requires_grad)
        assert not any(module.training for module in backbone.image_tower.modules())
        tuning.remove()

    def test_same_seed_same_start(self, name, build):
        starts = []
        for seed in (0, 0):
            tuning = ENCODER_TUNINGS[name](build(), seed)
            starts.append([parameter.detach().clone() for parameter in tuning.parameters().values()])
        assert all(torch.equal(one, two) for one, two in zip(*starts, strict=True))

    def test_global_random_state_is_left_alone(self, name, build):
        backbone = build()
        before = torch.get_rng_state()
        ENCODER_TUNINGS[name](backbone, 0).remove()
        assert torch.equal(torch.get_rng_state(), before)


class TestVisualPrompts:
    @pytest.mark.parametrize(("name", "rows"), [("vpt_deep", 3), ("vpt_shallow", 1)])
    def test_shape_and_start(self, name, rows, tiny_backbone):
        tokens = ENCODER_TUNINGS[name](tiny_backbone(), 0).parameters()["visual_tokens"]
        assert tokens.shape == (rows, 20, 32)
        bound = (6 / (3 * 8 * 8 + 32)) ** 0.5
        assert tokens.abs().max() <= bound
        assert float(tokens.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1)

    def test_tokens_are_replaced_at_each_block(self, tiny_backbone):
        backbone = tiny_backbone()
        tokens = ENCODER_TUNINGS["vpt_deep"](backbone, 3).parameters()["visual_tokens"]
        expected = encode_images(backbone.model, pixels(), tokens)
        torch.testing.assert_close(backbone.vision_tower.encode(pixels()), expected, rtol=1e-4, atol=1e-5)

    def test_shallow_tokens_go_through_all_blocks(self, tiny_backbone):
        backbone = tiny_backbone()
        tokens = ENCODER_TUNINGS["vpt_shallow"](backbone, 3).parameters()["visual_tokens"]
        visual = backbone.model.visual
        x = visual._embeds(pixels())
        x = visual.transformer(torch.cat([x, tokens[0].expand(3, -1, -1)], dim=1))
        expected = visual._pool(x[:, :17])[0] @ visual.proj
        torch.testing.assert_close(backbone.vision_tower.encode(pixels()), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("pool_type", ["tok", "avg"])
    def test_without_tokens_it_is_the_model_s_own_encoding(self, tiny_backbone, pool_type):
        backbone = tiny_backbone(pool_type=pool_type)
        expected = backbone.model.encode_image(pixels())
        torch.testing.assert_close(backbone.vision_tower.encode(pixels()), expected, rtol=1e-4, atol=1e-5)

    def test_learned_tokens_are_not_pooled(self, tiny_backbone):
        backbone = tiny_backbone(pool_type="avg")
        tokens = ENCODER_TUNINGS["vpt_deep"](backbone, 3).parameters()["visual_tokens"]
        expected = encode_images(backbone.model, pixels(), tokens)
        torch.testing.assert_close(backbone.vision_tower.encode(pixels()), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", ["vpt_deep", "lora"])
    def test_gradient_checkpointing_changes_nothing(self, tiny_backbone, name):
        gradients = []
        for enable in (False, True):
            backbone = tiny_backbone()
            tuning = ENCODER_TUNINGS[name](backbone, 0)
            backbone.set_gradient_checkpointing(enable=enable)
            backbone.encode_images(pixels())[:, 0].sum().backward()
            gradients.append([parameter.grad for parameter in tuning.parameters().values()])
        for plain, checkpointed in zip(*gradients, strict=True):
            torch.testing.assert_close(plain, checkpointed)

    def test_another_image_tower(self, tiny_bridge):
        with pytest.raises(InputError, match=r"Expected a vision transformer of open_clip.*tuning='lora'"):
            ENCODER_TUNINGS["vpt_deep"](tiny_bridge(), 0)


class TestLowRank:
    def test_attention_of_a_vit(self, tiny_backbone):
        names = list(ENCODER_TUNINGS["lora"](tiny_backbone(), 0).parameters())
        assert len(names) == 3 * 2 * 2  # blocks; in and out projection; A and B
        assert all(".attn." in name for name in names)

    def test_all_but_depthwise_convolutions_of_a_cnn(self, tiny_bridge):
        backbone = tiny_bridge()
        convolutions = dict(backbone.image_tower.named_modules())
        names = list(ENCODER_TUNINGS["lora"](backbone, 0).parameters())
        adapted = {name.split(".lora_")[0] for name in names}
        assert adapted
        assert all(getattr(convolutions[name], "groups", 1) == 1 for name in adapted)
        assert "classifier" not in adapted

    @pytest.mark.parametrize("architecture", ["test_vit", "test_resnet"])
    def test_timm_towers_of_open_clip(self, tiny_backbone, architecture):
        backbone = tiny_backbone(kind="custom", timm_model_name=architecture, timm_proj="linear", timm_pool="")
        before = backbone.encode_images(pixels())
        tuning = trained("lora", backbone)
        modules = dict(backbone.image_tower.named_modules())
        assert {type(modules[name.split(".lora_")[0]].base_layer) for name in tuning.parameters()} == (
            {torch.nn.Linear, torch.nn.Conv2d}
        )
        assert (backbone.encode_images(pixels()) - before).abs().max() > 1e-3
        tuning.remove()
        assert torch.equal(backbone.encode_images(pixels()), before)


def test_bitfit_trains_biases(tiny_backbone):
    assert all(name.endswith("bias") for name in ENCODER_TUNINGS["bitfit"](tiny_backbone(), 0).parameters())


def test_full_trains_everything(tiny_backbone):
    backbone = tiny_backbone()
    assert set(ENCODER_TUNINGS["full"](backbone, 0).parameters()) == {
        name for name, _ in backbone.image_tower.named_parameters()
    }


class TestNames:
    @pytest.mark.parametrize("name", ["auto", "frozen", *ENCODER_TUNINGS])
    def test_known(self, name):
        check_tuning(name)

    def test_unknown(self):
        with pytest.raises(UnknownNameError, match="Did you mean 'lora'"):
            check_tuning("loora")

    def test_auto(self, tiny_backbone, tiny_bridge):
        assert pick_tuning("auto", tiny_backbone(), "cpu") == "frozen"
        assert pick_tuning("auto", tiny_backbone(), "cuda") == "vpt_deep"
        assert pick_tuning("auto", tiny_bridge(), "cuda") == "lora"
        assert pick_tuning("full", tiny_bridge(), "cpu") == "full"


def test_the_settings_name_the_tunings_that_there_are():
    assert ("auto", FROZEN, *ENCODER_TUNINGS) == TUNINGS
