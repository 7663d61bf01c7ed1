"""Whatever users hand over: no exception but those that are documented, on one line.

The same tests run with more examples by ``-m slow``. Names are tried against every field and option that there is, so
that a new one is among them by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import random
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from deft_benchmarks.matrix.cells import read_cells
from deft_benchmarks.matrix.recipes import Recipe, find_recipe
from deft_benchmarks.matrix.settings import Noise
from deft_benchmarks.tables.lines import summarise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import deft_plugin
from deft_plugin import Detection, Detector, FinetuneSettings, FrozenSettings, RunSettings, read_image_data
from deft_plugin.data import check_labels, check_pred_probs, read_image
from deft_plugin.errors import DeftError
from deft_plugin.plugins import load_plugins
from deft_plugin.settings import ProbeSettings, read_recipe

FEW, MANY = 25, 1000
SETTINGS = (FinetuneSettings, FrozenSettings, ProbeSettings, RunSettings)

texts = st.text(max_size=8) | st.sampled_from(["", "..", "/", "\0", "a\nb", "x" * 5000, "auto", "cpu", "\ud800"])
numbers = st.integers() | st.floats() | st.sampled_from([2**31, 2**63, 2**64, 10**400, -1, 0, True])
scalars = st.none() | st.booleans() | numbers | texts
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
arrays = st.sampled_from(
    [
        np.zeros(3),
        np.zeros((3, 3)),
        np.zeros((3, 2, 2, 3), np.uint8),
        np.zeros(0),
        np.array(["a", "b", "a"]),
        np.array([None, 1, "x"], object),
        np.array([0, 1, 2], np.complex64),
        np.array(["2020-01-01"] * 3, "datetime64[D]"),
        torch.zeros(3),
        torch.zeros(3, 3, 4, 4),
        torch.zeros((), dtype=torch.long),
    ]
)
objects = (
    json_values
    | arrays
    | st.binary(max_size=8)
    | st.builds(object)
    | st.sampled_from(
        [int, len, Path("nowhere"), Path("\0"), {1}, range(3), 1j, ..., float("nan"), np.datetime64("NaT")]
    )
)


def fuzz(*strategies, few=FEW, many=MANY, **named):
    """Decorate a test that is tried with few examples, and by ``-m slow`` with many; the same ones each time."""

    def decorate(test):
        @pytest.mark.parametrize("size", [few, pytest.param(many, marks=pytest.mark.slow)])
        @functools.wraps(test, assigned=("__name__", "__doc__", "__module__"), updated=())
        def run(size):
            options = {
                "derandomize": True,
                "deadline": None,
                "database": None,
                "suppress_health_check": list(HealthCheck),
            }
            settings(max_examples=size, **options)(given(*strategies, **named)(test))()

        del run.__wrapped__
        return run

    return decorate


@contextlib.contextmanager
def only_documented():
    """Errors of this package pass, if people can read them."""
    message = "said"
    try:
        yield
    except DeftError as error:
        message = str(error)
    assert message.strip()
    assert "\n" not in message
    assert len(message) < 2000


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def written(content):
    """Any JSON value as a file's bytes; what UTF-8 has not is escaped."""
    return json.dumps(content).encode()


def known_or_not(kind):
    names = [field.name for field in dataclasses.fields(kind)]
    return st.sampled_from(names) | texts


def damaged(data, seed):
    """Bytes of which some are changed, cut off, doubled or gone."""
    rng, changed = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not changed:
            break
        start = rng.choice([rng.randrange(len(changed)), rng.randrange(min(64, len(changed)))])
        end = start + rng.choice([1, 1, 4, 40])
        kind = rng.randrange(4)
        if kind == 0:
            changed[start:end] = rng.randbytes(end - start)
        elif kind == 1:
            del changed[start:end]
        elif kind == 2:
            del changed[start:]
        else:
            changed[start:start] = changed[start:end]
    return bytes(changed)


# Settings


@fuzz(st.sampled_from(SETTINGS).flatmap(lambda kind: st.tuples(st.just(kind), known_or_not(kind))), objects, few=150)
def test_settings(kind_and_name, value):
    kind, name = kind_and_name
    if name in {field.name for field in dataclasses.fields(kind)}:
        with only_documented():
            made = kind(**{name: value})
            json.dumps(
                {key: each for key, each in dataclasses.asdict(made).items() if key != "cache_dir"}, allow_nan=False
            )


@fuzz(st.dictionaries(known_or_not(FinetuneSettings), json_values, max_size=3) | json_values)
def test_training_recipes(content):
    with folder() as root, only_documented():
        (root / "r.json").write_bytes(written(content))
        read_recipe(root / "r.json")


SPECIAL = {
    "deep list": b"[" * 10**5,
    "deep object": b'{"a":' * 10**5,
    "a long number": b"1" * 5000,
    "UTF-16": b"\xff\xfe",
    "NaN": b"NaN",
}


