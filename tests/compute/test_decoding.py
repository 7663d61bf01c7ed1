"""Batches that threads make, in order and not too far ahead."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from deft_plugin.compute import decoding
from deft_plugin.compute.decoding import BATCHES_AHEAD, decode_batches, num_decoders

BATCHES = [[0, 1, 2], [3], [4, 5, 6, 7], [8, 9]]


def decode(load, batches=BATCHES, num_threads=4):
    return decode_batches(load, batches, collate=list, num_threads=num_threads)


@pytest.mark.parametrize("num_threads", [1, 2, 8])
def test_in_order(num_threads):
    delays = np.random.default_rng(0).uniform(0, 0.01, 10)

    def load(key):
        time.sleep(delays[key])
        return key * 10

    assert list(decode(load, num_threads=num_threads)) == [[key * 10 for key in keys] for keys in BATCHES]


@pytest.mark.parametrize("num_threads", [1, 4])
def test_an_error_comes_at_its_place_and_ends_all(num_threads):
    def load(key):
        if key == 3:
            raise KeyError(key)
        return key

    batches = decode(load, num_threads=num_threads)
    assert next(batches) == [0, 1, 2]
    with pytest.raises(KeyError):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("deft-decoder")]


def test_is_not_far_ahead():
    begun = []
    batches = decode(lambda key: begun.append(key) or key, [[row] for row in range(100)])
    next(batches)
    time.sleep(0.02)
    assert len(begun) <= BATCHES_AHEAD + 2
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("deft-decoder")]


def test_number_of_threads(monkeypatch):
    assert num_decoders("cpu") == 1
    monkeypatch.setattr(decoding.os, "cpu_count", lambda: 4)
    assert num_decoders("cuda") == 4


SCRIPT = """
import multiprocessing
import sys
from pathlib import Path
import numpy as np
import torch
from deft_plugin.data.sources import IndexedImages
from deft_plugin.runs.features import compute_image_features

multiprocessing.set_start_method("spawn")

class Backbone:
    fingerprint, feature_dim = "x", 3
    preprocess = staticmethod(lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float())
    encode_images = staticmethod(lambda pixels: torch.nn.functional.normalize(pixels.mean((2, 3)) + 1))

class Lambdas:
    make = staticmethod(lambda row: np.full((4, 4, 3), row % 256, np.uint8))
    def __len__(self): return 1100
    def __getitem__(self, row): return self.make(row)

print(compute_image_features(Backbone(), IndexedImages(Lambdas()), cache_dir=Path(sys.argv[1])).is_readable.sum())
"""


@pytest.mark.slow
def test_many_images_in_a_script_without_a_main_guard(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    run = [sys.executable, tmp_path / "script.py", tmp_path / "cache"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, env={**os.environ})
    assert (done.returncode, done.stdout.strip()) == (0, "1100"), done.stderr
