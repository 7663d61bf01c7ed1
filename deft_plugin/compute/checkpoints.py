"""Checkpoints: one safetensors file with a JSON header, replaced as a whole, so that a killed run finds a good one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from deft_plugin.compute.files import new_file
from deft_plugin.errors import InputError


def save_tensors(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON state into one file; a reader finds the old file or the whole new one.

    Raises
    ------
    InputError
        If the file cannot be written (disk full, no permission); the old one stays.
    """
    from safetensors.torch import save_file

    try:
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        with new_file(path) as new:
            save_file(whole, new, metadata={"state": json.dumps(state)})
    except Exception as error:  # safetensors has an exception of its own for a full disk
        raise InputError(
            f"Expected to write {path}, but: {type(error).__name__}: {error}. Free some space, or give another folder."
        ) from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises
    ------
    InputError
        If the file is not one of those.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118
    except Exception as error:
        raise InputError(
            f"Expected {path} to be a safetensors file with a state, but: {type(error).__name__}: {error}. Remove it."
        ) from error
