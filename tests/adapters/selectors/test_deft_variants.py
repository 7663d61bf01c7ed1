"""Variants of DeFT: each changes one thing, and shares the training of the others where it can."""

from __future__ import annotations

import numpy as np
import pytest
from deft_adapters.selectors.deft_mixture import find_threshold
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

import deft_plugin
from deft_plugin import Deft, FinetuneSettings
from deft_plugin.deft.frozen import FrozenTuning
from deft_plugin.errors import InputError
from deft_plugin.plugins import load_plugins
from deft_plugin.runs.prepare import prepare_run, relabel
from deft_plugin.settings import FrozenSettings, RunSettings

SHARING = ("deft", "deft_posterior", "deft_mixture")


@pytest.fixture
def trainings(monkeypatch):
    """Settings of each training of prompts on features."""
    found, fit = [], FrozenTuning.fit

    def counted(self, epoch_end):
        found.append(self.settings)
        return fit(self, epoch_end)

    monkeypatch.setattr(FrozenTuning, "fit", counted)
    return found


@pytest.fixture
def prepared(fake_model, colour_maker):
    colours = colour_maker(num_examples=240, noise_ratio=0.3)
    settings = RunSettings(model="fake", device="cpu")
    run = prepare_run(
        colours.images, colours.labels, class_names=colours.names, settings=settings, plugins=load_plugins()
    )
    return run, colours


def select(run, name):
    return load_plugins().selectors.load(name).select(run)


def test_they_train_once_on_a_run(prepared, trainings):
    run = prepared[0].run
    selections = [select(run, name) for name in SHARING]
    assert trainings == [FrozenSettings()]
    np.testing.assert_array_equal(selections[0].is_clean, selections[1].is_clean)
    select(run, "deft_in_sample")
    assert trainings == [FrozenSettings(), FrozenSettings(is_out_of_sample=False)]


def test_they_say_that_they_are_variants():
    selectors = load_plugins().selectors
    of_deft = selectors.get("deft").traits
    for name in ("deft_posterior", "deft_mixture", "deft_in_sample", "deft_faithful"):
        assert selectors.get(name).traits.variant_of == "deft"
    for name in SHARING[1:]:
        assert selectors.get(name).traits.consumes == of_deft.consumes


def test_other_labels_are_another_training(prepared, trainings):
    first, colours = prepared
    again = relabel(first, colours.truth, first.run.settings, plugins=load_plugins())
    before, after = (select(of.run, "deft").label_quality for of in (first, again))
    assert len(trainings) == 2
    assert (before != after).any()


def test_other_settings_are_another_training(prepared, trainings):
    run = prepared[0].run
    Deft().select(run)
    Deft(frozen=FrozenSettings(epochs=3)).select(run)
    assert [settings.epochs for settings in trainings] == [10, 3]


@pytest.mark.parametrize("name", ["deft_mixture", "deft_posterior", "deft_in_sample"])
def test_each_finds_wrong_colours(prepared, name):
    run, colours = prepared
    selection = select(run.run, name)
    assert roc_auc_score(~colours.is_wrong, selection.label_quality) > 0.95
    assert selection.is_clean[colours.is_wrong].mean() < 0.2
    assert selection.is_clean[~colours.is_wrong].mean() > 0.9


def test_posterior_is_a_probability_of_the_given_label(prepared):
    run = prepared[0].run
    quality = select(run, "deft_posterior").label_quality
    assert ((quality >= 0) & (quality <= 1)).all()
    assert not np.allclose(quality, select(run, "deft").label_quality)
    predicted = select(run, "deft").predicted_labels
    assert (quality[predicted != run.labels] <= 0.5).all()


@pytest.mark.parametrize("name", ["deft_posterior", "deft_in_sample"])
def test_they_do_not_stand_in_for_another_tuning(prepared, name):
    with pytest.raises(InputError, match=r"Expected tuning='frozen' to learn prompts .* but got 'lora'"):
        select(prepared[0].run.with_settings(tuning="lora"), name)


