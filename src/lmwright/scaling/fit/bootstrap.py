"""Bootstrap of a fit by run: how far the coordinates move when other runs had been made.

Runs are drawn with replacement, each with all its points (Cameron, Gelbach and Miller 2008): points of one run err
together, so drawing rows would make intervals too narrow. Each draw is fitted anew, from the optimum of all points
and from those starts that suit the draw best. Knows nothing of laws.
"""

# S starts, R rows (points), P coordinates, B draws, K runs

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling.fit.minimise import settle
from lmwright.scaling.fit.robust import Objective, huber
from lmwright.scaling.fit.students import student_quantile
from lmwright.scaling.points import Floats

FEWEST = 20  # draws of an interval at 95%: of fewer, its ends are the extremes of too few numbers
CANDIDATES = 3  # starts of each draw beside the optimum
APPROACH, POLISH = 8, 40
BATCH, WEIGHTS = 64, 2**22  # draws a task, and how many weights they have at most; the threads do not matter


def bootstrap(
    objective: Objective,
    optimum_P: Floats,
    starts_SP: Floats,
    clusters_R: np.ndarray,
    draws: int,
    random: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Return the coordinates fitted to each draw, [B, P], and the objective of each, [B].

    clusters_R: the run of each row, as 0 .. K - 1. Draws do not depend on the number of threads.
    Raises ConfigError for fewer than two runs, or no draws.
    """
    runs = int(clusters_R.max()) + 1
    if runs < 2 or draws < 1:
        raise ConfigError(f"bootstrap: {draws} draws of {runs} runs; give at least one draw, and two runs")
    counts_BK = random.multinomial(runs, np.full(runs, 1 / runs), size=draws)
    rough_SR = huber(objective.residual(starts_SP), objective.delta)
    batch = min(BATCH, max(1, WEIGHTS // ((1 + CANDIDATES) * len(clusters_R))))

    def fit_part(first: int) -> tuple[Floats, Floats]:
        weights_BR = counts_BK[first : first + batch, clusters_R].astype(np.float64)
        return _fit_draws(objective, optimum_P, starts_SP, rough_SR, weights_BR)

    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 8)) as pool:
        parts = list(pool.map(fit_part, range(0, draws, batch)))
    return np.concatenate([theta_BP for theta_BP, _ in parts]), np.concatenate([value_B for _, value_B in parts])


def _fit_draws(
    objective: Objective, optimum_P: Floats, starts_SP: Floats, rough_SR: Floats, weights_BR: Floats
) -> tuple[Floats, Floats]:
    """Fit each draw from the optimum and its best starts; the best of these after a few steps is polished."""
    draws, coordinates = len(weights_BR), len(optimum_P)
    lanes = 1 + min(CANDIDATES, len(starts_SP))
    best_BC = np.argsort(weights_BR @ rough_SR.T, axis=1, kind="stable")[:, : lanes - 1]
    from_BCP = np.concatenate(
        [np.broadcast_to(optimum_P, (draws, 1, coordinates)), starts_SP[best_BC]], axis=1
    ).reshape(-1, coordinates)
    near_SP, value_S = settle(
        objective, from_BCP, approach=APPROACH, polish=0, weights_SR=np.repeat(weights_BR, lanes, axis=0)
    )
    chosen_B = np.arange(draws) * lanes + value_S.reshape(draws, lanes).argmin(axis=1)
    return settle(objective, near_SP[chosen_B], approach=0, polish=POLISH, weights_SR=weights_BR)


def percentiles(values_BR: Floats, level: float, freedom: int) -> tuple[Floats, Floats]:
    """Return the interval of each column of draws, widened for few runs.

    Percentiles of a bootstrap are too near each other by the factor that a t quantile and n / (n - 1) mend, so
    those of a wider level are taken (Hesterberg 2015: expanded percentiles). freedom: n - 1.
    """
    reach = student_quantile(0.5 + level / 2, freedom) * np.sqrt((freedom + 1) / freedom)
    tail = NormalDist().cdf(-reach)
    ordered_BR = np.sort(values_BR, axis=0)
    place = int(tail * (len(ordered_BR) - 1))  # the draw at or beyond the percentile: an end may be infinite
    return ordered_BR[place], ordered_BR[-1 - place]
