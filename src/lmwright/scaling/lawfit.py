"""From measured points to a law that has proved itself: choose it, hold out the largest rung, predict it, fit all.

    found = fit_law(points)
    found.fitted, found.held, found.approaches, found.regions

A law that was fitted to all points has seen its answers. So first the largest rung is left out (the most compute,
and whatever belongs to the same runs), and what the rest say of it stands beside what was measured. Then all that
the points allow is read from them: the law, the compute-optimal frontier by three approaches, the regions of the
loss against data. Knows nothing of where points come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling import laws, regions
from lmwright.scaling.approaches import Approach, approaches
from lmwright.scaling.fit import Fitted, fit
from lmwright.scaling.fit.checks import TRUSTED, usable
from lmwright.scaling.frontier import Frontier
from lmwright.scaling.frontier.isoflop import AROUND
from lmwright.scaling.points import LABELS, Bools, Floats, Points
from lmwright.scaling.regions import REPEATED, Regions

HoldOut = Literal["largest", "none"]
TIMES = (1.0, 3.0, 10.0, TRUSTED)  # the largest compute: budgets of the frontier that are printed
RUNG = 2 * AROUND  # of ln C below the most: what is one rung with it, as wide as a budget
SPREAD = 0.02  # of ln N, ln D or ln C: below it a column does not vary
APART = 0.05  # least standard deviation of ln D about a line in ln N: below it they vary as one
SPARE = 3  # points beyond the coordinates, from which a law is chosen unasked


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The largest rung beside what a fit without it says. fitted: that fit. low, high: NaN without draws."""

    points: Points
    fitted: Fitted
    loss: Floats
    low: Floats
    high: Floats
    warnings: tuple[str, ...]

    @property
    def errors(self) -> Floats:
        """Return predicted by measured, less 1."""
        found: Floats = self.loss / self.points.loss - 1
        return found

    @property
    def within(self) -> Bools:
        """Return which measured losses lie in their interval."""
        found: Bools = (self.low <= self.points.loss) & (self.points.loss <= self.high)
        return found


@dataclass(frozen=True, kw_only=True)
class BestUse:
    """The best use of so many FLOPs, each number with its interval (None without draws)."""

    flops: float
    parameters: float
    tokens: float
    loss: float
    parameters_interval: tuple[float, float] | None
    tokens_interval: tuple[float, float] | None
    loss_interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class LawFit:
    """A law fitted to all points, and what it said of the largest rung before it had seen that.

    why: how the law was chosen. held: None where nothing was held out; `not_held` then says why. approaches: the
    compute-optimal frontier by each. budgets: the best use of some, by the law's own frontier. regions: N and the
    regions of its loss against data; None where there are none to see, and `no_regions` says why. notes: warnings
    beyond those of the fit.
    """

    points: Points
    fitted: Fitted
    why: str
    held: HeldOut | None
    not_held: str
    approaches: tuple[Approach, ...]
    budgets: tuple[BestUse, ...]
    regions: tuple[float, Regions] | None
    no_regions: str
    notes: tuple[str, ...]

    @property
    def frontier(self) -> Frontier | None:
        """The law's own frontier, approach 3; None where law or points do not say how a budget is divided."""
        return self.approaches[-1].frontier

    @property
    def no_frontier(self) -> str:
        """Why there is none."""
        return self.approaches[-1].why_not


def fit_law(
    points: Points,
    *,
    law: str = "auto",
    hold_out: HoldOut = "largest",
    draws: int = 1000,
    seed: int = 0,
    curves: Points | None = None,
) -> LawFit:
    """Fit a law, after it was tried on the largest rung. law: a file of scaling/laws, or auto.

    curves: losses along the runs, for approach 1 where no run of `points` has several. Raises ConfigError for an
    unknown law, too few points, or draws of a single run.
    """
    used, _ = usable(points)
    if draws and len(set(used.run)) < 2:
        raise ConfigError(
            f"fit: all points are of one run ({used.run[0]}), so no bootstrap can draw runs; add another run, or "
            "take intervals by profile alone, with draws = 0"
        )
    name, why = choose_law(used) if law == "auto" else (law, "as asked")
    fitted = fit(name, points, draws=draws, seed=seed)
    held, not_held = None, "as asked"
    if hold_out == "largest":
        held, not_held = _tried(name, used, draws, seed)
    by_approach = approaches(used, fitted, curves, draws=draws, seed=seed)
    frontier = by_approach[-1].frontier
    curve, no_curve = _regions(used)
    return LawFit(
        points=points,
        fitted=fitted,
        why=why,
        held=held,
        not_held=not_held,
        approaches=by_approach,
        budgets=() if frontier is None else tuple(_budget(fitted, frontier, times) for times in TIMES),
        regions=curve,
        no_regions=no_curve,
        notes=_notes(name, used),
    )


def choose_law(points: Points) -> tuple[str, str]:
    """Return the law that the points can tell, and why: by which columns vary, apart or as one, and repeats.

    Points of one budget (D falls as N rises) lie on a line, too, but compute is what does not vary along it, so
    they go on to the laws of N and D. Of these two the one is taken that lies closer to all but the largest rung.
    """
    log_n, log_d = points.log("parameters"), points.log("tokens")
    vary_n, vary_d = np.std(log_n) > SPREAD, np.std(log_d) > SPREAD
    repeated = int((points.tokens > REPEATED * points.unique_tokens).sum())

    def floored(law: str) -> str:
        return f"{law}_floor" if len(points) >= 3 + SPARE else law

    if not vary_n:
        return floored("power_data"), "the points have one size"
    if not vary_d:
        return floored("power_parameters"), "the points have one number of tokens"
    slope, middle = np.polyfit(log_n, log_d, 1)
    as_one = slope > 0 and np.std(log_d - slope * log_n - middle) < APART
    if as_one and np.std(points.log("flops")) > SPREAD:
        return floored("power_compute"), "parameters and tokens vary as one, so compute is all that varies"
    if repeated >= SPARE and len(points) >= 7 + SPARE:
        return "data_constrained", f"parameters and tokens vary, and {repeated} points repeat their data"
    return _of_two(points)


