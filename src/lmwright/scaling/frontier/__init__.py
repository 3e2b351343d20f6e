"""The compute-optimal frontier: how many parameters and tokens a budget of FLOPs is best spent on.

N* = k C^a and D* = k' C^b. Each file here is an approach (Hoffmann et al. 2022, arXiv:2203.15556, section 3)
and defines `estimate(points, level=, draws=, seed=) -> Frontier`. What N counts, and so what C and the
exponents mean, is the convention of the points: the same runs gave a = 0.37, 0.54 and 0.70 under three of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lmwright import seams
from lmwright.errors import ConfigError
from lmwright.scaling.fit.bootstrap import percentiles
from lmwright.scaling.flops import Convention
from lmwright.scaling.points import Floats, Points

PACKAGE = "lmwright.scaling.frontier"
NAMES = ("ln_k", "a", "ln_k_tokens", "b")
Line = tuple[float, float, float, float]  # by NAMES


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best allocation of one budget: parameters, tokens and the loss there."""

    flops: float
    parameters: float
    tokens: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """N* = exp(ln_k) C^a, D* = exp(ln_k_tokens) C^b.

    line: the four numbers by NAMES. draws: the same of each bootstrap draw of runs. budgets: the optima that the
    line was put through; none for a closed form. largest: the most FLOPs of a point.
    """

    approach: str
    convention: Convention
    line: Line
    draws: tuple[Line, ...]
    level: float
    runs: int
    budgets: tuple[Optimum, ...]
    largest: float
    warnings: tuple[str, ...]

    @property
    def exponents(self) -> tuple[float, float]:
        """Return a and b."""
        return self.line[1], self.line[3]

    def parameters(self, flops: ArrayLike) -> Floats:
        """Return N* of budgets."""
        return along(self.line, flops)[0]

    def tokens(self, flops: ArrayLike) -> Floats:
        """Return D* of budgets."""
        return along(self.line, flops)[1]

    def interval(self, name: str) -> tuple[float, float]:
        """Return the interval of a number of NAMES by bootstrap. ConfigError for another, or without draws."""
        if name not in NAMES:
            raise ConfigError(f"frontier: no number {name!r}; there are {', '.join(NAMES)}")
        low, high = self._percentiles(np.array(self.draws).reshape(-1, len(NAMES))[:, [NAMES.index(name)]])
        return float(low[0]), float(high[0])

    def band(self, flops: ArrayLike) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Return the lower and upper end of N*, then of D*, at budgets. Raises ConfigError without draws.

        An end beyond all numbers is infinite.
        """
        with np.errstate(over="ignore"):
            (low_n, high_n), (low_d, high_d) = ((np.exp(low), np.exp(high)) for low, high in self.log_band(flops))
        return (low_n, high_n), (low_d, high_d)

    def log_band(self, flops: ArrayLike) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Return the ends of ln N*, then of ln D*, at budgets. Raises ConfigError without draws."""
        drawn = [log_along(line, flops) for line in self.draws]
        of_n, of_d = (self._percentiles(np.array([pair[side] for pair in drawn])) for side in (0, 1))
        return of_n, of_d

    def _percentiles(self, drawn_BR: Floats) -> tuple[Floats, Floats]:
        if not len(drawn_BR):
            raise ConfigError(
                "frontier: made without bootstrap draws, so it has no interval; ask for draws above 0"
            )
        return percentiles(drawn_BR, self.level, max(1, self.runs - 1))


def along(line: Line, flops: ArrayLike) -> tuple[Floats, Floats]:
    """Return N* and D* of budgets on a line."""
    log_n, log_d = log_along(line, flops)
    return np.exp(log_n), np.exp(log_d)


def log_along(line: Line, flops: ArrayLike) -> tuple[Floats, Floats]:
    """Return ln N* and ln D* of budgets on a line."""
    ln_k, a, ln_k_tokens, b = line
    ln_c = np.log(np.asarray(flops, dtype=np.float64))
    return ln_k + a * ln_c, ln_k_tokens + b * ln_c


def through(flops: ArrayLike, parameters: ArrayLike, tokens: ArrayLike) -> Line:
    """Return the power laws through optima, by least squares of logarithms. ConfigError for under two budgets."""
    ln_c, ln_n, ln_d = (np.log(np.asarray(column, dtype=np.float64)) for column in (flops, parameters, tokens))
    if len(np.unique(ln_c)) < 2:
        raise ConfigError(f"frontier: {len(np.unique(ln_c))} usable budget; a power law needs two, better four")
    spread = ln_c - ln_c.mean()
    a, b = (float(spread @ column / (spread @ spread)) for column in (ln_n, ln_d))
    centre = float(ln_c.mean())
    return float(ln_n.mean()) - a * centre, a, float(ln_d.mean()) - b * centre, b


def estimate(approach: str, points: Points, *, level: float = 0.95, draws: int = 1000, seed: int = 0) -> Frontier:
    """Estimate the frontier by an approach. draws: of the bootstrap by run; 0 leaves it out.

    Raises ConfigError for an unknown approach, a level that is none, or points that the approach cannot use.
    """
    if not 0 < level < 1 or draws < 0:
        raise ConfigError(
            f"frontier: level {level}, draws {draws}; a level is between 0 and 1, draws are 0 or more"
        )
    found: Frontier = seams.load(PACKAGE, approach).estimate(points, level=level, draws=draws, seed=seed)
    return found


def resampled(
    estimate_line: Callable[[np.ndarray], Line | None], runs: int, draws: int, random: np.random.Generator
) -> tuple[tuple[Line, ...], tuple[str, ...]]:
    """Return the line of each draw of runs with replacement, and a warning where draws gave none.

    estimate_line: line from how often each run was drawn, [K]; None where there is none.
    """
    counts_BK = random.multinomial(runs, np.full(runs, 1 / runs), size=draws)
    lines = [estimate_line(counts_K) for counts_K in counts_BK]
    kept = tuple(line for line in lines if line is not None)
    if draws and len(kept) < 0.9 * draws:
        return kept, (
            f"{draws - len(kept)} of {draws} bootstrap draws left too few budgets: intervals rest on the others",
        )
    return kept, ()


def names() -> tuple[str, ...]:
    """Return the names of all approaches, sorted."""
    return seams.names(PACKAGE)
