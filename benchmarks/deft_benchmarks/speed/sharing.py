"""What sharing one run saves: all selectors together against each alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deft_benchmarks.noise.instance import put_noise_in
from deft_plugin.judging import judge
from deft_plugin.runs import prepare_run

if TYPE_CHECKING:
    from deft_benchmarks.matrix.recipes import TrueData
    from deft_plugin.plugins import Plugins
    from deft_plugin.settings import RunSettings


def measure_sharing(
    truth: TrueData,
    *,
    plugins: Plugins,
    selectors: Sequence[str],
    settings: RunSettings,
    noise_ratio: float,
    report: Callable[[str, float], None],
) -> dict[str, Any]:
    """Time each selector in a run of its own, and all in one run, on the same noisy labels; features are cached before.

    Parameters
    ----------
    truth : TrueData
    plugins : Plugins
    selectors : sequence of str
    settings : RunSettings
        Model, device and so on.
    noise_ratio : float in [0, 1)
        Of symmetric noise.
    report : callable
        Told of each selector, or "all", with its seconds.

    Returns
    -------
    dict
        Seconds of each alone, their sum, those of all together, and the ratio of the two.
    """
    data = truth.data
    symmetric, traits = plugins.noise_models.load("sym"), plugins.noise_models.get("sym").traits
    given = put_noise_in(symmetric, data, traits=traits, noise_ratio=noise_ratio, seed=0)
    settings = replace(settings, noise_ratio=float((given != data.labels).mean()), noise_ratio_source="oracle")
    noisy = replace(data, labels=given)
    prepare_run(noisy, settings=settings, plugins=plugins)  # the pass over the images

    def run(names: Sequence[str]) -> float:
        started = time.perf_counter()
        prepared = prepare_run(noisy, settings=settings, plugins=plugins)
        for name in names:
            judge(prepared, name, plugins.selectors.load(name))
        return time.perf_counter() - started

    alone: dict[str, float] = {}
    for name in selectors:
        alone[name] = run([name])
        report(name, alone[name])
    together = run(selectors)
    report("all", together)
    total = sum(alone.values())
    return {"alone": alone, "sum_of_alone": total, "together": together, "ratio": together / total}