def _of_two(points: Points) -> tuple[str, str]:
    """Return kaplan where it lies closer to the points than chinchilla, which has a coordinate more to bend."""
    why, rest_R = "parameters and tokens vary apart", ~largest_rung(points)
    if rest_R.sum() <= len(laws.load("chinchilla").PARAMETERS):
        return "chinchilla", why
    rest = points.take(rest_R)
    chinchilla, kaplan = (fit(law, rest, draws=0).objective for law in ("chinchilla", "kaplan"))
    if kaplan >= chinchilla:
        return "chinchilla", why
    return "kaplan", (
        f"{why}, and without the largest rung the points lie closer to it than to chinchilla (objective "
        f"{kaplan:.3g} for {chinchilla:.3g})"
    )


def largest_rung(points: Points) -> Bools:
    """Return the mask of what is held out: compute of the budget of the most, and all else of those runs, [R]."""
    log_c = points.log("flops")
    _, run_R = points.clusters()
    rung: Bools = np.isin(run_R, run_R[log_c >= log_c.max() - RUNG])
    return rung


def _tried(law: str, points: Points, draws: int, seed: int) -> tuple[HeldOut | None, str]:
    """Fit without the largest rung and predict it; None, and why, where too little is left."""
    rung_R = largest_rung(points)
    module, left = laws.load(law), int((~rung_R).sum())
    runs = len(set(points.take(~rung_R).run)) if left else 0
    if left <= len(module.PARAMETERS) or (draws and runs < 2):
        return None, (
            f"without the largest rung {left} points of {runs} runs are left, and law {law} has "
            f"{len(module.PARAMETERS)} coordinates; more points would show whether it predicts"
        )
    rest, held = points.take(~rung_R), points.take(rung_R)
    fitted = fit(law, rest, draws=draws, seed=seed)
    if not draws:
        logs = held.logs(module.INPUTS)
        loss: Floats = np.exp(module.log_loss(np.array([fitted.theta]), logs)[0][0])
        none = np.full_like(loss, math.nan)
        return HeldOut(points=held, fitted=fitted, loss=loss, low=none, high=none, warnings=()), ""
    found = fitted.predict({name: getattr(held, name) for name in module.INPUTS}, held.convention)
    return HeldOut(
        points=held, fitted=fitted, loss=found.loss, low=found.low, high=found.high, warnings=found.warnings
    ), ""


def _budget(fitted: Fitted, frontier: Frontier, times: float) -> BestUse:
    """Return the optimum at so many times the largest compute that was fitted."""
    flops = times * frontier.largest
    best = {"parameters": float(frontier.parameters(flops)), "tokens": float(frontier.tokens(flops))}
    columns = {name: [best.get(name, best["tokens"])] for name in laws.load(fitted.law).INPUTS}
    if not fitted.draws:
        logs = {name: np.log(column) for name, column in columns.items()}
        log_loss = laws.load(fitted.law).log_loss(np.array([fitted.theta]), logs)[0]
        return BestUse(
            flops=flops, **best, loss=math.exp(float(log_loss[0, 0])), parameters_interval=None,
            tokens_interval=None, loss_interval=None,
        )  # fmt: skip
    found = fitted.predict(columns, fitted.convention)
    (low_n, high_n), (low_d, high_d) = frontier.band(flops)
    return BestUse(
        flops=flops,
        **best,
        loss=float(found.loss[0]),
        parameters_interval=(float(low_n), float(high_n)),
        tokens_interval=(float(low_d), float(high_d)),
        loss_interval=(float(found.low[0]), float(found.high[0])),
    )


def _regions(points: Points) -> tuple[tuple[float, Regions] | None, str]:
    try:
        return regions.of_points(points), ""
    except ConfigError as error:
        return None, str(error).removeprefix("regions: ")


def _notes(law: str, points: Points) -> tuple[str, ...]:
    """Warn of labels and contexts that are mixed, and of repeats that the law knows nothing of."""
    found = []
    for name in LABELS:
        if len(kinds := points.labels(name)) > 1:
            told = ", ".join(kind or "not said" for kind in kinds)
            found.append(
                f"points of several kinds of {name} ({told}) are mixed in one law; fit them apart by {name}"
            )
    if len(lengths := np.unique(points.context[points.context > 0])) > 1:
        told = ", ".join(map(str, lengths))
        found.append(
            f"points of several contexts ({told} tokens) are mixed in one law, and a longer one has less loss"
        )
    epochs_R = points.tokens / points.unique_tokens
    if "unique_tokens" not in laws.load(law).INPUTS and epochs_R.max() > REPEATED:
        found.append(
            f"{int((epochs_R > REPEATED).sum())} points repeat their data, up to {epochs_R.max():.3g} epochs; "
            f"law {law} counts a repeat as new text, data_constrained does not"
        )
    return tuple(found)
