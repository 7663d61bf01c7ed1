"""Where cells come from: the code, the versions and the machine that made them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("deft-plugin", "torch", "numpy", "scikit-learn", "cleanlab", "open_clip_torch", "timm", "peft")


def find_origin() -> dict[str, Any]:
    """Give ``versions``, ``machine`` and ``git_commit`` of a `deft_benchmarks.matrix.cells.Cell`."""
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"versions": versions, "machine": _machine(), "git_commit": _git_commit()}


def _machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not a Linux, or none that says
        processor = platform.processor() or platform.machine()
    return f"{processor}, {cores} cores"


def _git_commit() -> str | None:
    """Commit of this code, with "+" if it was changed since; None outside a repository."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
