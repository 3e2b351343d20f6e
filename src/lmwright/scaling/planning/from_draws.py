"""Which runs to make next, from the bootstrap draws of a fit alone: no points are needed, only the law.

Each draw is a law that the points allow. So the draws' covariance of ln L at candidates and target says what a
candidate's loss would tell of the target: with K that covariance and s the noise of a point, a run at r leaves
K - K_r K_r^T / (K_rr + s^2) (Rasmussen and Williams 2006, eq. 2.26). The best next run lowers the variance of the
target most (c-optimal; Fedorov 1972), then the next given it. Knows nothing of costs: offer what can be paid.
"""

# B draws, R rows (candidates, the target last)

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lmwright.errors import ConfigError
from lmwright.scaling import laws
from lmwright.scaling.fit.bootstrap import FEWEST
from lmwright.scaling.points import Floats, logs_of

MIDDLE = (0.025, 0.975)  # of the draws at the target: a few that ran away would be all of a variance
Columns = Mapping[str, ArrayLike]


@dataclass(frozen=True, kw_only=True)
class NextRun:
    """A run to make. row: of the candidates.

    before, after: standard deviation of the law's ln L at the target. gain: fall of the logarithm of its variance.
    """

    row: int
    before: float
    after: float
    gain: float


def next_runs(
    law: str, draws_BP: Floats, candidates: Columns, target: Columns, *, scale: float, count: int = 3
) -> tuple[NextRun, ...]:
    """Return the `count` best of the candidates, in order, none twice; all if there are fewer.

    candidates, target (one row): columns by the law's INPUTS. scale: standard deviation of a point's ln L. Raises
    ConfigError for too few draws, several targets, no positive scale or count.
    """
    if len(draws_BP) < FEWEST or not (math.isfinite(scale) and scale > 0) or count < 1:
        raise ConfigError(
            f"design: {len(draws_BP)} draws, scale {scale}, {count} runs; give {FEWEST} draws or more, a positive "
            "scale, a run or more"
        )
    goal_B1 = _log_loss(law, draws_BP, target)
    if goal_B1.shape[1] != 1:
        raise ConfigError(f"design: {goal_B1.shape[1]} targets; give one")
    low, high = np.quantile(goal_B1, MIDDLE)
    kept_B = (goal_B1[:, 0] >= low) & (goal_B1[:, 0] <= high)
    log_BR = np.concatenate([_log_loss(law, draws_BP, candidates), goal_B1], axis=1)[kept_B]
    covariance_RR = np.cov(log_BR, rowvar=False)
    left = list(range(log_BR.shape[1] - 1))
    chosen = []
    for _ in range(min(count, len(left))):
        spread_R = np.diag(covariance_RR)[left] + scale**2
        fall_R = covariance_RR[left, -1] ** 2 / spread_R
        row = left[int(fall_R.argmax())]
        left.remove(row)
        before = float(covariance_RR[-1, -1])
        shared_R = covariance_RR[row].copy()
        covariance_RR = covariance_RR - np.outer(shared_R, shared_R) / (shared_R[row] + scale**2)
        after = max(float(covariance_RR[-1, -1]), 0.0)
        gain = math.log(before / after) if after > 0 else 0.0
        chosen.append(NextRun(row=row, before=math.sqrt(before), after=math.sqrt(after), gain=gain))
    return tuple(chosen)


def _log_loss(law: str, draws_BP: Floats, columns: Columns) -> Floats:
    module = laws.load(law)
    if set(columns) != set(module.INPUTS):
        raise ConfigError(f"design: columns {', '.join(columns)}; law {law} reads {', '.join(module.INPUTS)}")
    found: Floats = module.log_loss(draws_BP, logs_of(columns))[0]
    return found
