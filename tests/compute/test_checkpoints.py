import pytest
import safetensors.torch
import torch

from deft_plugin.compute.checkpoints import load_tensors, save_tensors
from deft_plugin.errors import InputError

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False])}


def test_round_trip(tmp_path):
    file = tmp_path / "new" / "x.safetensors"
    save_tensors(file, TENSORS, {"epoch": 3, "names": ["a"]})
    tensors, state = load_tensors(file)
    assert state == {"epoch": 3, "names": ["a"]}
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [path.name for path in file.parent.iterdir()] == ["x.safetensors"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "x.safetensors"
    save_tensors(file, TENSORS, {"epoch": 1})

    def write_a_part(_tensors, path, **_more):
        path.write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", write_a_part)
    with pytest.raises(InputError, match=r"Expected to write .*x\.safetensors.*No space left.*Free some space"):
        save_tensors(file, TENSORS, {"epoch": 2})
    assert load_tensors(file)[1] == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x00" * 100])
def test_another_file(tmp_path, content):
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"Expected .*x\.safetensors to be a safetensors file.*Remove it"):
        load_tensors(file)
