"""A trained detector: judges images that it was not trained on, and is kept in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deft_plugin import functional
from deft_plugin.checkpoints import load_tensors, save_tensors
from deft_plugin.errors import InputError
from deft_plugin.precision import autocast
from deft_plugin.prompts import NEGATIVE, POSITIVE
from deft_plugin.run import Run
from deft_plugin.tuning import FROZEN, tuned
from deft_plugin.types import Backbone, Selection

if TYPE_CHECKING:
    from deft_plugin.detection import Detection

BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
    """Trained prompts and encoder tuning; a selector, so that ``detect(data, method=detector)`` works, too.

    Attributes
    ----------
    model, fingerprint : str
        The backbone that it was trained on.
    class_names : tuple of str of length K
    tuning : str
    seed : int
        The tuning starts from it.
    text : Tensor of shape (2, K, D)
        Positive and negative text features, L2-normalised.
    encoder : dict of str to Tensor
        Trained parameters of the image encoder; empty for frozen tuning.
    centre : Tensor of shape (D,), optional
        Mean image feature of the training data, for a backbone without a cone.
    transition : Tensor of shape (K, K), optional
        For a negative prompt that is measured from the background; see `deft_plugin.functional.margins`.
    sharpening : float
        Factor on positive logits.
    is_real_noise : bool
        See `deft_plugin.step.DeftStep`.

    Notes
    -----
    Judging the training data again is not the detection that training gave: frozen tuning judges an example by the
    folds that have not seen it, and a detector has seen them all.
    """

    model: str
    fingerprint: str
    class_names: tuple[str, ...]
    tuning: str
    seed: int
    text: Tensor
    encoder: dict[str, Tensor]
    centre: Tensor | None
    transition: Tensor | None
    sharpening: float
    is_real_noise: bool

    needs_images = True
    learns = False

    def score(self, images: Any, labels: Any = None, **settings: Any) -> Detection:
        """Judge the labels of new images.

        Parameters
        ----------
        images, labels, **settings
            As for `deft_plugin.detect`; the classes are those of the training data.
        """
        from deft_plugin.api import detect

        arguments: dict[str, Any] = {"model": self.model, **settings}
        return detect(images, labels, method=self, class_names=self.class_names, **arguments)

    def select(self, run: Run) -> Selection:
        """Judge each label of a run without learning from it; label quality is p_clean.

        Raises
        ------
        InputError
            If the run has another backbone or other classes.
        """
        backbone, _ = run.require_images()
        self._check(run, backbone)
        pieces = [self._judge(run, backbone, rows, images) for rows, images in self._features(run, backbone)]
        margins, is_clean, predicted = (torch.cat(parts).cpu() for parts in zip(*pieces, strict=True))
        return Selection(
            is_clean=is_clean.numpy(),
            label_quality=torch.sigmoid(margins.double()).numpy(),
            predicted_labels=predicted.numpy(),
            details={"tuning": self.tuning},
        )

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write to one file, by custom ``.safetensors``; tensors and JSON, no pickle."""
        tensors = {f"encoder/{name}": tensor for name, tensor in self.encoder.items()}
        tensors |= {name: tensor for name in _TENSORS if (tensor := getattr(self, name)) is not None}
        save_tensors(Path(file), tensors, {name: getattr(self, name) for name in _SETTINGS})

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Detector:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If the file is not one of those.
        """
        tensors, state = load_tensors(Path(file))
        if missing := [name for name in _SETTINGS if name not in state]:
            raise InputError(f"Expected a file that Detector.save wrote, but {file} has no {', '.join(missing)}.")
        prefix = "encoder/"
        encoder = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        state["class_names"] = tuple(state["class_names"])
        return cls(**state, encoder=encoder, **{name: tensors.get(name) for name in _TENSORS})  # pyright: ignore

    def _check(self, run: Run, backbone: Backbone) -> None:
        if backbone.fingerprint != self.fingerprint:
            raise InputError(
                f"Expected the model that the detector was trained on, {self.model!r}, but {backbone.name!r} is "
                f"another one. Pass model={self.model!r}, or train anew."
            )
        if run.class_names != self.class_names:
            raise InputError(
                f"Expected the classes of the training data, {', '.join(self.class_names[:5])} … "
                f"({len(self.class_names)}), but got {', '.join(run.class_names[:5])} … ({len(run.class_names)}). "
                "Pass class_names=detector.class_names, or use detector.score."
            )

    def _features(self, run: Run, backbone: Backbone) -> Iterator[tuple[slice, Tensor]]:
        """Image features (B, D) of the run, as the backbone gives them."""
        starts = range(0, len(run.labels), BATCH_SIZE)
        rows = [slice(start, min(start + BATCH_SIZE, len(run.labels))) for start in starts]
        if self.tuning == FROZEN:
            _, features = run.require_images()
            for piece in rows:
                yield piece, torch.from_numpy(np.asarray(features[piece])).to(run.device).float()
            return
        if run.images is None:
            raise InputError("Expected a run with images, but it has features only.")
        with tuned(backbone, self.tuning, self.seed) as tuning, torch.no_grad():
            for name, parameter in tuning.parameters().items():
                parameter.copy_(self.encoder[name])
            for piece in rows:
                images = [backbone.preprocess(run.images.load(row)) for row in range(piece.start, piece.stop)]
                with autocast(run.device):
                    yield piece, backbone.encode_images(torch.stack(images).to(run.device))

    @torch.no_grad()
    def _judge(self, run: Run, backbone: Backbone, rows: slice, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.centre is not None:
            images = images - self.centre.to(images)
        images = F.normalize(images, dim=-1)
        labels = torch.as_tensor(run.labels[rows], device=images.device)
        text, scale = self.text.to(images), backbone.logit_scale
        positive = self.sharpening * scale * images @ text[POSITIVE].T  # (B, K)
        negative = scale * images @ text[NEGATIVE].T
        transition = None if self.transition is None else self.transition.to(images)
        margins, is_clean = functional.judge(positive, negative, labels, transition, is_real_noise=self.is_real_noise)
        return margins, is_clean, positive.argmax(-1)


_TENSORS = ("text", "centre", "transition")
_SETTINGS = ("model", "fingerprint", "class_names", "tuning", "seed", "sharpening", "is_real_noise")
