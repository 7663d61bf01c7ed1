"""The DeFT detector as a selector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from deft_plugin.errors import UnknownNameError, did_you_mean
from deft_plugin.frozen import FrozenSettings, FrozenTuning, Scores
from deft_plugin.run import Run
from deft_plugin.types import Selection

Tuning: TypeAlias = Callable[["Deft", Run], Scores]


class Deft:
    """Keeps a label if the image is closer to the positive than to the negative prompt of that label.

    Parameters
    ----------
    frozen : FrozenSettings, optional
        Settings of ``tuning="frozen"``.
    """

    needs_images = True

    def __init__(self, *, frozen: FrozenSettings | None = None) -> None:
        self.frozen = frozen or FrozenSettings()

    def select(self, run: Run) -> Selection:
        """Train prompts on the run's given labels and judge each label; label quality is p_clean."""
        tuning = "frozen" if run.tuning == "auto" else run.tuning
        if tuning not in TUNINGS:
            raise UnknownNameError(f"Unknown tuning {tuning!r}. {did_you_mean(tuning, ['auto', *TUNINGS])}")
        scores = TUNINGS[tuning](self, run)
        p_clean = scores.p_clean.double().cpu().numpy()
        off_diagonal = 1 - scores.transition.diagonal().cpu().numpy()
        return Selection(
            is_clean=p_clean > 0.5,
            label_quality=p_clean,
            predicted_labels=scores.predicted_labels.cpu().numpy(),
            details={
                "tuning": tuning,
                "estimated_noise_ratio": float(1 - p_clean.mean()),
                "estimated_noise_ratio_of_class": dict(zip(run.class_names, off_diagonal.tolist(), strict=True)),
            },
        )


def _tune_frozen(detector: Deft, run: Run) -> Scores:
    backbone, _ = run.require_images()
    tuning = FrozenTuning(
        backbone,
        run.class_names,
        run.image_features,
        run.labels,
        run.folds,
        n_folds=run.n_folds,
        settings=detector.frozen,
        seed=run.seed,
        device=run.device,
    )
    return tuning.fit(run.epoch_end)


TUNINGS: dict[str, Tuning] = {"frozen": _tune_frozen}
