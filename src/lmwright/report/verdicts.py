"""What can be said of two groups of runs in one sentence, and what their seeds are too few for.

A difference of means is set against the spread over seeds (`noise.interval`). One seed has no spread, so of it
nothing is claimed. Knows nothing of how the groups came about.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmwright.report.noise import Spread, interval
from lmwright.report.wording import integer, significant


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison: a group's name, its figure over seeds, and the tokens it was trained on."""

    name: str
    figure: Spread
    tokens: float | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What can be said of two groups. interval: of other - base, None where the seeds are too few for one."""

    base: str
    other: str
    difference: float
    interval: tuple[float, float] | None
    text: str


def judge(base: Side, other: Side, unit: str) -> Verdict:
    """Return what the figures of two groups, lower being better, allow to say."""
    before, after = base.figure, other.figure
    difference, reach = after.mean - before.mean, interval(before, after)
    side = "below" if difference < 0 else "above"
    text = (
        f"{other.name} ends {significant(abs(difference), 3)} {unit} {side} {base.name} "
        f"({significant(after.mean)}, {_seeds(after)}, against {significant(before.mean)}, {_seeds(before)}"
        f"{_budgets(other, base)}). {_judged(before, after, reach)}"
    )
    return Verdict(base=base.name, other=other.name, difference=difference, interval=reach, text=text)


def _seeds(found: Spread) -> str:
    return "one seed" if len(found.values) == 1 else f"the mean of {len(found.values)} seeds"


def _budgets(other: Side, base: Side) -> str:
    """Say so where the two were trained on different numbers of tokens."""
    if other.tokens is None or base.tokens is None or other.tokens == base.tokens:
        return ""
    return f"; after {integer(other.tokens)} and {integer(base.tokens)} tokens"


def _judged(before: Spread, after: Spread, reach: tuple[float, float] | None) -> str:
    """Say what the spread over seeds allows to say, and no more."""
    if before.deviation is None and after.deviation is None:
        return "With one seed each, nothing tells this from the noise of the seed; no claim is made."
    if before.deviation is None or after.deviation is None:
        many, one = (after, before) if before.deviation is None else (before, after)
        inside = min(many.values) <= one.mean <= max(many.values)
        return (
            "One side has a single seed, so its noise is not known and no claim is made; the other side's "
            f"{len(many.values)} seeds reach from {significant(min(many.values))} to "
            f"{significant(max(many.values))}, and the single one lies {'within' if inside else 'outside'} that."
        )
    if reach is None:
        return "Each side's seeds gave one and the same figure: no spread to judge by, and no claim is made."
    low, high = reach
    apart = low > 0 or high < 0
    said = "beyond the noise of the seeds" if apart else "zero lies within, so these seeds do not tell them apart"
    return (
        f"The standard deviations over seeds are {significant(after.deviation, 2)} and "
        f"{significant(before.deviation, 2)}; the 95% interval of the difference reaches from "
        f"{significant(low, 3)} to {significant(high, 3)}: {said}."
    )
