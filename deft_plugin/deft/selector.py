"""DeFT as a selector: trained on the run that it judges."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deft_plugin.compute.precision import compute_dtype
from deft_plugin.deft.detector import Detector
from deft_plugin.deft.finetune import Finetuning
from deft_plugin.deft.frozen import FrozenTuning, Scores
from deft_plugin.errors import InputError
from deft_plugin.runs.run import Run
from deft_plugin.settings import FROZEN, FinetuneSettings, FrozenSettings, check_tuning
from deft_plugin.tuning.tunings import pick_tuning, tuned
from deft_plugin.types import Backbone, Selection, SelectorTraits


class Deft:
    """Keeps a label if the image is closer to the positive than to the negative prompt of that label.

    Parameters
    ----------
    frozen : FrozenSettings, optional
        Settings of ``tuning="frozen"``.
    finetune : FinetuneSettings, optional
        Settings of the tunings that train the image encoder, unless the run has its own.

    Attributes
    ----------
    trained : Detector, optional
        What the last call of `select` has trained.

    Examples
    --------
    Keep what was trained, and judge other images by it::

        deft = Deft()
        detection = detect("photos/", method=deft)
        deft.trained.save("photos.safetensors")
        Detector.load("photos.safetensors").score("new_photos/")
    """

    traits = SelectorTraits(consumes=("images", "features", "texts"))

    def __init__(self, *, frozen: FrozenSettings | None = None, finetune: FinetuneSettings | None = None) -> None:
        self.frozen = frozen or FrozenSettings()
        self.finetune = finetune or FinetuneSettings()
        self.trained: Detector | None = None

    def select(self, run: Run) -> Selection:
        """Train prompts on the run's given labels and judge each label; label quality is p_clean."""
        selection, self.trained = self.train(run)
        return selection

    def train(self, run: Run) -> tuple[Selection, Detector]:
        """Do as `select`, and give what was trained, too; a run is trained on once for all with these settings."""
        check_tuning(run.tuning)
        backbone, _ = run.require_images()
        tuning = pick_tuning(run.tuning, backbone, run.device)
        if tuning == FROZEN:
            return self._train_frozen(run, backbone)
        settings = run.training or self.finetune
        return run.once(("deft", tuning, settings), lambda: self._train_encoder(run, backbone, tuning, settings))

    def learn_prompts(self, run: Run) -> Scores:
        """Learn prompts on the run's features, and score its examples; once for all with these settings.

        Raises
        ------
        InputError
            If the run's tuning is not "frozen".
        """
        backbone, _ = run.require_images()
        tuning = pick_tuning(run.tuning, backbone, run.device)
        if tuning != FROZEN:
            raise InputError(f"Expected tuning='frozen' to learn prompts on features alone, but got {tuning!r}.")

        def learn() -> Scores:
            return FrozenTuning(
                backbone,
                run.class_names,
                run.image_features,
                run.labels,
                run.folds,
                n_folds=run.n_folds,
                settings=self.frozen,
                seed=run.seed,
                device=run.device,
            ).fit(run.epoch_end)

        return run.once(("deft", FROZEN, self.frozen), learn)

    def _train_frozen(self, run: Run, backbone: Backbone) -> tuple[Selection, Detector]:
        scores = self.learn_prompts(run)
        # What was estimated to go wrong in each class: the first thing to look at when a class loses many labels.
        off_diagonal = 1 - scores.transition.diagonal().cpu().numpy()
        details = {
            "tuning": FROZEN,
            "estimated_noise_ratio_of_class": dict(zip(run.class_names, off_diagonal.tolist(), strict=True)),
        }
        trained = Detector(
            model=backbone.name,
            fingerprint=backbone.fingerprint,
            logit_scale=backbone.logit_scale,
            class_names=run.class_names,
            tuning=FROZEN,
            text=scores.text,
            encoder={},
            centre=_centre(run, backbone),
            transition=scores.transition,
            sharpening=self.frozen.sharpening,
            cone_sine=self.frozen.cone_sine,
            is_real_noise=False,
            seed=run.seed,
        )
        return _with_details(scores.selection(scores.p_clean), details), trained

    def _train_encoder(
        self, run: Run, backbone: Backbone, name: str, settings: FinetuneSettings
    ) -> tuple[Selection, Detector]:
        if run.images is None:
            raise InputError(
                f"Expected a run with images to train their encoder by {name!r}, but it has features only."
            )
        centre = _centre(run, backbone)
        if settings.protocol == "faithful" and not backbone.has_cone:
            raise InputError(
                f"Expected a CLIP for protocol='faithful', but {backbone.name!r} has centred features, on which the "
                "paper's negative prompts cannot reject. Use an open_clip model, or protocol='default'."
            )
        # Taken out again to the last bit afterwards: other selectors of this run share the backbone.
        with tuned(backbone, name, run.seed) as tuning:
            finetuning = Finetuning(
                run,
                tuning,
                settings=settings,
                centre=centre,
                checkpoint=_checkpoint_file(run, backbone, name, settings),
            )
            verdicts = finetuning.fit(run.epoch_end)
            details = {
                "tuning": name,
                "protocol": settings.protocol,
                "epochs": settings.epochs,
                "batch_size": settings.batch_size,
                "num_trainable_parameters": finetuning.num_trainable,
                "text_path": finetuning.prompts.tokens.text_path,
            }
            trained = Detector(
                model=backbone.name,
                fingerprint=backbone.fingerprint,
                logit_scale=backbone.logit_scale,
                class_names=run.class_names,
                tuning=name,
                text=finetuning.prompts.encode(),
                encoder={key: value.detach().clone() for key, value in tuning.parameters().items()},
                centre=centre,
                transition=finetuning.step.transition,
                # The paper judges by the logits as they are; sharpening is of frozen tuning alone.
                sharpening=1.0,
                cone_sine=settings.cone_sine,
                is_real_noise=settings.is_real_noise,
                seed=run.seed,
            )
        selection = Selection(
            is_clean=verdicts.is_clean.cpu().numpy(),
            label_quality=verdicts.p_clean.double().cpu().numpy(),
            predicted_labels=verdicts.predicted_labels.cpu().numpy(),
            settings={"training": asdict(settings)},
        )
        return _with_details(selection, details), trained


def _centre(run: Run, backbone: Backbone) -> Tensor | None:
    return None if backbone.has_cone else torch.from_numpy(run.centre).to(run.device)


def _with_details(selection: Selection, details: dict[str, Any]) -> Selection:
    return replace(selection, details={**details, "estimated_noise_ratio": float(1 - selection.label_quality.mean())})


def _checkpoint_file(run: Run, backbone: Backbone, tuning: str, settings: FinetuneSettings) -> Path | None:
    """Where a run's checkpoint is: the same run, started again, finds it."""
    if run.checkpoint_dir is None or run.images is None:
        return None
    # Whatever changes a single number of the run is in the key: to resume another run would be a silent wrong result.
    key = {
        "images": run.images.fingerprint()
        if run.digests is None
        else hashlib.sha256(run.digests.tobytes()).hexdigest(),
        "labels": hashlib.sha256(run.labels.astype(np.int64).tobytes()).hexdigest(),
        "class_names": run.class_names,
        "backbone": backbone.fingerprint,
        "tuning": tuning,
        "settings": asdict(settings),
        "precision": str(compute_dtype(run.device)),
        "seed": run.seed,
    }
    return run.checkpoint_dir / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.safetensors"
