"""Properties of densities and fits, held against thousands of drawn cases."""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import torch
from hypothesis import HealthCheck, given, seed, settings

from mogul.compute.threads import usable_cores
from torture._properties import densities, fits
from torture._properties.drawn import Case, cases
from torture.outcome import Outcome

DENSITIES, FITS, ASCENT = 700, 350, 1_200  # cases of each property in the long run
_QUICK = 40  # as many times fewer in continuous integration


@dataclass(frozen=True)
class Property:
    """A property, in how many cases the long run tries it, and what it asks of a case."""

    holds: Callable[[Case], None]
    n: int
    asks: dict[str, int | bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called in failures."""
        return f"{self.holds.__module__.rsplit('.', 1)[-1]}.{self.holds.__name__}"


_SPLIT = {"least_d": 2}
PROPERTIES = {
    p.name: p
    for p in [
        Property(densities.translation, DENSITIES),
        Property(densities.origin_is_no_parameter, DENSITIES),
        Property(densities.scaling, DENSITIES),
        Property(densities.rotation, DENSITIES),
        Property(densities.permuted_components, DENSITIES),
        Property(densities.permuted_features, DENSITIES),
        Property(densities.rows_are_independent, DENSITIES),
        Property(densities.kernels_are_the_density, DENSITIES),
        Property(densities.chain_rule, DENSITIES, _SPLIT),
        Property(densities.marginal_of_conditional, DENSITIES, _SPLIT),
        Property(densities.gaps_are_marginals, DENSITIES),
        Property(densities.files_keep_everything, FITS),
        Property(densities.seeds_decide, FITS),
        Property(fits.translation, FITS),
        Property(fits.scaling, FITS),
        Property(fits.rotation, FITS, {"full": True}),
        Property(fits.permuted_components, FITS),
        Property(fits.permuted_rows, FITS),
        Property(fits.weights_are_repetitions, FITS),
        Property(fits.batch_size, FITS),
        Property(fits.rank_count, FITS),
        Property(fits.thread_count, FITS),
        Property(fits.seeds_decide, FITS),
        Property(fits.gaps_of_no_weight, FITS),
        Property(fits.hidden_is_hidden, FITS),
        Property(fits.monotone, ASCENT),
    ]
}


def check(name: str, n: int) -> tuple[int, str | None]:
    """Try a property in n drawn cases; return how many held, and the simplest that did not."""
    own, held, last = PROPERTIES[name], [0], [""]

    @seed(zlib.crc32(name.encode()))
    @settings(max_examples=n, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases(**own.asks))
    def holds(case: Case) -> None:
        last[0] = repr(case)
        own.holds(case)
        held[0] += 1

    torch.set_num_threads(1)
    try:
        holds()
    except Exception as error:  # whatever goes wrong is a failure of the property
        told = " ".join(str(error).split())[:300]
        return held[0], f"{name}: {last[0]}: {type(error).__name__}: {told}"
    return held[0], None


def run(quick: bool) -> list[Outcome]:
    """Try every property."""
    share = _QUICK if quick else 1
    tasks = [(name, max(2, p.n // share)) for name, p in PROPERTIES.items()]
    if quick:
        found = [check(*task) for task in tasks]
    else:
        context = multiprocessing.get_context("spawn")
        slow_first = sorted(tasks, key=lambda task: task[0].startswith("densities"))
        with ProcessPoolExecutor(usable_cores(), context) as pool:
            found = list(pool.map(check, *zip(*slow_first, strict=True)))
    failures = [told for _, told in found if told is not None]
    ascents = PROPERTIES["fits.monotone"].n // share
    note = f"{len(PROPERTIES)} properties; EM rose in {ascents:,} random fits"
    return [Outcome("properties", sum(held for held, _ in found), failures, note)]
