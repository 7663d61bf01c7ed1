"""Training of a small ViT with its prompts: it learns to reject wrong labels, and resumes to the same result."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from deft_plugin.compute.checkpoints import load_tensors, save_tensors
from deft_plugin.compute.precision import use_precision
from deft_plugin.deft import verdicts as verdicts_module
from deft_plugin.deft.finetune import Finetuning
from deft_plugin.deft.step import DeftStep
from deft_plugin.runs.run import Run
from deft_plugin.settings import FinetuneSettings, RunSettings
from deft_plugin.tuning.tunings import ENCODER_TUNINGS

NAMES = ("cat", "dog", "lamp", "sea")
SIZE = 160


class Colours:
    """Images of four colours; a third of their labels are wrong."""

    def __init__(self):
        generator = np.random.default_rng(0)
        self.truth = np.arange(SIZE) % 4
        self.is_wrong = generator.random(SIZE) < 0.33
        self.labels = np.where(self.is_wrong, (self.truth + generator.integers(1, 4, SIZE)) % 4, self.truth)
        colours = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60)], float)
        noise = generator.normal(0, 40, (SIZE, 32, 32, 3))
        self.pixels = np.clip(colours[self.truth][:, None, None] + noise, 0, 255).astype(np.uint8)

    def __len__(self):
        return SIZE

    def load(self, row):
        return Image.fromarray(self.pixels[row])

    def path(self, row):
        return None

    def fingerprint(self):
        return "colours"


@pytest.fixture(scope="module")
def colours():
    return Colours()


def settings(**changes):
    defaults = {"n_ctx": 4, "epochs": 6, "batch_size": 16, "encoder_learning_rate": None}
    return FinetuneSettings(**{**defaults, **changes})


@pytest.fixture
def finetuning(colours, tiny_backbone):
    def build(tuning="vpt_deep", *, checkpoint=None, seed=0, backbone=None, **changes):
        backbone = backbone or tiny_backbone()
        run = Run(
            labels=colours.labels,
            class_names=NAMES,
            backbone=backbone,
            images=colours,
            settings=RunSettings(seed=seed, device="cpu"),
        )
        tuning = ENCODER_TUNINGS[tuning](backbone, seed)
        return Finetuning(run, tuning, settings=settings(**changes), checkpoint=checkpoint)

    return build


def silent(_event):
    pass


def same(one, two):
    return all(
        torch.equal(getattr(one, name), getattr(two, name)) for name in ("p_clean", "is_clean", "predicted_labels")
    )


# From random weights it takes a long warm-up until no class is left without examples.
LEARN = {
    "vpt_deep": {"epochs": 15, "warmup_epochs": 8},
    "lora": {"epochs": 20, "warmup_epochs": 12, "encoder_learning_rate": 3e-3, "learning_rate": 0.01},
}


@pytest.mark.parametrize("tuning", list(LEARN))
def test_learns_to_reject_wrong_labels(finetuning, colours, tuning):
    verdicts = finetuning(tuning, **LEARN[tuning]).fit(silent)
    assert roc_auc_score(~colours.is_wrong, verdicts.p_clean) >= 0.95
    assert (verdicts.predicted_labels.numpy() == colours.truth).mean() > 0.9


def test_a_broken_selection_rule_fails_the_test_above(finetuning, colours, monkeypatch):
    rule = verdicts_module.is_clean
    monkeypatch.setattr(verdicts_module, "is_clean", lambda margins: ~rule(margins))
    verdicts = finetuning(**LEARN["vpt_deep"]).fit(silent)
    assert roc_auc_score(~colours.is_wrong, verdicts.p_clean) < 0.95


class TestResume:
    class Killed(Exception):  # noqa: N818
        pass

    @pytest.mark.parametrize("protocol", ["default", "faithful"])
    @pytest.mark.parametrize("steps", [2, 10, 15, 29])
    def test_goes_on_to_the_same_result(self, finetuning, tmp_path, monkeypatch, steps, protocol):
        """10 steps an epoch, a checkpoint at every fourth and at each end."""
        changes = {"epochs": 3, "checkpoint_steps": 4, "protocol": protocol}
        whole = finetuning(**changes).fit(silent)
        done = 0
        step = DeftStep.__call__

        def die(self, *arguments, **more):
            nonlocal done
            done += 1
            if done > steps:
                raise self_killed
            return step(self, *arguments, **more)

        self_killed = self.Killed()
        checkpoint = tmp_path / "x" / "run.safetensors"
        with monkeypatch.context() as patch:
            patch.setattr(DeftStep, "__call__", die)
            with pytest.raises(self.Killed):
                finetuning(checkpoint=checkpoint, **changes).fit(silent)
        assert checkpoint.is_file() == (steps >= 4)
        events = []
        resumed = finetuning(checkpoint=checkpoint, **changes).fit(events.append)
        assert same(resumed, whole)
        assert [event.epoch for event in events] == list(range(steps // 10 + 1, 4))

    @pytest.mark.parametrize("tuning", ["lora", "bitfit"])
    def test_state_of_adam(self, finetuning, tmp_path, tuning):
        whole = finetuning(tuning, epochs=2).fit(silent)
        checkpoint = tmp_path / "run.safetensors"

        def stop(_event):
            raise self.Killed

        with pytest.raises(self.Killed):
            finetuning(tuning, epochs=2, checkpoint=checkpoint).fit(stop)
        assert same(finetuning(tuning, epochs=2, checkpoint=checkpoint).fit(silent), whole)

    def test_a_finished_run_is_not_trained_again(self, finetuning, tmp_path):
        checkpoint, events = tmp_path / "run.safetensors", []
        first = finetuning(epochs=2, checkpoint=checkpoint).fit(silent)
        assert same(finetuning(epochs=2, checkpoint=checkpoint).fit(events.append), first)
        assert events == []

    def test_a_finished_run_keeps_no_state_of_the_optimiser(self, finetuning, tmp_path):
        names = []
        checkpoint = tmp_path / "run.safetensors"
        finetuning("full", epochs=2, checkpoint=checkpoint).fit(
            lambda _: names.append(set(load_tensors(checkpoint)[0]))
        )
        kinds = [{name.split("/")[0] for name in those} for those in names]
        assert kinds == [{"trained", "optimizer", "seen"}, {"trained", "seen"}]

    @pytest.mark.parametrize("damage", ["garbage", "cut", "empty", "a folder", "of another run", "no step"])
    def test_a_damaged_checkpoint(self, finetuning, tmp_path, damage):
        """Training begins anew, and says so."""
        checkpoint = tmp_path / "run.safetensors"
        whole = finetuning(epochs=2).fit(silent)
        finetuning(epochs=2, checkpoint=checkpoint).fit(silent)
        content = checkpoint.read_bytes()
        if damage == "a folder":
            checkpoint.unlink()
            checkpoint.mkdir()
        elif damage == "of another run":
            save_tensors(checkpoint, {"trained/context": torch.zeros(3)}, {"epoch": 1, "step": 0})
        elif damage == "no step":
            save_tensors(checkpoint, load_tensors(checkpoint)[0], {"epoch": 1})
        else:
            checkpoint.write_bytes({"garbage": b"nonsense", "cut": content[:-5], "empty": b""}[damage])
        with pytest.warns(UserWarning, match=r"run\.safetensors is damaged: training begins anew"):
            assert same(finetuning(epochs=2, checkpoint=checkpoint).fit(silent), whole)
        assert checkpoint.read_bytes() == content


def test_half_precision_is_scaled(finetuning, colours):
    """float16 has too few small numbers for gradients of 160 examples, unless they are scaled."""
    with use_precision("float16"):
        trained = finetuning(**LEARN["vpt_deep"])
        verdicts = trained.fit(silent)
    assert all(tensor.dtype == torch.float32 for tensor in trained.trained.values())
    assert roc_auc_score(~colours.is_wrong, verdicts.p_clean) >= 0.95


def test_reproducible(finetuning):
    assert same(finetuning(epochs=1).fit(silent), finetuning(epochs=1).fit(silent))
    assert not same(finetuning(epochs=1).fit(silent), finetuning(epochs=1, seed=1).fit(silent))


def test_faithful_keeps_the_verdicts_of_the_last_epoch(finetuning, monkeypatch):
    seen = []
    step = DeftStep.__call__

    def watch(self, *arguments, **more):
        seen.append(step(self, *arguments, **more))
        return seen[-1]

    monkeypatch.setattr(DeftStep, "__call__", watch)
    verdicts = finetuning(epochs=2, protocol="faithful").fit(silent)
    last = seen[len(seen) // 2 :]
    assert sum(len(result.dp) for result in last) == SIZE
    expected = torch.sort(torch.cat([torch.sigmoid(result.margins.double()) for result in last])).values
    torch.testing.assert_close(torch.sort(verdicts.p_clean).values, expected)


def test_events(finetuning):
    events = []
    tuned = finetuning(epochs=4, warmup_epochs=2)
    tuned.fit(events.append)
    assert [event.epoch for event in events] == [1, 2, 3, 4]
    rates = [event.learning_rate for event in events]
    np.testing.assert_allclose(rates, [0.03 * (1 + np.cos(np.pi * e / 4)) / 2 for e in range(4)])
    for event in events:
        assert event.losses["dp"] > 0
        assert event.losses["sim"] > 0
        assert 0 <= event.scalars["selected_fraction"] <= 1
    assert tuned.num_trainable == 3 * 20 * 32 + 2 * 4 * 32
