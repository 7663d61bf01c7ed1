"""Recipes of data sets, on small fixtures of the same schema."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from deft_benchmarks.matrix.recipes import Recipe, find_recipe, load_data, read_label_file
from deft_benchmarks.tables.published import read_published
from PIL import Image

from deft_plugin.errors import InputError
from deft_plugin.plugins import load_plugins

FOLDER = Path(__file__).parents[3] / "benchmarks" / "recipes"
RECIPES = sorted(FOLDER.glob("*.json"))
PAPER = ("cifar100", "cifar100n", "clothing1m", "cub200", "stanford_cars", "tiny_imagenet", "webvision")


@pytest.fixture(scope="module")
def plugins():
    return load_plugins()


def table(names, labels, *, label="label", **columns):
    features = {"image": datasets.Image(), label: datasets.ClassLabel(names=list(names))}
    features |= {name: datasets.Value("bool") if name == "order_exact" else features[label] for name in columns}
    images = [Image.new("RGB", (32, 32), (row, 0, 0)) for row in range(len(labels))]
    data = {"image": images, label: labels, **columns}
    return datasets.Dataset.from_dict(data, features=datasets.Features(features))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipes_of_the_repository(file, plugins):
    recipe = find_recipe(str(file), plugins)
    assert recipe.name
    assert recipe.hub or recipe.files or recipe.registered
    content = json.loads(file.read_text())
    assert (recipe.training.protocol == "faithful") == ("training" in content)


def test_published_figures_find_their_data_set(plugins):
    names = {find_recipe(str(file), plugins).name for file in RECIPES}
    published = read_published()
    assert len(published) == 72
    assert {data for data, _, _ in published} <= names
    assert {selector for _, _, selector in published} <= {entry.name for entry in plugins.selectors}
    assert published["CIFAR-100", "sym 0.4", "deft"]["clean_precision"] == 0.9875


def test_the_seven_of_the_paper_have_its_settings(plugins):
    warmup = {"cifar100n": 5, "clothing1m": 5, "webvision": 5}
    for name in PAPER:
        training = find_recipe(str(FOLDER / f"{name}.json"), plugins).training
        assert training.warmup_epochs == warmup.get(name, 1)
        assert training.is_real_noise == (name in warmup)
        assert training.batch_size == (32 if name == "clothing1m" else 64)


@pytest.mark.parametrize("name", ["cifar100", "cifar100n"])
def test_cifar(tmp_path, plugins, name):
    names = ["apple", "bear", "cup"]
    data = table(names, [0, 1, 2, 0], human_noisy_label=[0, 2, 2, 1], order_exact=[True, True, False, True])
    (tmp_path / "cifar100").mkdir()
    data.to_parquet(tmp_path / "cifar100" / "train-00000-of-00001.parquet")
    found = load_data(find_recipe(str(FOLDER / f"{name}.json"), plugins), plugins, tmp_path)
    assert found.data.labels.tolist() == [0, 1, 0]
    assert found.human_labels.tolist() == [0, 2, 1]
    assert found.data.class_names == tuple(names)


def test_human_labels_of_a_file(tmp_path, plugins):
    (tmp_path / "cifar100").mkdir()
    table(["apple", "bear"], [0, 1, 1]).to_parquet(tmp_path / "cifar100" / "train-0.parquet")
    recipe = find_recipe(str(FOLDER / "cifar100.json"), plugins)
    assert load_data(recipe, plugins, tmp_path).human_labels is None
    torch.save(
        {"noisy_label": np.array([0, 0, 1]), "clean_label": np.array([0, 1, 1])}, tmp_path / "CIFAR-100_human.pt"
    )
    assert load_data(recipe, plugins, tmp_path).human_labels.tolist() == [0, 0, 1]
    torch.save({"noisy_label": np.array([0, 0])}, tmp_path / "CIFAR-100_human.pt")
    with pytest.raises(InputError, match=r"3 labels in CIFAR-100_human\.pt, but got 2"):
        load_data(recipe, plugins, tmp_path)


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_a_label_file_executes_nothing(tmp_path, capsys):
    torch.save({"noisy_label": Evil()}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="labels by name, with 'noisy_label'"):
        read_label_file(tmp_path / "x.pt", "noisy_label")
    assert capsys.readouterr().out == ""
    torch.save({"other": np.zeros(3)}, tmp_path / "y.pt")
    with pytest.raises(InputError, match="KeyError"):
        read_label_file(tmp_path / "y.pt", "noisy_label")


def test_classes_that_are_left_out_and_renamed(tmp_path, plugins):
    (tmp_path / "caltech101").mkdir()
    names = ["Faces", "Faces_easy", "anchor"]
    table(names, [0, 1, 2, 1, 0]).to_parquet(tmp_path / "caltech101" / "train.parquet")
    data = load_data(find_recipe(str(FOLDER / "caltech101.json"), plugins), plugins, tmp_path).data
    assert data.class_names == ("face", "anchor")
    assert data.labels.tolist() == [0, 1, 0]
    assert [data.images.load(row).getpixel((0, 0))[0] for row in range(3)] == [0, 2, 4]


def test_wordnet_ids_become_words(tmp_path, plugins):
    for name in ("n01443537", "n02123045"):
        (tmp_path / "webvision" / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "webvision" / "train" / name / "a.png")
    data = load_data(find_recipe(str(FOLDER / "webvision.json"), plugins), plugins, tmp_path).data
    assert data.class_names == ("goldfish", "tabby")
    (tmp_path / "tiny_imagenet").mkdir()
    table(["n01443537", "n02123045"], [0, 1]).to_parquet(tmp_path / "tiny_imagenet" / "train.parquet")
    data = load_data(find_recipe(str(FOLDER / "tiny_imagenet.json"), plugins), plugins, tmp_path).data
    assert data.class_names == ("goldfish", "tabby")
    (tmp_path / "other" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "other" / "cat" / "a.png")
    (tmp_path / "webvision" / "train" / "n02123045").rename(tmp_path / "other" / "dog")
    recipe = Recipe(name="x", files=str(tmp_path / "other"), names_are_wordnet_ids=True)
    with pytest.raises(InputError, match="WordNet ids as class names of x, but got cat, dog"):
        load_data(recipe, plugins, None)


@pytest.mark.parametrize("name", ["stanford_cars", "cub200", "cifar10", "clothing"])
def test_other_files(tmp_path, plugins, name):
    recipe = find_recipe(str(FOLDER / f"{name}.json"), plugins)
    file = tmp_path / recipe.files.replace("*", "")
    file.parent.mkdir()
    table(["a b", "c d"], [0, 1, 1]).to_parquet(file)
    assert load_data(recipe, plugins, tmp_path).data.labels.tolist() == [0, 1, 1]


def test_the_hub_is_asked_without_a_folder(plugins, monkeypatch):
    asked = []

    def load(*arguments, **more):
        asked.append((arguments, more))
        return table(["a", "b"], [0, 1], label="fine_label")

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = load_data(find_recipe(str(FOLDER / "cifar100.json"), plugins), plugins, None).data
    assert asked == [(("uoft-cs/cifar100", None), {"split": "train"})]
    assert data.label_column == "fine_label"


def test_without_network(plugins, monkeypatch):
    def load(*_arguments, **_more):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InputError, match=r"CIFAR-100 from the hub .*no network.*pass --data"):
        load_data(find_recipe(str(FOLDER / "cifar100.json"), plugins), plugins, None)
    with pytest.raises(InputError, match="Clothing1M in a folder: pass --data"):
        load_data(find_recipe(str(FOLDER / "clothing1m.json"), plugins), plugins, None)


def test_registered_data_and_paths(plugins, colour_folder):
    assert find_recipe("clothing_demo", plugins).registered == "clothing_demo"
    recipe = find_recipe(str(colour_folder), plugins)
    assert recipe.training is None
    assert len(load_data(recipe, plugins, None).data.labels) == 120
    with pytest.raises(InputError, match=r"Expected a recipe .*clothing_demo.* but got 'nothing'"):
        find_recipe("nothing", plugins)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "to be a recipe"),
        ("{}", "with 'data'"),
        ('{"data": {"name": "x", "hubs": "y"}}', "Unknown key 'hubs' .*Did you mean 'hub'"),
        ('{"data": {"name": "x"}, "training": {"epoch": 1}}', "Unknown training setting 'epoch'"),
    ],
)
def test_bad_recipes(tmp_path, plugins, text, words):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=words):
        find_recipe(str(tmp_path / "x.json"), plugins)


def test_columns_that_are_not_there(tmp_path, plugins):
    table(["a", "b"], [0, 1]).to_parquet(tmp_path / "train.parquet")
    for more, words in (
        ({"label_columns": ("y",)}, "label column .y."),
        ({"drop_classes": ("z",)}, "class 'z' to drop"),
    ):
        with pytest.raises(InputError, match=words):
            load_data(Recipe(name="x", files="train.parquet", **more), plugins, tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "'data' is \\[\\]"),
        (None, "'data' is None"),
        ({}, "Expected 'name' in 'data'"),
        ({"name": ""}, "Expected 'name' in 'data'"),
        ({"name": 5}, "Expected 'name' in 'data' of .* to be a string, but got 5"),
        ({"name": "a\nb"}, "to be printable"),
        ({"name": "\ud800"}, "to be printable"),
        ({"name": "a", "hub": 5}, "Expected 'hub' in 'data' of .* to be a string or null, but got 5"),
        (
            {"name": "a", "label_columns": "fine"},
            "Expected 'label_columns' .* to be a list, each a string, but got 'fine'",
        ),
        ({"name": "a", "drop_classes": [1]}, "Expected 'drop_classes' .* to be a list, each a string"),
        ({"name": "a", "class_names": {"0": 1}}, "Expected 'class_names' .* to be an object, each a string"),
        ({"name": "a", "names_are_wordnet_ids": 1}, "to be true or false, but got 1"),
        ({"name": "a", "human_labels": "x"}, "Expected 'human_labels' in .* to be an object with column, file, key"),
        ({"name": "a", "human_labels": {"colum": "x"}}, "Unknown key 'colum' .* Did you mean 'column'"),
        ({"name": "a", "human_labels": {"column": 5}}, "Expected 'column' in 'human_labels'"),
        ({"name": "a", "split": None}, "Expected 'split' .* to be a string, but got None"),
    ],
)
def test_wrong_values_in_a_recipe(tmp_path, plugins, data, words):
    file = tmp_path / "r.json"
    file.write_text(json.dumps({"data": data}))
    with pytest.raises(InputError, match=words) as caught:
        find_recipe(str(file), plugins)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "[" * 100_000, '{"data": {"name": "a"}, "training": 3}', '{"training": {}}']
)
def test_files_that_are_no_recipes(tmp_path, plugins, content):
    file = tmp_path / "r.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"Expected .*r\.json to be "):
        find_recipe(str(file), plugins)


@pytest.mark.parametrize("name", ["", "x" * 5000, "\0", "nowhere"])
def test_no_such_recipe(plugins, name):
    with pytest.raises(InputError, match=r"Expected a recipe \(a \.json file"):
        find_recipe(name, plugins)


def test_a_folder_is_no_recipe(tmp_path, plugins):
    (tmp_path / "r.json").mkdir()
    with pytest.raises(InputError, match="to be a recipe, a JSON object with 'data', but IsADirectoryError"):
        find_recipe(str(tmp_path / "r.json"), plugins)


@pytest.mark.parametrize("name", [".", "..", "a/.."])
def test_a_folder_without_a_name_of_its_own(tmp_path, plugins, monkeypatch, name):
    (tmp_path / "here" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    found = find_recipe(name, plugins).name
    assert (
        found
        == {".": f"{tmp_path.name}/here", "..": "/".join(tmp_path.parts[-2:]), "a/..": f"{tmp_path.name}/here"}[name]
    )


def test_an_image_column_that_is_not_there(tmp_path, plugins):
    table(["a", "b"], [0, 1, 0]).to_parquet(tmp_path / "data.parquet")
    recipe = Recipe(name="x", files="data.parquet", label_columns=("label",), image_column="img")
    with pytest.raises(InputError, match="Expected an image column 'img' in x, but got image, label"):
        load_data(recipe, plugins, tmp_path)