@fuzz(st.binary(max_size=40) | st.sampled_from(sorted(SPECIAL)))
def test_bytes_as_every_kind_of_file(content):
    content = SPECIAL.get(content, content)
    with folder() as root:
        for name in ("r.json", "detection/detection.json", "detection/verdicts.parquet", "d.safetensors", "d.parquet"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(content)
        with only_documented():
            read_recipe(root / "r.json")
        with only_documented():
            find_recipe(str(root / "r.json"), load_plugins())
        with only_documented():
            Detection.load(root / "detection")
        with only_documented():
            Detector.load(root / "d.safetensors")
        with only_documented():
            read_image_data(root / "d.parquet")
        with only_documented():
            detection().apply_review(root / "r.json")
        with only_documented():
            read_image(content, where="row 0")


# Recipes and cells of benchmarks


@fuzz(st.dictionaries(known_or_not(Recipe), json_values, max_size=3) | json_values, json_values | st.just({}))
def test_recipes_of_data(data, training):
    with folder() as root, only_documented():
        content = {"data": {"name": "x", **data} if isinstance(data, dict) else data, "training": training}
        (root / "r.json").write_bytes(written(content))
        find_recipe(str(root / "r.json"), load_plugins())


@fuzz(texts)
def test_names_of_recipes(name):
    with only_documented():
        find_recipe(name, load_plugins())


@fuzz(texts | st.builds("{}:{}".format, st.sampled_from(["sym", "human", ""]), numbers | texts))
def test_noises(text):
    with only_documented():
        assert 0 <= Noise.parse(text).ratio < 1


CELL = next((Path(__file__).parents[1] / "benchmarks" / "results").rglob("seed-1/gmm.json"))


@pytest.mark.filterwarnings("ignore:Expected .*:UserWarning")
@fuzz(st.sampled_from(sorted(json.loads(CELL.read_text()))), json_values)
def test_cells(name, value):
    with folder() as root:
        content = json.loads(CELL.read_text())
        (root / "a.json").write_bytes(written({**content, "seed": 2}))
        (root / "x.json").write_bytes(written({**content, name: value}))
        with only_documented():
            summarise(read_cells([root]), None)


# Detections, detectors, reviews


@functools.cache
def detection():
    return Detection(
        method="gmm",
        label_quality=np.array([0.1, 0.9, 0.8]),
        is_label_issue=np.array([True, False, False]),
        predicted_labels=np.array([1, 1, 0]),
        given_labels=np.array([0, 1, 0]),
        class_names=("cat", "dog"),
        image_digests=np.zeros((3, 16), np.uint8),
        is_image_issue=np.zeros(3, bool),
        settings={"seed": 0},
        details={},
    )


@functools.cache
def saved_detection():
    with folder() as root:
        detection().save(root / "d")
        return {file.name: file.read_bytes() for file in (root / "d").iterdir()}


@fuzz(st.data())
def test_fields_of_detections(data):
    content = json.loads(saved_detection()["detection.json"])
    content[data.draw(st.sampled_from(sorted(content)))] = data.draw(json_values)
    load_with({"detection.json": written(content)})


@fuzz(st.sampled_from(["detection.json", "verdicts.parquet"]), st.integers(0, 10**6), few=60)
def test_damaged_detections(name, seed):
    load_with({name: damaged(saved_detection()[name], seed)})


columns = st.sampled_from(
    ["is_label_issue", "label_quality", "given_labels", "predicted_labels", "image_digests", "decisions"]
)


@fuzz(columns, st.lists(scalars, min_size=3, max_size=3) | st.lists(st.none() | st.integers(-9, 9), max_size=4))
def test_columns_of_detections(name, values):
    table = pq.read_table(io.BytesIO(saved_detection()["verdicts.parquet"]))
    try:
        column = pa.array(values)
        table = pa.table({**{each: table.column(each) for each in table.column_names}, name: column})
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    load_with({"verdicts.parquet": buffer.getvalue()})


def load_with(files):
    with folder() as root, only_documented():
        for name, content in {**saved_detection(), **files}.items():
            (root / name).write_bytes(content)
        Detection.load(root).save(root / "again")


@functools.cache
def saved_detector():
    detector = Detector(
        model="fake",
        fingerprint="fake-1",
        class_names=("cat", "dog"),
        tuning="frozen",
        seed=0,
        logit_scale=10.0,
        text=torch.nn.functional.normalize(torch.ones(2, 2, 4), dim=-1),
        encoder={},
        centre=torch.zeros(4),
        transition=torch.eye(2),
        sharpening=1.5,
        cone_sine=0.2,
        is_real_noise=False,
    )
    with folder() as root:
        detector.save(root / "d.safetensors")
        return (root / "d.safetensors").read_bytes()


def load_detector(data):
    with folder() as root, only_documented():
        (root / "d.safetensors").write_bytes(data)
        Detector.load(root / "d.safetensors")


@fuzz(st.integers(0, 10**6), few=80)
def test_damaged_detectors(seed):
    load_detector(damaged(saved_detector(), seed))


@fuzz(st.data())
def test_headers_of_detectors(data):
    saved = saved_detector()
    size = int.from_bytes(saved[:8], "little")
    header = json.loads(saved[8 : 8 + size])
    inner = header["__metadata__"]
    name = data.draw(st.sampled_from(sorted(inner)))
    inner[name] = data.draw(texts | json_values.map(json.dumps))
    for key, value in inner.items():  # of an object in JSON, one field
        with contextlib.suppress(ValueError):
            if key == name and isinstance(found := json.loads(saved_value(saved, key)), dict):
                found[data.draw(st.sampled_from(sorted(found)))] = data.draw(json_values)
                inner[key] = json.dumps(found) if data.draw(st.booleans()) else value
    text = json.dumps(header).encode()
    load_detector(len(text).to_bytes(8, "little") + text + saved[8 + size :])


def saved_value(saved, key):
    size = int.from_bytes(saved[:8], "little")
    return json.loads(saved[8 : 8 + size])["__metadata__"][key]


ENTRY = {"row": 0, "image_digest": "", "given_label": "cat", "decision": "relabel", "new_label": "dog"}


@fuzz(
    st.lists(st.fixed_dictionaries({name: st.just(value) | json_values for name, value in ENTRY.items()}), max_size=3)
)
def test_reviews_in_json(entries):
    review(written(entries))


@fuzz(
    st.lists(st.lists(texts | st.sampled_from(["0", "cat", "dog", "keep", "1"]), max_size=6), max_size=4),
    st.sampled_from(",;\t"),
)
def test_reviews_in_csv(rows, mark):
    lines = [mark.join(ENTRY), *(mark.join(row) for row in rows)]
    review("\n".join(lines).encode(errors="surrogatepass"))


def review(content):
    with folder() as root, only_documented():
        (root / "review.csv").write_bytes(content)
        detection().apply_review(root / "review.csv")


@fuzz(st.sampled_from([field.name for field in dataclasses.fields(Detection)]), objects, few=100)
def test_detections_made_by_hand(name, value):
    with only_documented(), folder() as root:
        dataclasses.replace(detection(), **{name: value}).save(root / "d")


# Data


@functools.cache
def encoded(kind):
    buffer = io.BytesIO()
    Image.effect_noise((20, 20), 40).convert("RGB").save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")  # Pillow's, on what is odd in a file
@fuzz(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]), st.integers(0, 10**6), few=200)
def test_damaged_images(kind, seed):
    with only_documented():
        read_image(damaged(encoded(kind), seed), where="row 0")


