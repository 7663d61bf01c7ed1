import json
from pathlib import Path

import pytest

from deft_plugin import FinetuneSettings
from deft_plugin.errors import InputError
from deft_plugin.settings import read_recipe

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
        ('{"epochs": 0}', "epochs of at least 1, but got 0"),
    ],
)
def test_bad_recipes(tmp_path, text, words):
    file = tmp_path / "recipe.json"
    file.write_text(text)
    with pytest.raises(InputError, match=words):
        read_recipe(file)


def test_notes_and_defaults(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"_source": "me", "epochs": 3}))
    assert read_recipe(file) == FinetuneSettings(epochs=3)
