import dataclasses
import inspect
import json
from pathlib import Path

import click
import numpy as np
import pytest

import deft_plugin
from deft_plugin import FinetuneSettings
from deft_plugin.errors import DeftError, InputError
from deft_plugin.options import run_options
from deft_plugin.runs import default_cache_dir
from deft_plugin.settings import FrozenSettings, ProbeSettings, RunSettings, read_recipe

FILES = sorted((Path(__file__).parents[1] / "benchmarks" / "recipes").glob("*.json"))
RECIPES = [file for file in FILES if "training" in json.loads(file.read_text())]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipes_of_the_paper(file):
    settings = read_recipe(file)
    assert settings.protocol == "faithful"
    assert settings.is_real_noise == (settings.warmup_epochs == 5)
    assert settings.batch_size == (32 if file.stem == "clothing1m" else 64)


def test_there_are_the_seven_of_the_paper():
    names = {file.stem for file in RECIPES}
    assert names - {"cifar10n"} == {
        *("cifar100", "cifar100n", "clothing1m", "cub200", "stanford_cars", "tiny_imagenet", "webvision")
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"epoch": 3}', "Unknown training setting 'epoch' .*Did you mean 'epochs'"),
        ("[1]", "Expected .* to be a JSON object"),
        ("{", "Expected .* to be a JSON object"),
        ('{"protocol": "loyal"}', "protocol to be 'default' or 'faithful', but got 'loyal'"),
        ('{"epochs": 0}', "epochs of at least 1, but got 0. Mend it in "),
        ('{"epochs": "3"}', "epochs to be a whole number, but got '3'. Mend it in "),
        ('{"is_real_noise": 1}', "is_real_noise to be True or False, but got 1"),
        ('{"learning_rate": NaN}', "learning_rate of at least 0, but got nan"),
        ('{"data": {}, "training": [1]}', "Expected 'training' in .* to be a JSON object"),
        ("null", "a JSON object of training settings, but it holds NoneType"),
        ("", "Expected .* to be a JSON object"),
        ("[" * 100_000, "Expected .* to be a JSON object of training settings, but RecursionError"),
        ("\udcff", "Expected .* to be a JSON object of training settings, but UnicodeDecodeError"),
    ],
)
def test_bad_recipes(tmp_path, text, words):
    file = tmp_path / "recipe.json"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=words):
        read_recipe(file)


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(InputError, match="to be a JSON object of training settings, but IsADirectoryError"):
        read_recipe(tmp_path)


WRONG = [
    *(("seed", value) for value in ("x", True, -1, 2**70, 1.5, None, float("nan"), [0])),
    *(("n_folds", value) for value in ("3", 1, 2.0, 2**70)),
    *(("batch_size", value) for value in (0, -5, "64", None, 10**400)),
    *(("device", value) for value in (5, None, b"cpu")),
    *(("model", value) for value in (None, 5, ["a"])),
    *(("tuning", value) for value in (3, None, ["frozen"])),
    *(("precision", value) for value in (16, None, ("auto",))),
    *(("noise_ratio", value) for value in ("a", float("nan"), float("inf"), 2, -0.1, True, 10**400, 1j)),
    *(("noise_ratio_source", value) for value in ("told", None, [])),
    *(("on_bad_image", value) for value in ("skip", None, {})),
    *(("cache_dir", value) for value in (5, b"cache", "a\0b", "x" * 5000, __file__, f"{__file__}/below")),
    *(("training", value) for value in ({"epochs": 3}, "x", FinetuneSettings, FrozenSettings(), 3)),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: repr(value)[:20])
def test_a_setting_that_cannot_be(name, value):
    """One line that names the setting, and is no longer than people read."""
    with pytest.raises(DeftError, match=f"(Expected|Unknown) {name} ") as caught:
        RunSettings(**{name: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", [FinetuneSettings, FrozenSettings, ProbeSettings, RunSettings])
def test_no_field_takes_an_object(kind):
    """Whatever fields there will be."""
    for field in dataclasses.fields(kind):
        with pytest.raises(InputError, match=f"Expected {field.name} to be .*, but got "):
            kind(**{field.name: object()})


def test_numbers_of_numpy_are_kept_as_those_of_python():
    settings = RunSettings(seed=np.int64(3), noise_ratio=np.float32(0.5), batch_size=np.uint8(4))
    assert settings == RunSettings(seed=3, noise_ratio=0.5, batch_size=4)
    assert (type(settings.seed), type(settings.noise_ratio), type(settings.batch_size)) == (int, float, int)


def test_a_cache_folder_of_the_environment_that_is_a_file(monkeypatch):
    monkeypatch.setenv("DEFT_CACHE_DIR", __file__)
    with pytest.raises(InputError, match="Expected DEFT_CACHE_DIR to be a folder"):
        default_cache_dir()


def test_notes_and_defaults(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"_source": "me", "epochs": 3}))
    assert read_recipe(file) == FinetuneSettings(epochs=3)


