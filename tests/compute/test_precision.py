import platform

import pytest
import torch

import deft_plugin.compute.precision as module
from deft_plugin.compute.precision import autocast, compute_dtype, pick_device, use_precision
from deft_plugin.errors import InputError, UnknownNameError
from deft_plugin.settings import check_precision


@pytest.fixture
def cuda(monkeypatch):
    """Pretend that there is a CUDA device; say whether it computes in bfloat16."""

    def pretend(has_bf16):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)

    return pretend


@pytest.fixture
def cpu(monkeypatch):
    """Pretend to have a CPU: of which architecture, what oneDNN says of it, and which instructions it has."""

    def pretend(has_bf16, *, machine="x86_64", onednn=True, instruction="_is_avx512_bf16_supported"):
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn, raising=False)
        for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            there = has_bf16 and probe == instruction
            monkeypatch.setattr(torch.cpu, probe, lambda there=there: there, raising=False)

    return pretend


@pytest.fixture(autouse=True)
def _nothing_asked_for():
    """Elsewhere all tests run in float32."""
    token = module._asked.set("auto")
    yield
    module._asked.reset(token)


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
@pytest.mark.parametrize("instruction", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_dtype_of_a_cpu(cpu, has_bf16, expected, instruction):
    """oneDNN calls the format supported where it only emulates it."""
    cpu(has_bf16, instruction=instruction)
    assert compute_dtype("cpu") is expected


@pytest.mark.parametrize(("onednn", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_dtype_of_an_arm_cpu(cpu, onednn, expected):
    cpu(False, machine="aarch64", onednn=onednn)
    assert compute_dtype("cpu") is expected


def test_a_torch_that_cannot_ask_the_cpu(cpu, monkeypatch):
    cpu(True)
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, probe)
    assert compute_dtype("cpu") is torch.float32


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_dtype_of_a_cuda_device(cuda, has_bf16, expected, device):
    cuda(has_bf16)
    assert compute_dtype(device) is expected


def test_dtype_of_other_devices(cpu, cuda):
    cpu(True)
    cuda(True)
    assert compute_dtype("mps") is torch.float32


def test_this_machine():
    assert compute_dtype("cpu") in (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("has_bf16", [True, False])
def test_autocast(cpu, has_bf16):
    cpu(has_bf16)
    weight = torch.ones(2, 2)
    with autocast("cpu"):
        product = weight @ weight
    assert product.dtype is (torch.bfloat16 if has_bf16 else torch.float32)
    assert (weight @ weight).dtype is torch.float32


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:3", "mps"])
def test_a_device_that_is_named_is_taken(device, monkeypatch):
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.empty(1))  # as on a machine that has it
    assert pick_device(device) == device


@pytest.mark.parametrize("device", ["foo", "", "cpu:x", "meta", "cuda:99", "xla", "cpu,cuda"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(
        InputError, match="Expected a device that this machine has, such as 'cpu' or 'auto', but got "
    ) as e:
        pick_device(device)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto(monkeypatch, has_cuda, has_mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    assert pick_device("auto") == expected


def test_what_is_asked_for_is_taken_inside_only(cpu):
    cpu(False)
    with use_precision("bfloat16"):
        with use_precision("auto"):
            assert compute_dtype("cpu") is torch.bfloat16
        with use_precision("float16"):
            assert compute_dtype("cuda") is torch.float16
        assert compute_dtype("cpu") is torch.bfloat16
    assert compute_dtype("cpu") is torch.float32


def test_unknown():
    check_precision("float16")
    with pytest.raises(UnknownNameError, match=r"Unknown precision 'bf16'\. Did you mean 'bfloat16'"):
        check_precision("bf16")
