"""Approach 1: at each number of FLOPs the run with the least loss so far, then power laws through these.

Hoffmann et al. 2022, arXiv:2203.15556, section 3.1: training curves of models of several sizes; their lower
envelope over C says which size, trained on how many tokens, is best at each C. Points of a run are read as its
curve, whether or not their schedule had ended, and joined by lines in logarithms. A place of the envelope tells
the best size only where a smaller and a larger one were measured at that C, too: else another may be better that
was not run there, and what looks like a frontier is the order in which sizes were begun. Where a size is still
the best at the last C, the middle of where it wins is not known. These parts are left out. A noisy curve should
be smoothed before: its luckiest moment would count. Curves that were cut are read as if the schedule had suited
them, which it did not.
"""

from __future__ import annotations

import math

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling.frontier import Frontier, Line, Optimum, resampled, through
from lmwright.scaling.points import Floats, Points
from lmwright.seeds import numpy_generator

GRID = 1500  # places on the axis of FLOPs, as in the paper
EDGE = 1e-9  # of ln C: a curve's own ends belong to it


def estimate(points: Points, *, level: float = 0.95, draws: int = 1000, seed: int = 0) -> Frontier:
    """Return the frontier by the envelope of curves. ConfigError where under two sizes show where they win."""
    curves = _Curves(points)
    every = np.ones(len(curves.sizes), dtype=np.int64)
    winner_G = curves.winners(every)
    between_G = curves.between(winner_G, every)
    line = curves.line(every)
    if line is None:
        raise ConfigError(
            f"envelope: of {len(np.unique(curves.sizes))} sizes fewer than two are the best between others, with "
            "a smaller and a larger one measured at as many FLOPs; run more sizes, or longer"
        )
    drawn, missing = resampled(curves.line, len(every), draws, numpy_generator(seed, "bootstrap of an envelope"))
    return Frontier(
        approach="envelope",
        convention=points.convention,
        line=line,
        draws=drawn,
        level=level,
        runs=len(every),
        budgets=curves.optima(winner_G, between_G),
        largest=float(points.flops.max()),
        warnings=(*curves.warnings(winner_G, between_G), *missing),
    )


class _Curves:
    """Curves of K runs on a common axis of G places in ln C; outside of a run's points its loss is infinite."""

    def __init__(self, points: Points) -> None:
        runs, run_R = points.clusters()
        log_c, log_d, log_loss = (points.log(name) for name in ("flops", "tokens", "loss"))
        self.log_c_G: Floats = np.linspace(log_c.min(), log_c.max(), GRID)
        names, sizes, losses, lengths = [], [], [], []
        for run, name in enumerate(runs):
            rows = np.flatnonzero(run_R == run)
            rows = rows[np.argsort(log_c[rows], kind="stable")]
            if len(np.unique(points.parameters[rows])) > 1:
                raise ConfigError(f"envelope: run {name!r} has points of several sizes; a curve is of one")
            if len(rows) > 1:
                names.append(name)
                sizes.append(float(points.parameters[rows[0]]))
                curve_G = np.interp(self.log_c_G, log_c[rows], log_loss[rows])
                outside_G = (self.log_c_G < log_c[rows[0]] - EDGE) | (self.log_c_G > log_c[rows[-1]] + EDGE)
                losses.append(np.where(outside_G, np.inf, curve_G))
                lengths.append(np.interp(self.log_c_G, log_c[rows], log_d[rows]))
        if not names:
            raise ConfigError("envelope: no run has two points or more; curves are needed, not ends of runs")
        self.names, self.single = tuple(names), len(runs) - len(names)
        self.sizes, self.log_loss_KG, self.log_d_KG = np.array(sizes), np.array(losses), np.array(lengths)

    def winners(self, counts_K: np.ndarray) -> np.ndarray:
        """Return the run with the least loss at each place among those that were drawn, -1 where there is none."""
        drawn_KG = np.where((counts_K > 0)[:, None], self.log_loss_KG, np.inf)
        return np.where(np.isfinite(drawn_KG.min(axis=0)), drawn_KG.argmin(axis=0), -1)

    def between(self, winner_G: np.ndarray, counts_K: np.ndarray) -> np.ndarray:
        """Return where a smaller and a larger size than the winner were drawn, and no end of the axis cuts it."""
        there_KG, size_G = np.isfinite(self.log_loss_KG) & (counts_K > 0)[:, None], self.sizes[winner_G]
        smaller_G = (there_KG & (self.sizes[:, None] < size_G)).any(axis=0)
        larger_G = (there_KG & (self.sizes[:, None] > size_G)).any(axis=0)
        won = np.flatnonzero(winner_G >= 0)
        at_ends = size_G[[*won[:1], *won[-1:]]]
        between_G: np.ndarray = (winner_G >= 0) & smaller_G & larger_G & ~np.isin(size_G, at_ends)
        return between_G

    def line(self, counts_K: np.ndarray) -> Line | None:
        """Return the power laws through the optima of a draw, None where there are under two."""
        winner_G = self.winners(counts_K)
        found = self.optima(winner_G, self.between(winner_G, counts_K))
        if len(found) < 2:
            return None
        columns = ([getattr(one, name) for one in found] for name in ("flops", "parameters", "tokens"))
        return through(*columns)

    def optima(self, winner_G: np.ndarray, between_G: np.ndarray) -> tuple[Optimum, ...]:
        """Return for each size that wins the middle, in logarithms, of where it does."""
        kept = np.flatnonzero(between_G)
        runs = winner_G[kept]
        found = []
        for size in np.unique(self.sizes[runs]):
            places, owner = kept[self.sizes[runs] == size], runs[self.sizes[runs] == size]
            rows = (self.log_c_G[places], self.log_d_KG[owner, places], self.log_loss_KG[owner, places])
            flops, tokens, loss = (math.exp(row.mean()) for row in rows)
            found.append(Optimum(flops=flops, parameters=float(size), tokens=tokens, loss=loss))
        return tuple(found)

    def warnings(self, winner_G: np.ndarray, between_G: np.ndarray) -> tuple[str, ...]:
        """Warn of parts that are left out, few sizes, and runs that end while they are the best."""
        found = [f"{self.single} runs of one point are left out: no curves"] if self.single else []
        share = 1 - between_G.sum() / max(1, (winner_G >= 0).sum())
        if share > 0:
            found.append(f"{share:.0%} of the envelope is left out: at an end of the sizes there, or of the FLOPs")
        sizes = len(np.unique(self.sizes[winner_G[between_G]]))
        if sizes < 4:
            found.append(f"a power law through {sizes} sizes alone; its exponents hardly have an error")
        last_K = [np.flatnonzero(np.isfinite(log_loss_G))[-1:] for log_loss_G in self.log_loss_KG]
        ended = [
            self.names[run]
            for run, last in enumerate(last_K)
            if last.size and last[0] + 1 < GRID and between_G[last[0]] and winner_G[last[0]] == run
        ]
        if ended:
            found.append(f"{', '.join(ended)}: ended while the best, so larger models win too early; train longer")
        return tuple(found)
