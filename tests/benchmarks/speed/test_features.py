from __future__ import annotations

import datasets
import pytest
from deft_benchmarks.speed import features as feature_speed
from deft_benchmarks.speed.features import BARE_BATCHES, measure_feature_pass

from deft_plugin.errors import InputError
from deft_plugin.plugins import load_plugins
from deft_plugin.settings import RunSettings


@pytest.fixture
def measure(fake_model, colours):
    data = datasets.Dataset.from_dict(
        {"image": colours.images, "label": colours.labels},
        features=datasets.Features(image=datasets.Image(), label=datasets.Value("int64")),
    )

    def run(data=data, limit=None):
        settings = RunSettings(model="fake", device="cpu", batch_size=16)
        return measure_feature_pass(data, plugins=load_plugins(), settings=settings, limit=limit)

    return run


def test_what_is_measured(measure, fake_model):
    speed = measure()
    assert set(speed) == {
        *("model", "device", "dtype", "batch_size", "num_images"),
        *("bare_images_per_second", "pass_images_per_second", "ratio"),
    }
    assert (speed["model"], speed["device"], speed["batch_size"], speed["num_images"]) == ("fake", "cpu", 16, 120)
    assert speed["ratio"] == pytest.approx(
        speed["pass_images_per_second"] / speed["bare_images_per_second"], abs=2e-3, rel=0.02
    )
    # The bare encoder before and after, with a warm-up of 3 batches each, and the whole pass between them.
    passes = fake_model[0].encoded_batches
    bare = [16] * (3 + BARE_BATCHES)
    assert passes == [*bare, *[16] * 7, 8, *bare]


def test_it_never_reads_the_cache(measure, fake_model, monkeypatch):
    monkeypatch.setattr(feature_speed, "BARE_BATCHES", 1)
    measure()
    measure()
    assert fake_model[0].encoded_batches == fake_model[1].encoded_batches


@pytest.mark.parametrize(("limit", "measured"), [(20, 20), (1000, 120)])
def test_a_limit(measure, limit, measured):
    assert measure(limit=limit)["num_images"] == measured


def test_a_folder(measure, colour_folder):
    assert measure(colour_folder)["num_images"] == 120
    with pytest.raises(InputError, match="limit"):
        measure(colour_folder, limit=20)
