"""DeFT with another ranking: the same verdicts, ranked by the positive prompts alone."""

from __future__ import annotations

from deft_plugin import Deft, Run, Selection


class DeftPosterior:
    """DeFT's verdicts; label quality is the posterior of the given label by the positive prompts alone.

    Out of sample, as p_clean is. What the negative prompts and the estimated transition add to a ranking is the
    difference to ``deft``. Only for ``tuning="frozen"``.
    """

    def select(self, run: Run) -> Selection:
        """Take DeFT's verdicts, from the same training if it has run, and rank them anew.

        Raises
        ------
        InputError
            If the run's tuning is not "frozen".
        """
        scores = Deft().learn_prompts(run)
        return scores.selection(scores.posterior)
