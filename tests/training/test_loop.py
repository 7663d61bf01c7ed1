"""The training loop with a trainee of a few lines, that is not DeFT: a linear map of mean colours to labels."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from deft_plugin.settings import LoopSettings
from deft_plugin.training import TrainingLoop, Views

SIZE = 50


class Greys:
    """Images of one grey each; the label says which half of the scale it is from."""

    def __init__(self):
        self.levels = np.random.default_rng(0).integers(0, 256, SIZE)
        self.labels = torch.as_tensor(self.levels > 127).long()

    def __len__(self):
        return SIZE

    def load(self, row):
        return Image.new("RGB", (8, 8), (int(self.levels[row]),) * 3)

    def path(self, row):
        return None

    def fingerprint(self):
        return "greys"


class LinearTrainee:
    def __init__(self, images, *, momentum=0.9):
        self.images = images
        self.weight = torch.zeros(2, 2, requires_grad=True)
        self.trained = {"weight": self.weight}
        self.optimizers = [torch.optim.SGD([self.weight], lr=0.5, momentum=momentum)]
        self.seen = {"loss": torch.zeros(1, dtype=torch.float64), "rows": torch.zeros(SIZE)}
        self.begun, self.batches = [], []

    def begin_epoch(self, epoch):
        self.begun.append(epoch)

    def loss(self, batch):
        self.batches.append((batch.epoch, batch.rows.tolist(), batch.pixels.mean().item()))
        level = batch.pixels.amax((1, 2, 3))
        logits = torch.stack([level, torch.ones_like(level)], dim=1) @ self.weight.T
        losses = F.cross_entropy(logits, self.images.labels[batch.share], reduction="none")
        self.seen["loss"] += losses.detach().double().sum()
        self.seen["rows"][batch.share] += 1
        return losses.sum() / len(batch.rows)

    def report(self, seen):
        return {"ce": float(seen["loss"]) / SIZE}, {"rows": float(seen["rows"].sum())}


def preprocess(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.fixture
def images():
    return Greys()


@pytest.fixture
def build(images):
    def make(*, checkpoint=None, seed=0, **settings):
        trainee = LinearTrainee(images)
        settings = LoopSettings(**{"epochs": 3, "batch_size": 16, "checkpoint_steps": 1, **settings})
        views = Views(images, preprocess, seed=seed, device="cpu")
        return trainee, TrainingLoop(trainee, views, settings=settings, seed=seed, checkpoint=checkpoint)

    return make


def test_each_row_once_an_epoch_in_another_order(build):
    trainee, loop = build()
    events = []
    loop.run(events.append)
    for epoch in (1, 2, 3):
        rows = [row for of, batch, _ in trainee.batches if of == epoch for row in batch]
        assert sorted(rows) == list(range(SIZE))
    orders = [[batch for of, batch, _ in trainee.batches if of == epoch] for epoch in (1, 2)]
    assert orders[0] != orders[1]
    assert [len(batch) for batch in orders[0]] == [16, 16, 16, 2]
    assert trainee.begun == [1, 2, 3]
    assert [event.scalars["rows"] for event in events] == [SIZE, SIZE, SIZE]
    assert events[-1].losses["ce"] < events[0].losses["ce"] < 0.7


@pytest.mark.parametrize(("schedule", "expected"), [("cosine", [0.5, 0.375, 0.125]), ("constant", [0.5, 0.5, 0.5])])
def test_schedules(build, schedule, expected):
    events = []
    build(schedule=schedule)[1].run(events.append)
    assert [event.learning_rate for event in events] == pytest.approx(expected)


@pytest.mark.parametrize("steps", range(1, 13))
def test_killed_at_any_step_it_ends_as_a_whole_run(build, tmp_path, monkeypatch, steps):
    whole, loop = build()
    events = []
    loop.run(events.append)

    _, loop = build(checkpoint=tmp_path / "x.safetensors")
    fit = TrainingLoop._fit
    done = 0

    def die(self, batch):
        nonlocal done
        done += 1
        if done > steps:
            raise KeyboardInterrupt
        fit(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_fit", die)
        if steps < 12:
            with pytest.raises(KeyboardInterrupt):
                loop.run(lambda _: None)
        else:
            loop.run(lambda _: None)
    resumed, loop = build(checkpoint=tmp_path / "x.safetensors")
    again = []
    loop.run(again.append)
    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.seen["rows"], whole.seen["rows"])
    assert [(e.epoch, e.losses, e.scalars) for e in again] == [
        (e.epoch, e.losses, e.scalars) for e in events[len(events) - len(again) :]
    ]
    assert resumed.batches == whole.batches[steps:]


def test_gradients_are_clipped(build):
    free, loop = build(epochs=1, batch_size=SIZE)
    loop.run(lambda _: None)
    clipped, loop = build(epochs=1, batch_size=SIZE, max_grad_norm=0.01)
    loop.run(lambda _: None)
    assert float(clipped.weight.detach().norm()) == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert float(free.weight.detach().norm()) > 0.01


def test_another_seed_sees_other_batches(build):
    one, loop = build(seed=0)
    loop.run(lambda _: None)
    other, loop = build(seed=1)
    loop.run(lambda _: None)
    assert one.batches[0][1] != other.batches[0][1]
