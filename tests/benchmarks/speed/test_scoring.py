"""Cost of a trained detector on a stream."""

from deft_benchmarks.demo_data import load_clothing_demo
from deft_benchmarks.speed.scoring import measure_images, measure_memory

from deft_plugin.plugins import load_plugins
from deft_plugin.settings import RunSettings


def test_memory_stays():
    found = measure_memory([2000, 20000], report=lambda *_: None)
    assert [entry["rows"] for entry in found] == [2000, 20000]
    assert found[1]["resident_mb"] - found[0]["resident_mb"] < 100  # 20,000 rows are 50 MB in float16
    assert found[1]["rows_per_second"] > 1000


def test_images(fake_model, monkeypatch):
    data = load_clothing_demo().select(range(0, 1400, 7))
    found = measure_images(
        data, plugins=load_plugins(), settings=RunSettings(model="fake", device="cpu", batch_size=16)
    )
    assert found["num_images"] == 200
    assert found["stream_images_per_second"] > 0
    assert found["ratio"] > 0
