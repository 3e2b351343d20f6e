"""Chinchilla's three approaches to the compute-optimal frontier side by side, each where the points allow it.

Hoffmann et al. 2022, arXiv:2203.15556, section 3: 1 the envelope of training curves, 2 the valleys of equal
FLOPs, 3 the fitted law. The first two reckon with the FLOPs of the points, the third with 6ND. What repeats its
data follows another law, and is left out of the first two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmwright.errors import ConfigError
from lmwright.scaling.fit import Fitted
from lmwright.scaling.frontier import Frontier, estimate
from lmwright.scaling.frontier.parametric import of_fitted
from lmwright.scaling.points import Points
from lmwright.scaling.regions import REPEATED

NUMBERS = {"envelope": 1, "isoflop": 2, "parametric": 3}  # as the paper counts them
WIDEST = 1000.0  # from end to end of the interval of N* at the largest compute: beyond, it is not known
LN_10 = math.log(10)
ALONG_RUNS = (
    "its curves are validation losses along each run, most of them before the rate had come down, so above the law"
)


@dataclass(frozen=True, kw_only=True)
class Approach:
    """One approach. frontier: None where the points do not tell it, `why_not` says why. notes: its doubts."""

    name: str
    frontier: Frontier | None
    why_not: str = ""
    notes: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """Its number in the paper."""
        return NUMBERS[self.name]


def approaches(
    points: Points, fitted: Fitted, curves: Points | None, *, draws: int, seed: int
) -> tuple[Approach, ...]:
    """Return the frontier by each approach, in the paper's order.

    points: finished ones. curves: losses along the runs, read where no run has several points: several cool-downs
    of one trunk are the better curve, for each is a point of the law.
    """
    fresh_R = points.tokens <= REPEATED * points.unique_tokens
    note = () if fresh_R.all() else (f"{int((~fresh_R).sum())} points that repeat their data are left out",)
    read: dict[str, tuple[Points | None, tuple[str, ...]]] = dict.fromkeys(
        ("envelope", "isoflop"), (points.take(fresh_R) if fresh_R.any() else None, note)
    )
    if curves is not None and len(set(points.run)) == len(points):
        read["envelope"] = curves, (ALONG_RUNS,)
    found = [_estimated(name, *parts, draws, seed) for name, parts in read.items()]
    return (*found, of_law(fitted))


def _estimated(name: str, points: Points | None, notes: tuple[str, ...], draws: int, seed: int) -> Approach:
    if points is None:
        return Approach(name=name, frontier=None, why_not="all points repeat their data")
    try:
        frontier = estimate(name, points, draws=draws, seed=seed)
    except ConfigError as error:
        return Approach(name=name, frontier=None, why_not=str(error).removeprefix(f"{name}: "), notes=notes)
    return _told(name, frontier, (*notes, *frontier.warnings))


def of_law(fitted: Fitted) -> Approach:
    """Approach 3; the warnings of the fit stand with the fit."""
    try:
        return _told("parametric", of_fitted(fitted), ())
    except ConfigError as error:
        return Approach(name="parametric", frontier=None, why_not=str(error))


def _told(name: str, frontier: Frontier, notes: tuple[str, ...]) -> Approach:
    """Return the approach, without its frontier where its draws leave N* open."""
    if frontier.draws:
        low, high = (float(end) for end in frontier.log_band(frontier.largest)[0])
        if high - low > math.log(WIDEST):
            why = (
                "the points do not say how a budget is divided between parameters and tokens: at their largest "
                f"compute, {frontier.largest:.3g} FLOPs, N* is known to a factor of 10^{(high - low) / LN_10:.0f}"
            )
            return Approach(name=name, frontier=None, why_not=why, notes=notes)
    return Approach(name=name, frontier=frontier, notes=notes)
