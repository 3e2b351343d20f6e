"""Approach 2: for each budget the bottom of its valley of loss over N, then power laws through the bottoms.

Hoffmann et al. 2022, arXiv:2203.15556, section 3.2. Points of one budget are those whose FLOPs lie within
12% of one of them; the parabola in ln N goes through the points near the lowest one (`scaling.valley`). A budget
whose least loss is at the end of its grid is left out, as Porian et al. 2024 do: its optimum is not in sight.
Even without noise a parabola is biased where the two exponents differ, by 0.3% of N* with points within twofold
of it and by 4.1% within sixteenfold, and more where grids are off centre, which bends the exponents, too (Czech
et al. 2026, arXiv:2603.22339); so wide and off-centre grids are warned of. D* is read off at N*, in logarithms
between the runs.
"""

from __future__ import annotations

import math

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling.fit.checks import usable
from lmwright.scaling.frontier import Frontier, Line, Optimum, resampled, through
from lmwright.scaling.points import Floats, Points
from lmwright.scaling.valley import Valley, bottom
from lmwright.seeds import numpy_generator

AROUND = math.log(1.12)  # of ln C, to both sides of a point of the budget
FEWEST = 3  # points that make a budget


def estimate(points: Points, *, level: float = 0.95, draws: int = 1000, seed: int = 0) -> Frontier:
    """Return the frontier by isoFLOP valleys. ConfigError where fewer than two budgets show their bottom."""
    used, left_out = usable(points)
    budget_R = budgets(used.log("flops"))
    seen = valleys(used)
    found = [_optimum(used.take(rows), valley) for rows, valley in seen if valley.problem is None]
    warnings = [*left_out, *_warnings(used, seen)]
    if len(found) < 2:
        raise ConfigError(
            f"isoflop: {len(found)} of {len(seen)} budgets show the bottom of their valley; two are needed. "
            f"{'; '.join(warnings)}"
        )
    if len(found) < 4:
        warnings.append(f"a power law through {len(found)} budgets alone; its exponents hardly have an error")
    runs, run_R = used.clusters()

    def redrawn(counts_K: np.ndarray) -> Line | None:
        return _line(used, budget_R, counts_K[run_R])

    drawn, missing = resampled(redrawn, len(runs), draws, numpy_generator(seed, "bootstrap of isoFLOP valleys"))
    return Frontier(
        approach="isoflop",
        convention=points.convention,
        line=through(*_columns(found)),
        draws=drawn,
        level=level,
        runs=len(runs),
        budgets=tuple(found),
        largest=float(used.flops.max()),
        warnings=(*warnings, *missing),
    )


def budgets(log_flops: Floats) -> np.ndarray:
    """Return the budget of each row, 0 .. K - 1 from the smallest, [R]; -1 for a row of none.

    The densest place of the axis first, with what lies around it; then the densest of the rest, down to three.
    Of equally dense ones the first row counts. Neighbours are counted by sorting: pairs of rows would be too many.
    """
    order = np.argsort(log_flops, kind="stable")
    sorted_R = log_flops[order]
    begin_R, end_R = (
        np.searchsorted(sorted_R, sorted_R - AROUND),
        np.searchsorted(sorted_R, sorted_R + AROUND, "right"),
    )
    free_R = np.ones(len(order), dtype=np.int64)
    found: list[np.ndarray] = []
    while free_R.any():
        before_R = np.concatenate([[0], np.cumsum(free_R)])
        near_R = (before_R[end_R] - before_R[begin_R]) * free_R
        densest = np.flatnonzero(near_R == near_R.max())
        centre = densest[order[densest].argmin()]
        if near_R[centre] < FEWEST:
            break
        around = slice(begin_R[centre], end_R[centre])
        found.append(np.sort(order[around][free_R[around] > 0]))
        free_R[around] = 0
    budget_R = np.full(len(log_flops), -1)
    for budget, rows in enumerate(sorted(found, key=lambda rows: float(log_flops[rows].mean()))):
        budget_R[rows] = budget
    return budget_R


def valleys(points: Points) -> list[tuple[np.ndarray, Valley]]:
    """Return the rows of each budget, smallest first, and the valley that they show."""
    log_n = points.log("parameters")
    return [(rows, bottom(log_n[rows], points.loss[rows])) for rows in _rows(budgets(points.log("flops")))]


def _rows(budget_R: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(budget_R == budget) for budget in range(int(budget_R.max()) + 1)]


def _optimum(points: Points, valley: Valley) -> Optimum:
    """Return the bottom of one budget. FLOPs: the geometric mean; tokens: between the runs at N*."""
    order = np.argsort(points.parameters, kind="stable")
    log_n, log_d, log_c = (points.log(name)[order] for name in ("parameters", "tokens", "flops"))
    return Optimum(
        flops=float(np.exp(log_c.mean())),
        parameters=math.exp(valley.log_place),
        tokens=float(np.exp(np.interp(valley.log_place, log_n, log_d))),
        loss=valley.loss,
    )


def _columns(found: list[Optimum]) -> tuple[list[float], list[float], list[float]]:
    return [one.flops for one in found], [one.parameters for one in found], [one.tokens for one in found]


def _line(points: Points, budget_R: np.ndarray, times_R: np.ndarray) -> Line | None:
    """Return the line of a draw of runs, None for under two budgets. times_R: how often a row counts."""
    found = []
    for rows in _rows(budget_R):
        kept = np.repeat(rows, times_R[rows])
        if len(kept) >= 3:
            valley = bottom(points.log("parameters")[kept], points.loss[kept])
            if valley.problem is None:
                found.append(_optimum(points.take(kept), valley))
    return through(*_columns(found)) if len(found) > 1 else None


def _warnings(points: Points, seen: list[tuple[np.ndarray, Valley]]) -> list[str]:
    alone = len(points) - sum(len(rows) for rows, _ in seen)
    found = [f"{alone} points are left out: too few others have their FLOPs"] if alone else []
    for rows, valley in seen:
        name = f"budget {math.exp(points.log('flops')[rows].mean()):.3g}"
        if valley.problem is not None:
            found.append(f"{name} is left out: {valley.problem}")
        found.extend(f"{name}: {note}" for note in valley.notes)
    return found