RUN_SETTINGS = {field.name: field.default for field in dataclasses.fields(RunSettings)}


@pytest.mark.parametrize("function", [deft_plugin.detect, deft_plugin.find_label_issues])
def test_the_keywords_of_a_function_have_the_defaults_of_the_settings(function):
    """The source of a noise ratio is for comparisons, which hand over settings."""
    parameters = inspect.signature(function).parameters
    shared = {name: parameters[name].default for name in RUN_SETTINGS if name in parameters}
    assert shared == {name: value for name, value in RUN_SETTINGS.items() if name != "noise_ratio_source"}


def test_the_options_of_the_command_line_have_the_defaults_of_the_settings():
    @click.command()
    @run_options()
    def command(settings):
        seen.append(settings)

    seen = []
    command.main([], standalone_mode=False)
    assert seen == [RunSettings()]
    command.main(["--seed", "3", "--noise-ratio", "0.2"], standalone_mode=False)
    assert seen[1] == RunSettings(seed=3, noise_ratio=0.2)


class TestSettingsOfARun:
    def test_all_at_once(self, fake_model, colours):
        settings = RunSettings(model="fake", seed=5, device="cpu")
        found = deft_plugin.detect(colours.images, colours.labels, class_names=colours.names, settings=settings)
        same = deft_plugin.detect(
            colours.images, colours.labels, class_names=colours.names, model="fake", seed=5, device="cpu"
        )
        np.testing.assert_array_equal(found.label_quality, same.label_quality)
        assert found.settings["seed"] == 5

    def test_not_beside_keywords_that_say_otherwise(self):
        with pytest.raises(InputError, match=r"Expected settings or keywords, but got settings and seed\. Put them"):
            deft_plugin.detect("photos", settings=RunSettings(), seed=1)

    def test_nothing_else(self):
        with pytest.raises(InputError, match=r"Expected settings as a deft_plugin\.RunSettings, but got dict"):
            deft_plugin.find_label_issues("photos", settings={"seed": 1})

    def test_what_steered_the_verdicts_is_recorded(self, fake_model, colours):
        found = deft_plugin.detect(colours.images, colours.labels, class_names=colours.names, model="fake", n_folds=4)
        assert found.settings["frozen"] == dataclasses.asdict(FrozenSettings())
        assert {"model", "tuning", "device", "precision", "seed", "noise_ratio", "n_folds"} < set(found.settings)
        assert found.settings["n_folds"] == 4

    @pytest.mark.parametrize("method", ["deft_posterior", "deft_in_sample", "deft_mixture"])
    def test_variants_record_it_too(self, fake_model, colours, method):
        found = deft_plugin.detect(
            colours.images, colours.labels, class_names=colours.names, model="fake", method=method
        )
        expected = FrozenSettings(is_out_of_sample=method != "deft_in_sample")
        assert found.settings["frozen"] == dataclasses.asdict(expected)

    def test_the_number_of_folds_matters(self, fake_model, colours):
        arguments = {"class_names": colours.names, "model": "fake"}
        four, ten = (deft_plugin.detect(colours.images, colours.labels, n_folds=n, **arguments) for n in (4, 10))
        assert not np.array_equal(four.label_quality, ten.label_quality)

    def test_one_fold_is_none(self):
        with pytest.raises(InputError, match="Expected n_folds of at least 2, to judge one by the others, but got 1"):
            RunSettings(n_folds=1)


def test_a_schedule_that_does_not_exist():
    with pytest.raises(InputError, match="Expected schedule to be 'cosine' or 'constant', but got 'linear'"):
        FinetuneSettings(schedule="linear")
