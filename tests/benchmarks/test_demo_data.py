import importlib.util
import io
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from deft_benchmarks.demo_data import load_clothing_demo
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "make_demo_data.py"
SOURCE_COUNTS = {
    "dress": 241,
    "hat": 123,
    "longsleeve": 455,
    "outwear": 184,
    "pants": 468,
    "shirt": 290,
    "shoes": 198,
    "shorts": 202,
    "skirt": 112,
    "t-shirt": 795,
}


@pytest.fixture(scope="module")
def photos() -> datasets.Dataset:
    return load_clothing_demo()


def test_features_are_restored(photos: datasets.Dataset):
    assert isinstance(photos.features["image"], datasets.Image)
    assert photos.features["label"].names == list(SOURCE_COUNTS)
    image = photos[0]["image"]
    assert image.mode == "RGB"
    assert min(image.size) == 160


def test_size_and_class_balance(photos: datasets.Dataset):
    assert 1000 <= len(photos) <= 1500
    counts = Counter(photos.features["label"].int2str(photos["label"][:]))
    for name, count in SOURCE_COUNTS.items():
        assert counts[name] == pytest.approx(len(photos) * count / 3068, abs=1)


def test_file_fits_the_budget_and_the_licence_lies_beside_it():
    folder = SCRIPT.parent / "deft_benchmarks" / "data"
    assert (folder / "clothing_demo.parquet").stat().st_size <= 12_000_000
    assert "CC0 1.0" in (folder / "LICENSE-clothing_demo.md").read_text(encoding="utf-8")


def test_photos_are_distinct_and_shuffled(photos: datasets.Dataset):
    encoded = photos.with_format("arrow")["image"][:].combine_chunks().field("bytes").to_pylist()
    assert len(set(encoded)) == len(photos)
    labels = np.array(photos["label"][:])
    assert (np.diff(labels) != 0).mean() > 0.5


def test_loading_writes_no_cache(photos: datasets.Dataset):
    assert photos.cache_files == []


def test_from_parquet_restores_the_same(photos: datasets.Dataset, tmp_path: Path):
    file = SCRIPT.parent / "deft_benchmarks" / "data" / "clothing_demo.parquet"
    again = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path))
    assert again.features == photos.features
    assert again["label"][:] == photos["label"][:]


def _source(folder: Path) -> Path:
    """30 images, 20 of class a and 10 of class b, each of its own colour."""

    def encoded(shade: int) -> dict[str, object]:
        stream = io.BytesIO()
        Image.new("RGB", (4, 4), (shade, 0, 0)).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": f"{shade}.png"}

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [encoded(shade) for shade in range(30)], "label": [0] * 20 + [1] * 10}
    path = folder / "source.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


def test_script_draws_a_stratified_sample_that_is_the_same_each_time(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("make_demo_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    source = _source(tmp_path)
    written: list[bytes] = []
    for name in ("one.parquet", "two.parquet"):
        options = ["--target", str(tmp_path / name), "--num-examples", "12"]
        result = CliRunner().invoke(script.main, [str(source), *options])
        assert result.exit_code == 0, result.output
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    before, sample = pq.read_table(source).to_pylist(), pq.read_table(tmp_path / "one.parquet")
    assert sample.schema.metadata == pq.read_schema(source).metadata
    assert Counter(sample["label"].to_pylist()) == {0: 8, 1: 4}
    assert all(row in before for row in sample.to_pylist())
