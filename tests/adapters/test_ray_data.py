"""A trained detector in a real local Ray, in a process of its own: Ray leaves threads and warnings behind."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deft_plugin import Deft, Detector, detect
from deft_plugin.settings import FrozenSettings

pytest.importorskip("ray", reason="ray is an extra")

RUN = """
import sys
from pathlib import Path
import ray
from deft_adapters.ray_data import add_columns
from deft_plugin import Detector

folder, detector, out = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
rows = [{"file": str(file), "label": file.parent.name} for file in sorted(Path(folder).glob("*/*.png"))]
data = ray.data.from_items(rows, override_num_blocks=3)
data = data.map(lambda row: {**row, "image": Path(row["file"]).read_bytes()})
settings = {"batch_size": 8, "device": "cpu", "precision": "float32", "on_bad_image": "flag"}
scored = add_columns(data, Detector.load(detector), **settings)
scored.drop_columns(["image"]).to_pandas().to_parquet(out)
"""


def test_scores_are_those_of_the_detector(tiny_model_folder, tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for row in range(45):
        colour, label = row % 3, row % 3 if row % 5 else (row + 1) % 3
        pixels = rng.integers(0, 60, (32, 32, 3)).astype(np.uint8)
        pixels[..., colour] += 150
        (folder / ["cat", "dog", "sea"][label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / ["cat", "dog", "sea"][label] / f"{row:02d}.png")
    deft = Deft(frozen=FrozenSettings(n_ctx=4, epochs=4))
    settings = {"device": "cpu", "precision": "float32", "cache_dir": tmp_path / "cache"}
    detect(folder, method=deft, model=str(tiny_model_folder), **settings)
    deft.trained.save(tmp_path / "d.safetensors")
    (folder / "cat" / "99.png").write_bytes(b"nonsense")

    command = [sys.executable, "-c", RUN, folder, tmp_path / "d.safetensors", tmp_path / "out.parquet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = pd.read_parquet(tmp_path / "out.parquet").sort_values("file").reset_index(drop=True)

    expected = Detector.load(tmp_path / "d.safetensors").score(folder, on_bad_image="flag", **settings)
    assert len(found) == len(expected) == 46
    np.testing.assert_allclose(found["label_quality"], expected.label_quality, atol=2e-3)  # ours are kept as float16
    np.testing.assert_array_equal(found["is_label_issue"], expected.is_label_issue)
    names = expected.to_frame()["predicted_label"].fillna("")
    assert found["predicted_label"].tolist() == names.tolist()
    assert (found["predicted_label"] == "").sum() == 1
