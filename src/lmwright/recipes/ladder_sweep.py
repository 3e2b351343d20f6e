"""The sweep of a ladder: rates and batches are tried at its smallest sizes until the best lies between others.

At each batch three rates around what the prior wants, then further to the side where the best lies at the edge.
First at the prior's batch; then at half and at twice that, around the best rate found, moved by the square root of
the batch; then further where the best batch lies at the edge. All trials of a size read the same tokens.
Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmwright.data.build import Corpus
from lmwright.recipes import ladder_plan
from lmwright.recipes.ladder_plan import FEWEST_UNITS, Ladder, Trunk
from lmwright.scaling.priors import Scale
from lmwright.scaling.sweep import Swept, Trial, at_batch, fit_sweep

RATIO = 2.0  # from one rate to the next
FIRST_RATES, MOST_RATES, MOST_BATCHES = 3, 6, 5


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A run of the sweep. loss: infinite where it diverged."""

    batch_size: int
    learning_rate: float
    loss: float


def trunks(asked: Ladder, corpus: Corpus) -> list[Trunk]:
    """Return the smallest sizes, at their shortest length, with the settings of the prior."""
    shortest = replace(asked, lengths=1, seeds=asked.seeds[:1])
    return ladder_plan.trunks(shortest, corpus)[: asked.sweep]


def wanted(trunk: Trunk, tried: Sequence[Tried]) -> list[tuple[int, float]]:
    """Return the batches and rates to try next; empty once the best lies between others, or enough were tried."""
    first = trunk.settings.batch_size
    if rates := _rates(trunk.settings.learning_rate, _at(first, tried)):
        return [(first, rate) for rate in rates]
    sides = [batch for batch in (first // 2, 2 * first) if batch and possible(trunk, batch)]
    if more := [pair for batch in sides for pair in _around(first, batch, tried)]:
        return more
    batches = sorted({one.batch_size for one in tried})
    best = _best(tried).batch_size
    beyond = {batches[0]: best // 2, batches[-1]: 2 * best}.get(best, 0)
    known = beyond in batches
    if not beyond or not possible(trunk, beyond) or (len(batches) >= MOST_BATCHES and not known):
        return []
    return _around(best, beyond, tried)


def possible(trunk: Trunk, batch_size: int) -> bool:
    """Return whether a run of the same tokens has room for a decay at this batch."""
    return _unit(trunk, batch_size) >= FEWEST_UNITS


def run_file(trunk: Trunk, corpus: str, batch_size: int, rate: float) -> dict[str, Any]:
    """Return the settings of a trial as `pretrain` takes them."""
    one = at(trunk, batch_size)
    return one.run_file(corpus, steps=one.steps(0), schedule=one.decaying(0), rate=rate)


def at(trunk: Trunk, batch_size: int) -> Trunk:
    """Return the trunk as it is at another batch, with as many tokens and as long a warm-up in tokens."""
    settings, times = trunk.settings, trunk.settings.batch_size / batch_size
    changed = replace(settings, batch_size=batch_size, warmup_steps=max(1, round(times * settings.warmup_steps)))
    return replace(trunk, unit=_unit(trunk, batch_size), settings=changed)


def rules(results: Iterable[tuple[Trunk, Sequence[Tried]]]) -> Swept:
    """Return what the sweeps of all sizes teach."""
    return fit_sweep(
        [
            Trial(
                scale=Scale.of(trunk.config, trunk.tokens(0), trunk.length),
                learning_rate=one.learning_rate,
                batch_tokens=one.batch_size * trunk.length,
                loss=one.loss,
            )
            for trunk, tried in results
            for one in tried
        ]
    )


def name(trunk: Trunk, batch_size: int, rate: float) -> str:
    """Return the name of a trial's directory."""
    return f"{trunk.name}-batch{batch_size}-{rate:.3g}"


def _unit(trunk: Trunk, batch_size: int) -> int:
    return round(trunk.unit * trunk.settings.batch_size / batch_size)


def _at(batch_size: int, tried: Iterable[Tried]) -> list[Tried]:
    return [one for one in tried if one.batch_size == batch_size]


def _best(tried: Iterable[Tried]) -> Tried:
    return min(tried, key=lambda one: (one.loss, one.learning_rate))


def _around(known: int, batch_size: int, tried: Sequence[Tried]) -> list[tuple[int, float]]:
    """Return the rates to try at a batch, beginning about the best of a batch that is known."""
    centre = at_batch(_best(_at(known, tried)).learning_rate, known, batch_size)
    return [(batch_size, rate) for rate in _rates(centre, _at(batch_size, tried))]


def _rates(centre: float, tried: Sequence[Tried]) -> list[float]:
    """Return the rates to try next at one batch: three about the centre, then beyond the edge with the best."""
    first = [centre * RATIO**power for power in (-1, 0, 1)]
    missing = [rate for rate in first if not any(math.isclose(rate, one.learning_rate) for one in tried)]
    if missing or len(tried) >= MOST_RATES:
        return missing
    rates = sorted(one.learning_rate for one in tried)
    best = _best(tried).learning_rate
    return {rates[0]: [best / RATIO], rates[-1]: [best * RATIO]}.get(best, [])
