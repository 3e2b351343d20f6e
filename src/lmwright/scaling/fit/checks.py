"""What a fit must not pass over in silence: warnings, in words, and rows that are left out.

Mixed conventions and metrics are refused where points are joined or read; what lies here is for points that may be
fitted, with doubt. A number that deserves a warning is still given, beside it.
"""

# R rows (points), P coordinates

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling.laws import Law
from lmwright.scaling.points import Floats, Points

TRUSTED = 30.0  # times the largest that was fitted; beyond, power laws have been wrong
NEAR_FLOOR = 0.01  # of the least observed loss: E that near to it, or to zero
AT_BOUND = 1e-9
SAME = 1e-6  # of a column: what rounding leaves of equal numbers, as of 6ND at one budget
FEW_AGREE = 0.25  # of the followed starts
SPREAD_APART = 2.0  # bootstrap interval by profile interval
TOGETHER = 1.5  # design effect


def usable(points: Points) -> tuple[Points, tuple[str, ...]]:
    """Return the points whose schedule ran to its end, and a warning where some are left out.

    A curve that is cut before its schedule ends lies above the law, as its learning rate was never let down
    (Hoffmann et al. 2022, section 3). Raises ConfigError where no point is left.
    """
    if points.finished.all():
        return points, ()
    if not points.finished.any():
        raise ConfigError(
            "fit: the schedule of no point ran to its end and let the rate down; others lie above the law"
        )
    left_out = int((~points.finished).sum())
    text = f"{left_out} of {len(points)} points are left out: their schedule was cut before its end, or is level"
    return points.take(points.finished), (text,)


def constant(points: Points, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Warn of inputs of a law that are the same in all points: what the loss owes to them cannot be told."""
    return tuple(
        f"{name} is {column[0]:g} in all points: they do not show what the loss owes to it"
        for name in inputs
        for column in (getattr(points, name),)
        if np.ptp(column) <= SAME * column.max()
    )


def at_bounds(law: Law, theta_P: Floats) -> tuple[str, ...]:
    """Warn of coordinates that end at their bound: the law wants what it cannot have."""
    found = []
    for name, value, bounds in zip(law.PARAMETERS, theta_P, law.BOUNDS, strict=True):
        for side, bound in zip(("lower", "upper"), bounds, strict=True):
            if abs(value - bound) <= AT_BOUND * (1 + abs(bound)):
                found.append(
                    f"{name} is at its {side} bound {bound:g}: the points do not follow this law, or too few"
                )
    return tuple(found)


def floor(law: Law, theta_P: Floats, least_loss: float) -> tuple[str, ...]:
    """Warn of an irreducible loss E (coordinate ln_E) that is next to zero or to the least observed loss."""
    if "ln_E" not in law.PARAMETERS:
        return ()
    share = float(np.exp(theta_P[law.PARAMETERS.index("ln_E")])) / least_loss
    if share < NEAR_FLOOR:
        return (f"E is next to zero ({share:.2g} of the least loss): the points do not show where the loss ends",)
    if share > 1 - NEAR_FLOOR:
        return (f"E is next to the least observed loss ({share:.4f} of it): what lies below it is not known",)
    return ()


def agreement(agreed: int, followed: int) -> tuple[str, ...]:
    """Warn where few of the starts ended at the best objective: there may be a better one."""
    if agreed >= FEW_AGREE * followed:
        return ()
    return (f"only {agreed} of the {followed} best starts ended at this minimum; another may be lower",)


def unlike(names: tuple[str, ...], profile_P: Floats, bootstrap_P: Floats) -> tuple[str, ...]:
    """Warn where the bootstrap's spread is far wider than the profile's: the noise is not as that takes it.

    profile_P, bootstrap_P: spreads; infinite where a profile is open.
    """
    apart = [
        name for name, one, two in zip(names, profile_P, bootstrap_P, strict=True) if two > SPREAD_APART * one
    ]
    if not apart:
        return ()
    return (f"intervals of {', '.join(apart)} by bootstrap are over twice as wide as by profile: trust the wider",)


def together(effect: float) -> tuple[str, ...]:
    """Warn where points of a run err together: one design effect for all coordinates is only right on the whole.

    With five points a run and a noise in common that is more than their own, 80% intervals by profile held what
    was planted in 70% of ladders (ln_E) to 100% (beta), those by bootstrap in 91% to 96%.
    """
    if effect <= TOGETHER:
        return ()
    return (
        f"points of a run err together (design effect {effect:.2g}): by profile, intervals hold less often than "
        "their level what tells runs apart, more often what changes along a run; by bootstrap of runs they hold "
        "it more often: trust these",
    )


def ranged(inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of what a fit has a largest of: each input, and 6ND where a law reads both N and D."""
    return (*inputs, "6ND") if {"parameters", "tokens"} <= set(inputs) else inputs


def largest(points: Points, inputs: tuple[str, ...]) -> dict[str, float]:
    """Return the largest of each input, and the most compute where a law reads both N and D, by `ranged`."""
    found = {name: float(getattr(points, name).max()) for name in inputs}
    if "6ND" in ranged(inputs):
        found["6ND"] = 6 * float((points.parameters * points.tokens).max())
    return found


def reach(fitted: Mapping[str, float], logs: Mapping[str, Floats]) -> tuple[str, ...]:
    """Warn where a prediction lies more than 30 times beyond the largest fitted point, in compute or in an input.

    fitted: as `largest` returns. logs: natural logarithms of the asked columns, [R].
    """
    asked = {name: float(np.exp(logs[name].max())) for name in fitted if name in logs}
    if "6ND" in fitted:
        asked["6ND"] = 6 * float(np.exp((logs["parameters"] + logs["tokens"]).max()))
    return tuple(
        f"{name} {value:.3g} is {value / fitted[name]:.3g} times beyond the largest fitted ({fitted[name]:.3g}); "
        f"over {TRUSTED:.0f} times, a law is a guess"
        for name, value in asked.items()
        if value > TRUSTED * fitted[name]
    )