class TestMixture:
    def margins(self, size=4000, low=0.4, upper=6.0):
        rng = np.random.default_rng(0)
        is_low = rng.random(size) < low
        return np.where(is_low, rng.normal(1.0, 1.5, size), rng.normal(upper, 1.5, size)), is_low

    def test_the_threshold_is_where_the_densities_cross(self):
        threshold = find_threshold(self.margins()[0], seed=0)
        grid = np.linspace(1, 6, 50_001)
        low, high = 0.4 * norm.pdf(grid, 1.0, 1.5), 0.6 * norm.pdf(grid, 6.0, 1.5)
        assert threshold == pytest.approx(grid[np.abs(low - high).argmin()], abs=0.25)

    def test_it_parts_what_zero_does_not(self):
        margins, is_low = self.margins()
        assert ((margins > find_threshold(margins, seed=0)) == ~is_low).mean() > 0.93
        assert ((margins > 0) == ~is_low).mean() < 0.75

    def test_margins_that_are_all_the_same_keep_their_verdict(self):
        for margin in (-20.0, -2.0, 3.0, 20.0):
            assert find_threshold(np.full(5, margin), seed=0) == 0

    def test_two_margins(self):
        assert find_threshold(np.array([-1.0, 4.0]), seed=0) == pytest.approx(1.5, abs=0.1)

    def test_it_ranks_as_deft_does(self, prepared):
        run = prepared[0].run
        qualities = [select(run, name).label_quality for name in ("deft", "deft_mixture")]
        assert spearmanr(*qualities).statistic == pytest.approx(1)

    def test_it_tells_its_threshold_and_does_not_change_deft(self, prepared):
        run, _ = prepared
        before = select(run.run, "deft")
        selection = select(run.run, "deft_mixture")
        threshold = selection.details["threshold_of_p_clean"]
        np.testing.assert_array_equal(selection.is_clean, before.label_quality > threshold)
        after = select(run.run, "deft")
        np.testing.assert_array_equal(after.is_clean, before.is_clean)
        assert "threshold_of_p_clean" not in after.details


class TestFaithful:
    def test_it_needs_a_cone(self, colours, fake_model):
        with pytest.raises(InputError, match="Expected a CLIP for protocol='faithful', but 'fake' has centred"):
            deft_plugin.detect(
                colours.images, colours.labels, class_names=colours.names, model="fake", method="deft_faithful"
            )

    def test_it_trains_a_clip_with_the_settings_of_the_run(self, colours, tiny_model_folder, tmp_path):
        training = FinetuneSettings(epochs=2, batch_size=40, n_ctx=2)
        common = {"class_names": colours.names, "model": str(tiny_model_folder), "cache_dir": tmp_path}
        detection = deft_plugin.detect(
            colours.images, colours.labels, method="deft_faithful", training=training, **common
        )
        assert detection.details["protocol"] == "faithful"
        assert detection.details["tuning"] == "vpt_deep"
        assert (detection.details["epochs"], detection.details["batch_size"]) == (2, 40)
        as_asked = deft_plugin.detect(
            colours.images,
            colours.labels,
            tuning="vpt_deep",
            training=FinetuneSettings(epochs=2, batch_size=40, n_ctx=2, protocol="faithful"),
            **common,
        )
        np.testing.assert_array_equal(detection.label_quality, as_asked.label_quality)

    def test_another_tuning_can_be_asked_for(self, colours, tiny_model_folder, tmp_path):
        detection = deft_plugin.detect(
            colours.images,
            colours.labels,
            class_names=colours.names,
            model=str(tiny_model_folder),
            method="deft_faithful",
            tuning="bitfit",
            training=FinetuneSettings(epochs=1, batch_size=60, n_ctx=2),
            cache_dir=tmp_path,
        )
        assert detection.details["tuning"] == "bitfit"
