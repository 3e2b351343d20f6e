"""Minimum of an objective from many starts at once, in numpy.

Steps of iteratively reweighted least squares, damped (Levenberg 1944, Marquardt 1963), bring each start near a
minimum; they are slow where most points are beyond Huber's delta. So the best are then polished by Newton's method
with the sizes of the eigenvalues (Dauphin et al. 2014), damped the same way. Each start has its own damping. A
coordinate at a bound that the objective would push over it is held there for the step.
"""

# S starts, R rows (points), P coordinates

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling.fit.robust import Objective
from lmwright.scaling.points import Bools, Floats

CACHED = 2**17  # numbers of a batch's derivatives, 1 MiB: they stay in a core's cache
APPROACH, FOLLOWED, POLISH = 10, 32, 60  # steps of all starts, how many go on, steps of these
AGREEMENT = 1e-6  # of the objective: starts that end within it of the best have found the same minimum
CONVERGED = 1e-14  # of the objective: a step that promises less is the last
ROUNDING = 1e-32  # of the objective, for each row: what rounding of ln L alone leaves
LEAST_DAMPING, MOST_DAMPING = 1e-14, 1e10


@dataclass(frozen=True, eq=False)
class Minimum:
    """The best point found, and how many starts found it.

    starts: all that were tried. followed: the best of these, which went on to the end. agreed: those of them that
    ended within AGREEMENT of the best objective. ends_SP: where they ended, the best first. near_SP: where all
    starts were after a few steps, so in every valley that the starts know.
    """

    theta_P: Floats
    value: float
    starts: int
    followed: int
    agreed: int
    ends_SP: Floats
    near_SP: Floats


def minimise(objective: Objective, theta_SP: Floats, rough: Objective | None = None) -> Minimum:
    """Return the best minimum that the starts lead to.

    rough: what all starts are first brought near by, the objective of fewer rows; left out, the objective itself.
    Raises ConfigError if it is finite at none of them.
    """
    near_SP, value_S = settle(rough or objective, theta_SP, approach=APPROACH, polish=0)
    best_S = np.argsort(value_S, kind="stable")[:FOLLOWED]
    if not np.isfinite(value_S[best_S[0]]):
        raise ConfigError("fit: the law is finite at none of its starts; the points are out of its range")
    ends_SP, value_S = settle(objective, near_SP[best_S], approach=APPROACH, polish=POLISH)
    order_S = np.argsort(value_S, kind="stable")
    ends_SP, value_S = ends_SP[order_S], value_S[order_S]
    return Minimum(
        theta_P=ends_SP[0],
        value=float(value_S[0]),
        starts=len(theta_SP),
        followed=len(ends_SP),
        agreed=_agreed(objective, value_S, value_S[0]),
        ends_SP=ends_SP,
        near_SP=near_SP,
    )


def lowered(objective: Objective, minimum: Minimum, theta_P: Floats) -> Minimum:
    """Return the minimum that a lower point, found on another way, leads to; starts now agree with that one."""
    end_1P, value_1 = settle(objective, theta_P[None], approach=APPROACH, polish=POLISH)
    agreed = _agreed(objective, objective.value(minimum.ends_SP), value_1[0])
    return replace(minimum, theta_P=end_1P[0], value=float(value_1[0]), agreed=agreed)


def _agreed(objective: Objective, value_S: Floats, best: float) -> int:
    return int((value_S <= best * (1 + AGREEMENT) + 100 * ROUNDING * len(objective.log_loss_R)).sum())


