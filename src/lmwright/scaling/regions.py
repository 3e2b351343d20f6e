"""The three regions of a learning curve over data (Hestness et al. 2017, arXiv:1712.00409, figure 6).

    L(D) = min(L_0, max(L_floor, A D^-b))

With little data a model does no better than guessing by frequencies (L_0), then its loss falls by a power law, and
at last it stays where the model's size or the text's own entropy holds it (L_floor). Each way to part the points,
sorted by tokens, into the three is tried: given the parts, the best plateaus are means of ln L and the best power
law is a line, and both are in closed form. Which regions there are at all is decided by the Bayesian information
criterion (Schwarz 1978), for a curve with one more plateau never fits worse. The ways are as many as the square
of the points, so of a long curve points at evenly chosen numbers of tokens are taken.

    size, regions = of_points(points)       # of the model that was run for the most numbers of tokens
"""

# R rows (points)

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling.fit.students import student_quantile
from lmwright.scaling.points import Floats, Points

Region = Literal["small data", "power law", "irreducible"]
FEWEST, FEWEST_ON_LINE, FEWEST_ON_PLATEAU = 4, 3, 2
MOST = 200  # rows of a curve that is parted: 20,000 ways, a second
LEAST_SPREAD = 1e-6  # of ln L about the curve: below it a loss is not known
LEVEL = 0.95  # of the interval of the exponent
REPEATED = 1.05  # tokens by unique ones: beyond, the curve is of repeats as well
ONE_SIZE = 0.02  # of ln N


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Where the regions of a curve part.

    small, floor: losses of the plateaus; begin, end: tokens at which the power law meets them, each between two
    neighbouring points. All None where the points show no such plateau. ln_A, exponent: of the power law, with
    the interval of least squares, as if the points erred independently. spread: standard deviation of ln L about
    it all.
    """

    ln_A: float
    exponent: float
    exponent_interval: tuple[float, float]
    small: float | None
    floor: float | None
    begin: float | None
    end: float | None
    spread: float

    def region(self, tokens: float) -> Region:
        """Return the region of a number of tokens."""
        if self.begin is not None and tokens < self.begin:
            return "small data"
        return "irreducible" if self.end is not None and tokens > self.end else "power law"

    def loss(self, tokens: Floats) -> Floats:
        """Return the curve."""
        line = np.exp(self.ln_A - self.exponent * np.log(tokens))
        above = np.inf if self.small is None else self.small
        curve: Floats = np.clip(line, self.floor or 0.0, above)
        return curve


def of_points(points: Points) -> tuple[float, Regions]:
    """Return N of the model that was run for the most numbers of tokens, the larger of equals, and its regions.

    Finished points on new text alone count. Raises ConfigError as `find`.
    """
    new = points.take(points.finished) if points.finished.any() else points
    fresh_R = new.tokens <= REPEATED * new.unique_tokens
    new = new.take(fresh_R) if fresh_R.any() else new
    log_n = new.log("parameters")
    lengths_R = _lengths(log_n, new.tokens)
    chosen = max(range(len(new)), key=lambda row: (lengths_R[row], log_n[row]))
    curve = new.take(abs(log_n - log_n[chosen]) <= ONE_SIZE)
    return math.exp(log_n[chosen]), find(curve.tokens, curve.loss)


def _lengths(log_n: Floats, tokens: Floats) -> np.ndarray:
    """Return for each row how many numbers of tokens the models of its size were run for, [R].

    A window moves over the sizes in order, so the time grows with the rows and not with their square.
    """
    order = np.argsort(log_n, kind="stable")
    sizes, lengths = log_n[order].tolist(), tokens[order].tolist()
    inside: Counter[float] = Counter()
    found_R, begin, end = np.zeros(len(log_n), dtype=np.int64), 0, 0
    for place, size in enumerate(sizes):
        while end < len(sizes) and sizes[end] - size <= ONE_SIZE:
            inside[lengths[end]] += 1
            end += 1
        while size - sizes[begin] > ONE_SIZE:
            inside[lengths[begin]] -= 1
            if not inside[lengths[begin]]:
                del inside[lengths[begin]]
            begin += 1
        found_R[order[place]] = len(inside)
    return found_R


def find(tokens: Floats, loss: Floats) -> Regions:
    """Find the regions of a curve of one model over tokens, in any order.

    Of more than MOST rows a part is looked at, by `_thinned`. Raises ConfigError for fewer than four numbers of
    tokens, or a loss that does not fall.
    """
    order = np.argsort(tokens, kind="stable")
    log_d, log_l = np.log(np.asarray(tokens)[order]), np.log(np.asarray(loss)[order])
    if len(np.unique(log_d)) < FEWEST:
        raise ConfigError(
            f"regions: {len(np.unique(log_d))} different numbers of tokens; three regions take at least {FEWEST}"
        )
    kept = _thinned(log_d)
    log_d, log_l, rows = log_d[kept], log_l[kept], len(kept)
    found = []
    for first in (0, *range(FEWEST_ON_PLATEAU, rows)):
        for last in (rows, *range(first + FEWEST_ON_LINE, rows - FEWEST_ON_PLATEAU + 1)):
            if last - first >= FEWEST_ON_LINE and (one := _parted(log_d, log_l, first, last)) is not None:
                found.append(one)
    if not found:
        raise ConfigError("regions: the loss does not fall with more tokens; look at the runs, or add larger ones")
    return min(found, key=lambda one: one[0])[1]


def _thinned(log_d: Floats) -> np.ndarray:
    """Return the rows of a sorted column that are parted: all, or MOST at places evenly chosen by rank.

    Each place gives equally many at most, so that one which was run very often does not crowd out the others.
    """
    if len(log_d) <= MOST:
        return np.arange(len(log_d))
    _, first, counts = np.unique(log_d, return_index=True, return_counts=True)
    places = _evenly(len(first), MOST)
    each = MOST // len(places)
    return np.concatenate([first[place] + _evenly(int(counts[place]), each) for place in places])


def _evenly(count: int, most: int) -> np.ndarray:
    """Return at most so many of 0 .. count - 1, both ends among them, none twice."""
    kept = min(count, most)
    return np.arange(kept) * (count - 1) // max(1, kept - 1)


def _parted(log_d: Floats, log_l: Floats, first: int, last: int) -> tuple[float, Regions] | None:
    """Return criterion and regions with rows first .. last - 1 on the line; None where these contradict it."""
    if np.ptp(log_d[first:last]) == 0.0:
        return None
    slope, level = np.polyfit(log_d[first:last], log_l[first:last], 1)
    if not slope < 0:
        return None
    ln_small = float(log_l[:first].mean()) if first else None
    ln_floor = float(log_l[last:].mean()) if last < len(log_l) else None
    begin, end = (None if height is None else float((height - level) / slope) for height in (ln_small, ln_floor))
    if begin is not None and not log_d[first - 1] <= begin <= log_d[first]:
        return None
    if end is not None and not log_d[last - 1] <= end <= log_d[last]:
        return None
    curve = level + slope * log_d
    curve[:first], curve[last:] = ln_small or 0.0, ln_floor or 0.0
    rows, numbers = len(log_d), 2 + (first > 0) + (last < len(log_d))
    spread = max(math.sqrt(float(((log_l - curve) ** 2).mean())), LEAST_SPREAD)
    regions = Regions(
        ln_A=float(level),
        exponent=float(-slope),
        exponent_interval=_interval(float(-slope), log_d[first:last], log_l[first:last]),
        small=None if ln_small is None else math.exp(ln_small),
        floor=None if ln_floor is None else math.exp(ln_floor),
        begin=None if begin is None else math.exp(begin),
        end=None if end is None else math.exp(end),
        spread=spread,
    )
    return 2 * rows * math.log(spread) + numbers * math.log(rows), regions


def _interval(exponent: float, log_d: Floats, log_l: Floats) -> tuple[float, float]:
    """Return the interval of the slope of a line by least squares (Student's t)."""
    free = len(log_d) - 2
    away = log_d - log_d.mean()
    left = log_l - log_l.mean() + exponent * away
    error = math.sqrt(float(left @ left) / free / float(away @ away))
    reach = student_quantile(0.5 + LEVEL / 2, free) * error
    return exponent - reach, exponent + reach
