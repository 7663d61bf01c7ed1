"""Time of selectors alone and together."""

from deft_benchmarks.matrix.recipes import Recipe, load_data
from deft_benchmarks.speed.sharing import measure_sharing

from deft_plugin.plugins import load_plugins
from deft_plugin.settings import RunSettings


def test_together_is_less_than_the_sum(fake_model, colour_folder):
    plugins, told = load_plugins(), []
    truth = load_data(Recipe(name="x", files=str(colour_folder)), plugins, None)
    found = measure_sharing(
        truth,
        plugins=plugins,
        selectors=("small_loss", "gmm", "label_match"),
        settings=RunSettings(model="fake", device="cpu"),
        noise_ratio=0.3,
        report=lambda name, seconds: told.append(name),
    )
    assert told == ["small_loss", "gmm", "label_match", "all"]
    assert set(found["alone"]) == {"small_loss", "gmm", "label_match"}
    assert found["ratio"] == found["together"] / found["sum_of_alone"] < 1
    assert sum(len(model.encoded_batches) for model in fake_model) == len(fake_model[0].encoded_batches), "one pass"
