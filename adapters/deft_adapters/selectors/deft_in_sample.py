"""DeFT without folds: each label is judged by prompts that have learned from it, as in the paper."""

from __future__ import annotations

from deft_plugin import Deft, FrozenSettings, Run, Selection


class DeftInSample:
    """DeFT on frozen features, trained on all examples and judging the same ones.

    What scores from out of the sample add is the difference to ``deft``. Only for ``tuning="frozen"``; the tunings
    that train the encoder are in sample anyway.
    """

    def select(self, run: Run) -> Selection:
        """Train on all examples and judge each.

        Raises
        ------
        InputError
            If the run's tuning is not "frozen".
        """
        scores = Deft(frozen=FrozenSettings(is_out_of_sample=False)).learn_prompts(run)
        return scores.selection(scores.p_clean)
