"""A trained detector: judges images that it was not trained on, and is kept in a file."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deft_plugin.compute.checkpoints import load_tensors, save_tensors
from deft_plugin.compute.pieces import pieces
from deft_plugin.compute.precision import autocast
from deft_plugin.data.labels import check_class_names
from deft_plugin.deft.prompts import NEGATIVE, POSITIVE
from deft_plugin.deft.verdicts import clean_probability, judge
from deft_plugin.errors import InputError
from deft_plugin.runs.run import Run
from deft_plugin.settings import FROZEN, check_tuning, check_type
from deft_plugin.training.views import Views
from deft_plugin.tuning.tunings import tuned
from deft_plugin.types import Backbone, Selection, SelectorTraits

if TYPE_CHECKING:
    from deft_plugin.results.detection import Detection

BATCH_SIZE = 64
FORMAT_VERSION = 1
"""Of the file; another one is refused. What was saved before formats were numbered has none."""

AnyDataset = TypeVar("AnyDataset")


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
    logit_scale : float
        Of the backbone.
    text : Tensor of shape (2, K, D)
        Positive and negative text features, L2-normalised.
    encoder : dict of str to Tensor
        Trained parameters of the image encoder; empty for frozen tuning.
    centre : Tensor of shape (D,), optional
        Mean image feature of the training data, for a backbone without a cone.
    transition : Tensor of shape (K, K), optional
        For a negative prompt that is measured from the background; see `deft_plugin.deft.losses.margins`.
    sharpening : float
        Factor on positive logits.
    cone_sine : float
        See `deft_plugin.settings.FrozenSettings`.
    is_real_noise : bool
        See `deft_plugin.deft.step.DeftStep`.

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
    logit_scale: float
    text: Tensor
    encoder: dict[str, Tensor]
    centre: Tensor | None
    transition: Tensor | None
    sharpening: float
    cone_sine: float
    is_real_noise: bool

    traits = SelectorTraits(learns=False)

    def score(self, images: Any, labels: Any = None, **settings: Any) -> Detection:
        """Judge the labels of new images.

        Parameters
        ----------
        images, labels, **settings
            As for `deft_plugin.detect`. Classes that have names are recognised by them, in any order; whole
            numbers without names count in `class_names`, or are names there themselves.

        Raises
        ------
        InputError
            If a label is of a class that the detector does not know.
        """
        from deft_plugin.api import detect
        from deft_plugin.data.class_names import names_are_numbers
        from deft_plugin.data.reading import own_class_names, read_image_data

        own = own_class_names(images, labels)
        count = own is None and not names_are_numbers(self.class_names)
        data = read_image_data(images, labels, self.class_names if count else None)
        data = replace(data, labels=self.known_labels(data.labels, data.class_names), class_names=self.class_names)
        arguments: dict[str, Any] = {"model": self.model, **settings}
        return detect(data, method=self, **arguments)

    def add_columns(
        self,
        dataset: AnyDataset,
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        batch_size: int = BATCH_SIZE,
        **settings: Any,
    ) -> AnyDataset:
        """Add label_quality, is_label_issue and predicted_label to a Hugging Face data set, batch by batch.

        For data that do not fit into memory: an ``IterableDataset`` is scored while it is read, and takes the memory of
        one batch. ``DatasetDict`` and ``IterableDatasetDict`` are scored split by split.

        Parameters
        ----------
        dataset : Dataset, IterableDataset, DatasetDict or IterableDatasetDict
        image_column, label_column : str, optional
            Found by themselves if the data set knows its features and there is one of each.
        batch_size : int
        **settings
            As for `deft_plugin.deft.streaming.BatchScorer`.
        """
        from deft_plugin.deft.streaming import add_columns

        return add_columns(
            dataset, self, image_column=image_column, label_column=label_column, batch_size=batch_size, **settings
        )

    def known_labels(self, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
        """Turn labels (N,) that index `class_names` into those of the detector, by the names of the classes.

        Parameters
        ----------
        labels : np.ndarray of shape (N,), int64 in [0, K)
        class_names : sequence of str of length K
            What these indices stand for.

        Raises
        ------
        InputError
            If one is of a class that the detector does not know.
        """
        position = {name: index for index, name in enumerate(self.class_names)}
        mapped = np.array([position.get(name, -1) for name in class_names])[labels]
        if (mapped < 0).any():
            strange: list[str] = sorted({str(class_names[label]) for label in labels[mapped < 0].tolist()})
            raise InputError(
                f"Expected labels of the classes that the detector was trained on ({len(self.class_names)}: "
                f"{', '.join(self.class_names[:5])} …), but got {', '.join(strange[:5])}. Leave these rows out, or "
                "train on data that have them."
            )
        return mapped

    def select(self, run: Run) -> Selection:
        """Judge each label of a run without learning from it; label quality is p_clean.

        Raises
        ------
        InputError
            If the run has another backbone or other classes.
        """
        backbone, _ = run.require_images()
        self.check_backbone(backbone)
        self._check_classes(run)
        pieces = [self.judge(images, run.labels[rows]) for rows, images in self._features(run, backbone)]
        margins, is_clean, predicted = (torch.cat(parts).cpu() for parts in zip(*pieces, strict=True))
        return Selection(
            is_clean=is_clean.numpy(),
            label_quality=clean_probability(margins.double()).numpy(),
            predicted_labels=predicted.numpy(),
            details={"tuning": self.tuning},
        )

    def __getstate__(self) -> dict[str, Any]:
        # Plain bytes, so that a pickle, and with it the key of results that others cache, is always the same.
        from safetensors.torch import save

        return {"tensors": save(self._tensors()), "settings": {name: getattr(self, name) for name in _SETTINGS}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from safetensors.torch import load

        for name, value in {**state["settings"], **_from_tensors(load(state["tensors"]))}.items():
            object.__setattr__(self, name, value)

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write to one file, by custom ``.safetensors``; tensors and JSON, no pickle."""
        state = {name: getattr(self, name) for name in _SETTINGS}
        save_tensors(Path(file), self._tensors(), {"format_version": FORMAT_VERSION, **state})

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Detector:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If the file is not one of those, or of another format.
        """
        tensors, state = load_tensors(Path(file))
        if not isinstance(state, dict) or "fingerprint" not in state:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"Expected a file that Detector.save wrote, but {file} is another one.")
        if (version := state.pop("format_version", "none")) != FORMAT_VERSION:
            raise InputError(
                f"Expected a detector of format {FORMAT_VERSION}, but {file} has format {version}. "
                f"{'Train anew' if version == 'none' else 'Update deft-plugin, or train anew'}."
            )
        fields = {**{name: state.get(name) for name in _SETTINGS}, **_from_tensors(tensors)}
        try:
            return cls(**_checked_fields(fields))
        except InputError as error:
            raise InputError(f"Expected a detector that can be used, but {file} is damaged: {error}") from error

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"{_ENCODER}{name}": tensor.detach().cpu().contiguous() for name, tensor in self.encoder.items()}
        return tensors | {
            name: tensor.detach().cpu().contiguous() for name in _TENSORS if (tensor := getattr(self, name)) is not None
        }

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse another model than the one that the detector was trained on.

        Raises
        ------
        InputError
        """
        if backbone.fingerprint != self.fingerprint:
            raise InputError(
                f"Expected the model that the detector was trained on, {self.model!r}, but {backbone.name!r} is "
                f"another one. Pass model={self.model!r}, or train anew."
            )

    def _check_classes(self, run: Run) -> None:
        if run.class_names != self.class_names:
            raise InputError(
                f"Expected the classes of the training data, {', '.join(self.class_names[:5])} … "
                f"({len(self.class_names)}), but got {', '.join(run.class_names[:5])} … ({len(run.class_names)}). "
                "Pass class_names=detector.class_names, or use detector.score."
            )

    def _features(self, run: Run, backbone: Backbone) -> Iterator[tuple[slice, Tensor]]:
        """Image features (B, D) of the run, as the backbone gives them."""
        rows = pieces(len(run.labels), BATCH_SIZE)
        if self.tuning == FROZEN:
            _, features = run.require_images()
            for piece in rows:
                yield piece, torch.from_numpy(np.asarray(features[piece])).to(run.device).float()
            return
        if run.images is None:
            raise InputError("Expected a run with images, but it has features only.")
        views = Views(run.images, backbone.preprocess, seed=run.seed, device=run.device)
        with self.in_encoder(backbone), torch.no_grad():
            batches = torch.arange(len(run.labels)).split(BATCH_SIZE)
            for piece, pixels in zip(rows, views.clean(batches), strict=True):
                with autocast(run.device):
                    yield piece, backbone.encode_images(pixels)

    @contextmanager
    def in_encoder(self, backbone: Backbone) -> Generator[None]:
        """Put what was trained of the image encoder into it; a frozen one stays as it is."""
        if self.tuning == FROZEN:
            yield
            return
        # The tuning starts from its seed and is overwritten at once: what is saved is the trained parameters alone.
        with tuned(backbone, self.tuning, self.seed) as tuning:
            with torch.no_grad():
                for name, parameter in tuning.parameters().items():
                    parameter.copy_(self.encoder[name])
            yield

    @torch.no_grad()
    def judge(self, images: Tensor, labels: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Judge image features (B, D), as the backbone gives them, with their labels (B,).

        Parameters
        ----------
        images : Tensor of shape (B, D)
            Image features, as the backbone gives them.
        labels : np.ndarray of shape (B,), int64 in [0, K)

        Returns
        -------
        margins : Tensor of shape (B,)
            p_clean is their sigmoid.
        is_clean : Tensor of shape (B,), bool
        predicted : Tensor of shape (B,), int64
        """
        # Centred as the training data were: the mean of the new data would be that of another mixture of classes.
        if self.centre is not None:
            images = images - self.centre.to(images)
        images = F.normalize(images, dim=-1)
        given = torch.as_tensor(labels, device=images.device)
        text, scale = self.text.to(images), self.logit_scale
        positive = self.sharpening * scale * images @ text[POSITIVE].T  # (B, K)
        negative = scale * images @ text[NEGATIVE].T
        transition = None if self.transition is None else self.transition.to(images)
        margins, is_clean = judge(
            positive,
            negative,
            given,
            transition,
            cone_sine=self.cone_sine,
            is_real_noise=self.is_real_noise,
        )
        return margins, is_clean, positive.argmax(-1)


_ENCODER = "encoder/"
_TENSORS = ("text", "centre", "transition")
_SETTINGS = (
    "model",
    "fingerprint",
    "class_names",
    "tuning",
    "seed",
    "logit_scale",
    "sharpening",
    "cone_sine",
    "is_real_noise",
)


def _from_tensors(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Fields of a detector from what `Detector._tensors` gave."""
    encoder = {name.removeprefix(_ENCODER): value for name, value in tensors.items() if name.startswith(_ENCODER)}
    return {"encoder": encoder, **{name: tensors.get(name) for name in _TENSORS}}


def _checked_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Refuse what a file cannot say of a detector; without it, verdicts would be wrong, or fail while they are made."""
    kinds: dict[str, type] = {"model": str, "fingerprint": str, "seed": int, "is_real_noise": bool}
    kinds |= dict.fromkeys(("logit_scale", "sharpening", "cone_sine"), float)
    checked = {name: check_type(name, fields[name], kind) for name, kind in kinds.items()}
    check_tuning(check_type("tuning", fields["tuning"], str))
    names = check_class_names(fields["class_names"])
    text, k = fields["text"], len(names)
    if text is None or text.ndim != 3 or text.shape[:2] != (2, k):
        raise InputError(f"Expected text of shape (2, {k}, D), but got {None if text is None else tuple(text.shape)}.")
    for name, shape in {"text": text.shape, "centre": text.shape[2:], "transition": (k, k)}.items():
        tensor = fields[name]
        if tensor is not None and (
            tensor.shape != shape or not tensor.is_floating_point() or not tensor.isfinite().all()
        ):
            raise InputError(f"Expected {name} of shape {tuple(shape)}, finite, but got {tuple(tensor.shape)}.")
    return {**fields, **checked, "class_names": names}