@fuzz(objects, few=60)
def test_anything_as_an_image(value):
    with only_documented():
        read_image(value, where="row 0")


@fuzz(
    st.dictionaries(
        st.sampled_from(["image", "label", "x", ""]),
        st.lists(scalars | st.binary(max_size=4), min_size=2, max_size=2),
        min_size=1,
        max_size=3,
    )
)
def test_tables(content):
    try:
        table = pa.table({name: pa.array(values) for name, values in content.items()})
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return
    with folder() as root, only_documented():
        pq.write_table(table, root / "d.parquet")
        read_image_data(root / "d.parquet")
    with only_documented():
        read_image_data(datasets.Dataset(table))


@fuzz(st.integers(0, 10**6))
def test_damaged_tables(seed):
    buffer = io.BytesIO()
    images = pa.array([{"bytes": encoded("PNG"), "path": None}] * 2)
    pq.write_table(pa.table({"image": images, "label": [0, 1]}), buffer)
    with folder() as root, only_documented():
        (root / "d.parquet").write_bytes(damaged(buffer.getvalue(), seed))
        read_image_data(root / "d.parquet")


PHOTOS = [Image.new("RGB", (4, 4), (60 * k, 0, 0)) for k in range(3)]
ARGUMENTS = ("data", "labels", "class_names", "image_column", "id_column", "split")


@fuzz(st.sampled_from(ARGUMENTS), objects, few=150)
def test_data_of_any_kind(name, value):
    arguments = {"data": PHOTOS, "labels": [0, 1, 0], name: value}
    data, labels = arguments.pop("data"), arguments.pop("labels")
    with only_documented():
        read_image_data(data, labels, **arguments)


@fuzz(objects, objects, few=60)
def test_labels_of_any_kind(labels, names):
    with only_documented():
        check_labels(labels, class_names=names)
    with only_documented():
        check_labels([0, 1, 0], class_names=names)
    with only_documented():
        check_pred_probs(labels, 3, 2)


@fuzz(
    st.sampled_from(["method", "pred_probs", "settings", "return_indices_ranked_by", "rank_by_kwargs", *ARGUMENTS]),
    objects,
    few=60,
)
def test_find_label_issues(name, value):
    arguments = {"data": None, "labels": [0, 1, 0, 1], "method": "confident_learning"}
    arguments["pred_probs"] = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.9, 0.1]])
    with only_documented():
        deft_plugin.find_label_issues(**{**arguments, name: value})