def settle(
    objective: Objective,
    theta_SP: Floats,
    *,
    approach: int,
    polish: int,
    weights_SR: Floats | None = None,
    free_SP: Bools | None = None,
) -> tuple[Floats, Floats]:
    """Take up to `approach` reweighted steps, then up to `polish` of Newton; return the ends and their objective.

    weights_SR: how often each start takes a row. free_SP: coordinates that may move; all, if left out. Starts are
    taken in batches that fit the cache. Where objective or slopes are not finite, the value is infinity.
    """
    rows, coordinates = len(objective.log_loss_R), theta_SP.shape[1]
    size = max(1, CACHED // (rows * coordinates))
    ends_SP, value_S = np.array(theta_SP, dtype=np.float64), np.empty(len(theta_SP))
    for first in range(0, len(theta_SP), size):
        part = slice(first, first + size)
        lanes = _Lanes(
            objective,
            ends_SP[part],
            None if weights_SR is None else weights_SR[part],
            np.ones(ends_SP[part].shape, dtype=np.bool_) if free_SP is None else free_SP[part],
        )
        lanes.descend(approach, newton=False)
        lanes.descend(polish, newton=True)
        ends_SP[part], value_S[part] = lanes.theta_SP, lanes.value_S
    return ends_SP, value_S


class _Lanes:
    """A batch of starts on their way down: where each is, and what the objective is like there."""

    def __init__(self, objective: Objective, theta_SP: Floats, weights_SR: Floats | None, free_SP: Bools) -> None:
        self.objective, self.weights_SR, self.free_SP = objective, weights_SR, free_SP
        self.low_P, self.high_P = np.array(objective.law.BOUNDS, dtype=np.float64).T
        self.theta_SP = np.array(theta_SP)
        self.value_S, self.gradient_SP, self.above_SPP = self._slopes(self.theta_SP, np.arange(len(theta_SP)))
        self.floor = ROUNDING * len(objective.log_loss_R)

    def descend(self, steps: int, *, newton: bool) -> None:
        live = np.flatnonzero(np.isfinite(self.value_S))
        damping_S = np.full(len(self.value_S), 1e-3)
        curvature_SPP = np.empty_like(self.above_SPP) if newton else self.above_SPP
        stale = live
        for _ in range(steps):
            if not live.size:
                break
            if newton and stale.size:
                exact_SPP = self.objective.hessian(self.theta_SP[stale], self._weights(stale))
                sound_S = np.isfinite(exact_SPP).all(axis=(1, 2), keepdims=True)
                curvature_SPP[stale] = np.where(sound_S, exact_SPP, self.above_SPP[stale])
            moved_SP = self._moved(live, curvature_SPP[live], damping_S[live])
            promised_S = -np.einsum("sp,sp->s", self.gradient_SP[live], moved_SP - self.theta_SP[live])
            value_S, gradient_SP, above_SPP = self._slopes(moved_SP, live)
            better_S = value_S < self.value_S[live]
            stale = live[better_S]
            self.theta_SP[stale], self.value_S[stale] = moved_SP[better_S], value_S[better_S]
            self.gradient_SP[stale], self.above_SPP[stale] = gradient_SP[better_S], above_SPP[better_S]
            damping_S[live] = np.where(
                better_S, np.maximum(damping_S[live] * 0.1, LEAST_DAMPING), np.maximum(damping_S[live], 1e-8) * 8
            )
            done_S = (promised_S <= CONVERGED * self.value_S[live] + self.floor) | (damping_S[live] > MOST_DAMPING)
            live = live[~done_S]
            stale = np.intersect1d(stale, live, assume_unique=True)

    def _moved(self, live: np.ndarray, curvature_SPP: Floats, damping_S: Floats) -> Floats:
        """Return where a damped step leads, within the bounds."""
        theta_SP, gradient_SP = self.theta_SP[live], self.gradient_SP[live]
        outward_SP = ((theta_SP <= self.low_P) & (gradient_SP > 0)) | (
            (theta_SP >= self.high_P) & (gradient_SP < 0)
        )
        free_SP = self.free_SP[live] & ~outward_SP
        scale_SP = np.sqrt(np.einsum("spp->sp", self.above_SPP[live]))
        scale_SP = np.where((scale_SP > 0) & free_SP, scale_SP, 1.0)
        both_SPP = free_SP[:, :, None] & free_SP[:, None, :]
        scaled_SPP = np.where(both_SPP, curvature_SPP, 0.0) / (scale_SP[:, :, None] * scale_SP[:, None, :])
        size_SP, axes_SPP = np.linalg.eigh(scaled_SPP)
        slope_SP = np.where(free_SP, gradient_SP, 0.0) / scale_SP
        along_SP = np.einsum("spq,sp->sq", axes_SPP, slope_SP) / (np.abs(size_SP) + damping_S[:, None])
        step_SP = np.einsum("spq,sq->sp", axes_SPP, along_SP) / scale_SP
        moved_SP: Floats = np.where(free_SP, np.clip(theta_SP - step_SP, self.low_P, self.high_P), theta_SP)
        return moved_SP

    def _weights(self, live: np.ndarray) -> Floats | None:
        return None if self.weights_SR is None else self.weights_SR[live]

    def _slopes(self, theta_SP: Floats, live: np.ndarray) -> tuple[Floats, Floats, Floats]:
        value_S, gradient_SP, above_SPP = self.objective.slopes(theta_SP, self._weights(live))
        sound_S = (
            np.isfinite(value_S) & np.isfinite(gradient_SP).all(axis=1) & np.isfinite(above_SPP).all(axis=(1, 2))
        )
        return np.where(sound_S, value_S, np.inf), gradient_SP, above_SPP
