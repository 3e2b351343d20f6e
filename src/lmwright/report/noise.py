"""How far a difference between two groups of runs is more than the noise of their seeds.

Welch (1947): with n values of mean m and standard deviation s in each group, (m2 - m1) / e follows Student's t,
where e^2 = s1^2/n1 + s2^2/n2, with e^4 / (s1^4/(n1^2 (n1 - 1)) + s2^4/(n2^2 (n2 - 1))) degrees of freedom. It
takes two values in each group at least, and holds for values that scatter as a normal distribution does.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
HALVINGS, INTERVALS = 60, 512


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Values of one figure over seeds. deviation: of the sample (n - 1 below), None for a single value."""

    values: tuple[float, ...]
    mean: float
    deviation: float | None


def spread(values: Sequence[float]) -> Spread:
    """Return the mean and the standard deviation of at least one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(values=tuple(values), mean=statistics.fmean(values), deviation=deviation)


def interval(first: Spread, second: Spread) -> tuple[float, float] | None:
    """Return the interval of the difference of means, second - first; None if there is no spread to judge by."""
    if first.deviation is None or second.deviation is None or not first.deviation + second.deviation:
        return None
    errors = [(group.deviation or 0.0) / math.sqrt(len(group.values)) for group in (first, second)]
    whole = math.hypot(*errors)
    shares = [(error / whole) ** 2 for error in errors]
    counts = (len(first.values) - 1, len(second.values) - 1)
    freedom = 1 / sum(share**2 / count for share, count in zip(shares, counts, strict=True))
    difference, reach = second.mean - first.mean, student(freedom) * whole
    return difference - reach, difference + reach


def student(freedom: float) -> float:
    """Return t so that a share CONFIDENCE of Student's distribution lies between -t and t, to 1e-9 of it.

    With t = sqrt(freedom) tan(a) the share is the integral of cos(a)^(freedom - 1) to a over that to pi/2.
    """
    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    low, high = 0.0, math.pi / 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _power_integral(middle, freedom - 1) < CONFIDENCE * whole else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _power_integral(end: float, power: float) -> float:
    """Return the integral of cos(a)^power from 0 to `end`, by Simpson's rule."""
    width = end / INTERVALS
    heights = [math.pow(math.cos(number * width), power) for number in range(INTERVALS + 1)]
    return width / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1::2]) + 2 * sum(heights[2:-1:2]))
