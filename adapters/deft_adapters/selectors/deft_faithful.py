"""DeFT by the authors' protocol, on an image encoder that learns with the prompts."""

from __future__ import annotations

from dataclasses import replace

from deft_plugin import Deft, FinetuneSettings, Run, Selection
from deft_plugin.settings import FROZEN


class DeftFaithful:
    """DeFT with ``protocol="faithful"``; `deft_plugin.FinetuneSettings` says what that is.

    The encoder learns deep visual prompts, as in the paper, unless the run asks for another tuning of the encoder.
    Other settings are the run's, that is the recipe's.

    References
    ----------
    Wei et al., "Vision-Language Models are Strong Noisy Label Detectors", NeurIPS 2024, and the authors' code.
    """

    def select(self, run: Run) -> Selection:
        """Train as the authors do, and take the verdicts of the last epoch.

        Raises
        ------
        InputError
            If the backbone has no cone, as the embedded model: the paper's negative prompts cannot reject there.
        """
        tuning = "vpt_deep" if run.tuning in ("auto", FROZEN) else run.tuning
        training = replace(run.training or FinetuneSettings(), protocol="faithful")
        return Deft().select(run.with_settings(tuning=tuning, training=training))
