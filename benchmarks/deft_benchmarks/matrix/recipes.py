"""Recipes: small JSON files that say what a data set is, and how the paper trains on it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from deft_benchmarks.matrix.json_fields import check_fields
from deft_plugin import FinetuneSettings
from deft_plugin.data import ImageData, check_labels, holds_dataset, read_dataset, read_image_data
from deft_plugin.errors import InputError, did_you_mean
from deft_plugin.settings import read_json, read_recipe

if TYPE_CHECKING:
    from deft_plugin.plugins import Plugins


@dataclass(frozen=True, kw_only=True)
class HumanLabels:
    """Wrong labels that people gave.

    Attributes
    ----------
    column : str, optional
        Where they are in the data set.
    file, key : str, optional
        A ``.pt`` file of the authors (a dict of arrays) below the data folder, and its entry; for a data set without
        the column.
    """

    column: str | None = None
    file: str | None = None
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Where a data set comes from, and what of it is used.

    Attributes
    ----------
    name : str
        As in tables; the published figures are found by it.
    hub, config, split : str, optional
        Name, configuration and split on the Hugging Face hub.
    files : str, optional
        Parquet files (a glob) or a folder of class folders, below the folder that ``--data`` names.
    registered : str, optional
        A data set that a plugin registered, instead.
    label_columns : tuple of str
        Names of the label column, the first that there is; the hub's and the files' may differ.
    image_column : str, optional
        If there are several.
    class_names : dict of str to str
        Better words for some classes: DeFT reads them.
    drop_classes : tuple of str
        Classes that are left out, by their name in the data.
    names_are_wordnet_ids : bool
        Class names are such as n01443537: the first word of each is read instead.
    keep_where : str, optional
        Column of bool; rows without it are left out. Data without the column are taken whole.
    human_labels : HumanLabels, optional
    training : FinetuneSettings, optional
        The paper's settings for tunings that train the encoder; without them, those of the selectors.
    """

    name: str
    hub: str | None = None
    config: str | None = None
    split: str = "train"
    files: str | None = None
    registered: str | None = None
    label_columns: tuple[str, ...] = ()
    image_column: str | None = None
    class_names: dict[str, str] = field(default_factory=dict[str, str])
    drop_classes: tuple[str, ...] = ()
    names_are_wordnet_ids: bool = False
    keep_where: str | None = None
    human_labels: HumanLabels | None = None
    training: FinetuneSettings | None = None


@dataclass(frozen=True, kw_only=True)
class TrueData:
    """A data set whose labels are taken as the truth.

    Attributes
    ----------
    data : ImageData
    human_labels : np.ndarray of shape (N,), int64, optional
    """

    data: ImageData
    human_labels: np.ndarray | None = None


