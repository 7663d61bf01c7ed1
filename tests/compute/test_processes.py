"""Runs in processes of their own: two that share a run, and some that are killed."""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

SCRIPT = """
import sys
import numpy as np
from deft_plugin import FinetuneSettings, detect
from deft_plugin.compute.workers import this_process

folder, model, cache, out = sys.argv[1:]
training = FinetuneSettings(epochs=3, batch_size=16, n_ctx=4)
settings = {"model": model, "tuning": "vpt_deep", "device": "cpu", "precision": "float32", "cache_dir": cache}
found = detect(folder, training=training, **settings)
workers = this_process("cpu")
np.savez(f"{out}.{workers.rank}.npz", quality=found.label_quality, issue=found.is_label_issue, size=workers.size)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """45 images of three colours in class folders, a fifth of them in a wrong one."""
    root = tmp_path_factory.mktemp("colours")
    generator = np.random.default_rng(0)
    for row in range(45):
        colour, label = row % 3, row % 3 if row % 5 else (row + 1) % 3
        pixels = generator.integers(0, 60, (32, 32, 3)).astype(np.uint8)
        pixels[..., colour] += 150
        (root / ["cat", "dog", "sea"][label]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / ["cat", "dog", "sea"][label] / f"{row}.png")
    return root


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_two_processes_judge_as_one_does(folder, tiny_model_folder, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    launch = {1: [sys.executable], 2: [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]}
    for size, command in launch.items():
        arguments = [script, folder, tiny_model_folder, tmp_path / f"cache{size}", tmp_path / f"found{size}"]
        subprocess.run([*command, *arguments], check=True, env=ENVIRONMENT, capture_output=True, timeout=300)
    one, first, second = (np.load(tmp_path / f"found{name}.npz") for name in ("1.0", "2.0", "2.1"))
    assert (int(one["size"]), int(first["size"])) == (1, 2)
    np.testing.assert_array_equal(first["quality"], second["quality"])
    np.testing.assert_allclose(first["quality"], one["quality"], atol=1e-4)
    assert (first["issue"] == one["issue"]).mean() >= 0.999


@pytest.mark.slow
def test_killed_ten_times_at_random(folder, tiny_model_folder, tmp_path):
    """Each run is killed at some moment of its first seconds, started again, and ends with the same selection."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"epochs": 12, "batch_size": 8, "checkpoint_steps": 3}))

    def command(name):
        options = ["--model", tiny_model_folder, "--tuning", "vpt_deep", "--device", "cpu", "--recipe", recipe]
        kept = ["--cache-dir", tmp_path / name, "--output", tmp_path / f"{name}-report"]
        return [sys.executable, "-m", "deft_plugin", "detect", folder, *options, *kept]

    def verdicts(name):
        found = pd.read_parquet(tmp_path / f"{name}-report" / "issues.parquet").sort_values("row")
        return found["is_label_issue"].to_numpy(), found["label_quality"].to_numpy()

    started = time.perf_counter()
    subprocess.run(command("whole"), check=True, env=ENVIRONMENT, capture_output=True, timeout=300)
    seconds = time.perf_counter() - started
    chance = random.Random(0)
    for number in range(10):
        run = subprocess.Popen(
            command(f"run{number}"), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(0.3, 1) * seconds)
        run.kill()
        run.wait()
        subprocess.run(command(f"run{number}"), check=True, env=ENVIRONMENT, capture_output=True, timeout=300)
        for found, expected in zip(verdicts(f"run{number}"), verdicts("whole"), strict=True):
            np.testing.assert_array_equal(found, expected)
