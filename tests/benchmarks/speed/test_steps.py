import json
import math

import open_clip
import pytest
from deft_benchmarks.speed.steps import class_names, measure_steps


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    """A small ViT that open_clip knows by name."""
    vision = {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3}
    file = tmp_path_factory.mktemp("open_clip") / "ViT-tiny.json"
    file.write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(file)
    return file.stem


@pytest.fixture(scope="module")
def costs(architecture):
    told = []
    found = measure_steps(
        [3, 6], architecture=architecture, batch_size=2, repeats=1, reference_up_to=3, report=told.append
    )
    assert told == found
    return found


def test_both_steps_side_by_side(costs):
    assert [(cost.step, cost.dtype, cost.num_classes) for cost in costs] == [
        ("reference", "float32", 3),
        ("deft", "float32", 3),
        ("deft", "bfloat16", 3),
        ("deft", "float32", 6),
        ("deft", "bfloat16", 6),
    ]
    for cost in costs:
        assert cost.seconds > 0
        assert cost.peak_bytes >= 0
        assert (cost.text_seconds is None) == (cost.step == "reference")
        assert cost.text_seconds is None or 0 < cost.text_seconds < math.inf


def test_the_fast_step_counts_fewer_operations(costs):
    reference, ours = costs[0].flops, costs[1].flops
    assert 0 < ours < 0.8 * reference


def test_class_names():
    names = class_names(1002)
    assert len(names) == 1002
    assert names[:2] == ["tench", "goldfish"]
    assert names[1000:] == ["tench 1", "goldfish 1"]
