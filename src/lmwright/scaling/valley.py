"""The bottom of a valley: where a loss that was measured at a few sizes, or learning rates, is least.

A parabola in the logarithm, put through the points near the lowest one alone: on a real loss surface the valley
is not a parabola, and one through a wide grid misses the bottom (Czech et al. 2026, arXiv:2603.22339: on
Chinchilla's surface the intercept is off by 0.3% on a grid of twofold reach to each side, by 4.1% on one of
sixteenfold). Where the lowest point is the first or the last there is no bottom to see, and none is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from lmwright.scaling.points import Floats

REACH = math.log(4) * (1 + 1e-9)  # to each side of the lowest point
MOST = 5  # points of the parabola
COARSE = math.log(8)  # from the bottom to the parabola's farther end: beyond, it is biased by percents
OFF_CENTRE = 0.25  # of the grid's width


@dataclass(frozen=True, kw_only=True)
class Valley:
    """log_place: ln x of the bottom; loss: there. problem: why there is no bottom, then the numbers are none.

    curvature: second derivative by ln x. notes: what casts doubt on a bottom that is given.
    """

    log_place: float = math.nan
    loss: float = math.nan
    curvature: float = math.nan
    problem: str | None = None
    notes: tuple[str, ...] = ()


def bottom(log_x: Floats, loss: Floats) -> Valley:
    """Return the bottom of a valley from its points, in any order; of equal x the mean counts.

    Needs three different x; the lowest must have a neighbour on each side.
    """
    places, owner = np.unique(log_x, return_inverse=True)
    if len(places) < 3:
        return Valley(problem=f"{len(places)} different places; a bottom needs three")
    height = np.bincount(owner, loss) / np.bincount(owner)
    lowest = int(height.argmin())
    if lowest in (0, len(places) - 1):
        side = "first" if lowest == 0 else "last"
        return Valley(problem=f"the least loss is at the {side} place: the optimum may lie beyond it")
    near, notes = _near(places, lowest), tuple[str, ...]()
    found = _parabola(places[near], height[near], float(places[lowest]))
    if found is None and len(near) > 3:
        near = np.array([lowest - 1, lowest, lowest + 1])
        found = _parabola(places[near], height[near], float(places[lowest]))
        notes = ("the loss beside the three lowest places is no parabola's; only those three tell the bottom",)
    if found is None:
        return Valley(problem="the points near the least loss do not bend upwards around it")
    return replace(found, notes=(*notes, *_notes(places, near, found.log_place)))


def _parabola(log_x: Floats, loss: Floats, lowest: float) -> Valley | None:
    """Return the bottom of the parabola through points around `lowest`; None where it is none, or beyond them."""
    unit = log_x[-1] - log_x[0]
    curve, slope, level = np.polyfit((log_x - lowest) / unit, loss, 2)
    if not curve > 0:
        return None
    log_place = float(lowest - unit * slope / (2 * curve))
    if not log_x[0] <= log_place <= log_x[-1]:
        return None
    bottom_loss, curvature = float(level - slope**2 / (4 * curve)), float(2 * curve / unit**2)
    return Valley(log_place=log_place, loss=bottom_loss, curvature=curvature)


def _near(places: Floats, lowest: int) -> np.ndarray:
    """Return up to five places within fourfold of the lowest, and its two neighbours in any case."""
    inside = [index for index in range(len(places)) if abs(places[index] - places[lowest]) <= REACH]
    order = sorted(
        {*inside, lowest - 1, lowest + 1}, key=lambda index: (abs(places[index] - places[lowest]), index)
    )
    sides = {lowest - 1, lowest, lowest + 1}
    rest = [index for index in order if index not in sides]
    return np.array(sorted([*sides, *rest[: MOST - len(sides)]]))


def _notes(places: Floats, near: np.ndarray, log_place: float) -> tuple[str, ...]:
    found = []
    half = max(log_place - places[near[0]], places[near[-1]] - log_place)
    if half > COARSE:
        found.append(f"the grid is coarse: the parabola reaches {math.exp(half):.0f}-fold from its bottom")
    if abs(log_place - (places[0] + places[-1]) / 2) > OFF_CENTRE * (places[-1] - places[0]):
        found.append("the optimum is off the centre of its grid")
    return tuple(found)
