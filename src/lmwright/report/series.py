"""Curves out of metrics.jsonl: what a figure draws, as lists of numbers.

A curve that is noisier than it is long is shown twice: each record thin, and a running mean over it. Values that
are not finite are gaps; they are counted, never drawn and never averaged.
"""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmwright.report.contents import RunContents

SMOOTHED_FROM = 40
WINDOW_SHARE = 40


AGAINST = ("tokens", "steps", "flops", "seconds")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity against another. x, y: equally long; y may hold NaN where there is a gap."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.finite())

    def finite(self) -> tuple[float, ...]:
        """Return the values that are finite."""
        return tuple(value for value in self.y if math.isfinite(value))

    def end(self) -> tuple[float, float]:
        """Return the last point that is finite."""
        return next((x, y) for x, y in zip(reversed(self.x), reversed(self.y), strict=True) if math.isfinite(y))

    @property
    def gaps(self) -> int:
        """How many values are missing or not finite."""
        return len(self.y) - len(self.finite())


@dataclass(frozen=True, kw_only=True)
class Band:
    """The mean of several curves, and the least and the greatest of them; all equally long, NaN at a gap."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def curve(run: RunContents, kind: str, key: str, *, against: str = "tokens") -> Curve:
    """Return `key` of the records of `kind` against one of AGAINST, as it was when each was written."""
    points = [
        (x, y if math.isfinite(y) else math.nan)
        for x, y in zip(positions(run, kind, against), run.column(kind, key), strict=True)
        if math.isfinite(x)
    ]
    return Curve(x=tuple(x for x, _ in points), y=tuple(y for _, y in points))


def positions(run: RunContents, kind: str, against: str) -> list[float]:
    """Return where each record of `kind` stands: its step, tokens, FLOPs or seconds of training; NaN if unknown.

    A record without the figure stands where its step does, read between the step records. FLOPs are exact: those
    of a token, from plan.json, times the tokens.
    """
    if against == "steps":
        return run.column(kind, "step")
    if against == "flops":
        per_token = run.number("plan.json:flops.per_token")
        return [math.nan if per_token is None else per_token * at for at in positions(run, kind, "tokens")]
    known = sorted(zip(run.column("step", "step"), run.column("step", against), strict=True))
    known = [(0.0, 0.0), *((step, at) for step, at in known if math.isfinite(step + at))]
    columns = zip(run.column(kind, against), run.column(kind, "step"), strict=True)
    return [at if math.isfinite(at) else _between(known, step) for at, step in columns]


def band(runs: Sequence[RunContents], kind: str, key: str, *, against: str = "tokens") -> Band:
    """Return the mean of `key` over runs, step by step, where every run has the step; each smoothed first."""
    tables = []
    for run in runs:
        steps = positions(run, kind, "steps")
        whole = Curve(x=tuple(steps), y=tuple(run.column(kind, key)))
        values = smoothed(whole)[0].y if kind == "step" else whole.y
        places = positions(run, kind, against)
        tables.append({s: (x, y) for s, x, y in zip(steps, places, values, strict=True) if math.isfinite(s + x)})
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    points = [[table[step] for table in tables] for step in shared]
    values_of = [[y if math.isfinite(y) else math.nan for _, y in at] for at in points]
    gaps = [any(math.isnan(y) for y in values) for values in values_of]

    def of(compute: Callable[[list[float]], float]) -> tuple[float, ...]:
        return tuple(math.nan if gap else compute(values) for gap, values in zip(gaps, values_of, strict=True))

    x = tuple(statistics.fmean(place for place, _ in at) for at in points)
    return Band(x=x, mean=of(statistics.fmean), low=of(min), high=of(max))


def _between(known: list[tuple[float, float]], step: float) -> float:
    after = bisect.bisect_left(known, (step, -math.inf))
    if after == len(known) or not math.isfinite(step):
        return math.nan
    (s1, t1), (s0, t0) = known[after], known[max(after - 1, 0)]
    return t1 if s1 == s0 else t0 + (t1 - t0) * (step - s0) / (s1 - s0)


def smoothed(curve: Curve) -> tuple[Curve, int]:
    """Return the centred running mean over a 40th of the curve, and its window; a short curve stays as it is.

    Towards the start, where a loss falls fast, the window narrows; towards the end it is cut off.
    """
    if len(curve.y) < SMOOTHED_FROM:
        return curve, 1
    half = max(1, len(curve.y) // (2 * WINDOW_SHARE))
    sums = [0.0, *itertools.accumulate(value if math.isfinite(value) else 0.0 for value in curve.y)]
    counts = [0, *itertools.accumulate(math.isfinite(value) for value in curve.y)]
    means = []
    for index in range(len(curve.y)):
        reach = min(half, index)
        low, high = index - reach, min(index + reach + 1, len(curve.y))
        count = counts[high] - counts[low]
        means.append((sums[high] - sums[low]) / count if count else math.nan)
    return Curve(x=curve.x, y=tuple(means)), 2 * half + 1


def thinned(curve: Curve, most: int) -> Curve:
    """Return at most about `most` points that look the same: of each stretch its least, its greatest and a gap."""
    if len(curve.y) <= most:
        return curve
    size = -(-2 * len(curve.y) // most)
    kept: list[int] = []
    for start in range(0, len(curve.y), size):
        stretch = range(start, min(start + size, len(curve.y)))
        finite = [index for index in stretch if math.isfinite(curve.y[index])]
        ends = {min(finite, key=curve.y.__getitem__), max(finite, key=curve.y.__getitem__)} if finite else set()
        kept += sorted(ends | set([index for index in stretch if not math.isfinite(curve.y[index])][:1]))
    return Curve(x=tuple(curve.x[index] for index in kept), y=tuple(curve.y[index] for index in kept))