def find_recipe(name: str, plugins: Plugins) -> Recipe:
    """Read a recipe, or make one of a registered data set, or of a path to data.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    path = Path(name)
    if path.suffix == ".json":
        return _read(path)
    if any(entry.name == name for entry in plugins.datasets):
        return Recipe(name=name, registered=name)
    if _is_there(name):
        plain = path if path.parts and ".." not in path.parts else Path(os.path.normpath(path.absolute()))
        return Recipe(name="/".join(plain.parts[-2:]), files=str(path.absolute()))
    known = ", ".join(entry.name for entry in plugins.datasets)
    raise InputError(
        f"Expected a recipe (a .json file, such as benchmarks/recipes/cifar100.json), a registered data set ({known}) "
        f"or a path to data, but got {name!r}."
    )


def load_data(recipe: Recipe, plugins: Plugins, root: Path | None) -> TrueData:
    """Load the data of a recipe: from files if a folder is given, else from the hub.

    Raises
    ------
    InputError
        If the data are not there, or are not what the recipe says.
    """
    raw = load_raw(recipe, plugins, root)
    if not hasattr(raw, "features"):
        data = read_image_data(raw)
        return TrueData(data=replace(data, class_names=_readable_names(recipe, data.class_names)))
    if recipe.keep_where in raw.features:
        raw = raw.select(np.flatnonzero(np.asarray(raw[recipe.keep_where])))
    column = next((name for name in recipe.label_columns if name in raw.features), None)
    if recipe.label_columns and column is None:
        raise InputError(
            f"Expected a label column ({', '.join(recipe.label_columns)}) in {recipe.name}, but got "
            f"{', '.join(raw.features)}."
        )
    human = _read_human_labels(recipe, raw, root)
    if recipe.image_column is not None and recipe.image_column not in raw.features:
        raise InputError(
            f"Expected an image column {recipe.image_column!r} in {recipe.name}, but got {', '.join(raw.features)}."
        )
    if recipe.image_column is not None and column is not None:
        raw = raw.select_columns([recipe.image_column, column])
    truth = read_image_data(raw, column)
    if recipe.drop_classes:
        truth, human = _without_classes(recipe, raw, truth, human)
    return TrueData(data=replace(truth, class_names=_readable_names(recipe, truth.class_names)), human_labels=human)


def load_raw(recipe: Recipe, plugins: Plugins, root: Path | None) -> Any:
    """Load the data of a recipe as they come, with all their rows, columns and names.

    Parameters
    ----------
    recipe : Recipe
    plugins : Plugins
    root : Path, optional
        Folder of the files that recipes name.

    Raises
    ------
    InputError
        If the data are not there.
    """
    if recipe.registered is not None:
        return plugins.datasets.load(recipe.registered)
    if recipe.files is not None and (root is not None or Path(recipe.files).is_absolute()):
        path = (root or Path()) / recipe.files
        return read_dataset(path) if holds_dataset(path) else path
    if recipe.hub is None:
        raise InputError(f"Expected the data of {recipe.name} in a folder: pass --data, which holds {recipe.files}.")
    import datasets

    try:
        return datasets.load_dataset(recipe.hub, recipe.config, split=recipe.split)
    except Exception as error:  # whatever the hub, the network and datasets raise
        raise InputError(
            f"Expected to load {recipe.name} from the hub ({recipe.hub}), but {type(error).__name__}: {error}. With "
            f"the files at hand, pass --data, the folder that holds {recipe.files or 'them'}."
        ) from error


def _is_there(name: str) -> bool:
    try:
        return bool(name) and (holds_dataset(name) or Path(name).exists())
    except (OSError, ValueError):  # a name that is too long, or has a null character
        return False


def _read(path: Path) -> Recipe:
    data = read_json(path, what="a recipe, a JSON object with 'data'").get("data")
    if not isinstance(data, dict):
        raise InputError(f"Expected {path} to be a recipe, a JSON object with 'data', but 'data' is {data!r:.40}.")
    items = {key: value for key, value in cast("dict[str, Any]", data).items() if not key.startswith("_")}
    known = [each.name for each in fields(Recipe) if each.name != "training"]
    for key in items:
        if key not in known:
            raise InputError(f"Unknown key {key!r} in 'data' of {path}. {did_you_mean(key, known)}")
    if not items.get("name"):
        raise InputError(f"Expected 'name' in 'data' of {path}: tables and results are found by it.")
    human = items.pop("human_labels", None)
    check_fields(Recipe, items, f"'data' of {path}")
    if not items["name"].isprintable():
        raise InputError(f"Expected 'name' in 'data' of {path} to be printable, but got {items['name']!r:.80}.")
    for key in ("label_columns", "drop_classes"):
        if key in items:
            items[key] = tuple(items[key])
    return Recipe(training=read_recipe(path), human_labels=_read_human_source(human, path), **items)


def _read_human_source(source: Any, path: Path) -> HumanLabels | None:
    if source is None:
        return None
    known = [each.name for each in fields(HumanLabels)]
    if not isinstance(source, dict):
        raise InputError(f"Expected 'human_labels' in {path} to be an object with {', '.join(known)}: {source!r:.40}.")
    items = cast("dict[str, Any]", source)
    for key in items:
        if key not in known:
            raise InputError(f"Unknown key {key!r} in 'human_labels' of {path}. {did_you_mean(key, known)}")
    check_fields(HumanLabels, items, f"'human_labels' of {path}")
    return HumanLabels(**items)


def _read_human_labels(recipe: Recipe, dataset: Any, root: Path | None) -> np.ndarray | None:
    """Labels (N,) that people gave, as class indices; None if the recipe has none, or they are not at hand."""
    source = recipe.human_labels
    if source is None:
        return None
    if source.column in dataset.features:
        return check_labels(dataset[source.column], class_names=dataset.features[source.column].names)[0]
    if source.file is None or source.key is None or root is None or not (root / source.file).is_file():
        return None
    labels = read_label_file(root / source.file, source.key)
    if len(labels) != len(dataset):
        raise InputError(f"Expected {len(dataset)} labels in {source.file}, but got {len(labels)}.")
    return labels


def read_label_file(file: Path, key: str) -> np.ndarray:
    """Read labels (N,) from a ``.pt`` file, such as CIFAR-N's; nothing in it is executed.

    Raises
    ------
    InputError
        If the file holds anything but arrays by name, or has no such entry.
    """
    import torch

    known: list[Any] = [
        np.empty(0).__reduce__()[0],
        np.ndarray,
        np.dtype,
        *(type(np.dtype(kind)) for kind in "ilqbBfd"),
    ]
    try:
        with torch.serialization.safe_globals(known):
            content = torch.load(file, weights_only=True)
        return np.asarray(content[key]).astype(np.int64)
    except Exception as error:
        raise InputError(
            f"Expected {file} to hold labels by name, with {key!r} among them, but {type(error).__name__}: {error}"
        ) from error


def _readable_names(recipe: Recipe, names: tuple[str, ...]) -> tuple[str, ...]:
    words: dict[str, str] = {}
    if recipe.names_are_wordnet_ids:
        from timm.data.imagenet_info import ImageNetInfo

        info: Any = ImageNetInfo("imagenet21k")
        size = info.num_classes()
        lemmas = {info.index_to_label_name(index): info.index_to_description(index) for index in range(size)}
        first = {name: lemmas[name].split(",")[0] for name in names if name in lemmas}
        counts = Counter(first.values())
        words = {name: word if counts[word] == 1 else lemmas[name] for name, word in first.items()}
        if unknown := [name for name in names if name not in lemmas]:
            raise InputError(f"Expected WordNet ids as class names of {recipe.name}, but got {', '.join(unknown[:5])}.")
    words |= recipe.class_names
    return tuple(words.get(name, name) for name in names)


def _without_classes(
    recipe: Recipe, dataset: Any, truth: ImageData, human: np.ndarray | None
) -> tuple[ImageData, np.ndarray | None]:
    """Leave out the rows of some classes, and the classes."""
    from deft_plugin.data import SelectedImages

    for name in recipe.drop_classes:
        if name not in truth.class_names:
            raise InputError(f"Expected a class {name!r} to drop in {recipe.name}, but there is none.")
    stay = np.array([name not in recipe.drop_classes for name in truth.class_names])
    rows = np.flatnonzero(stay[truth.labels])
    new_index = np.cumsum(stay) - 1
    if human is not None and not stay[human[rows]].all():
        raise InputError(f"Expected no human label of a dropped class in {recipe.name}.")
    kept = replace(
        truth,
        images=SelectedImages(truth.images, rows),
        labels=new_index[truth.labels[rows]],
        class_names=tuple(name for name in truth.class_names if name not in recipe.drop_classes),
        label_column=None,
    )
    return kept, None if human is None else new_index[human[rows]]
