"""A fitted law: its coordinates at full precision, how sure they are, what they hold for, and what they predict.

A parameter is never printed without its interval, and one that the data do not identify is said to be so.
Convention and metric are those of the points; a prediction for others is refused.
"""

# R rows (points), P coordinates, B draws

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from lmwright.config import convert
from lmwright.errors import ConfigError
from lmwright.scaling import laws
from lmwright.scaling.fit import checks
from lmwright.scaling.fit.bootstrap import FEWEST, percentiles
from lmwright.scaling.fit.minimise import AGREEMENT
from lmwright.scaling.fit.profile import Interval
from lmwright.scaling.flops import Convention
from lmwright.scaling.points import Floats, logs_of
from lmwright.scaling.sweep import Trial

QUANTILES = 32  # of the noise of one point, added to each draw of a prediction


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Losses, [R], in the metric of the fit. low, high: of a new run. curve_low, curve_high: of the law alone."""

    loss: Floats
    low: Floats
    high: Floats
    curve_low: Floats
    curve_high: Floats
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A law with its coordinates and what is known of them; `fit` makes it, `from_json` reads it.

    theta: coordinates by their order in the law. objective: the sum of Huber's losses at `delta`. agreed of
    `followed` starts, the best of `starts`, ended within AGREEMENT of it. profile: intervals of the coordinates at
    `level`. draws: coordinates of each bootstrap draw. scale: robust standard deviation of a point's ln L;
    design_effect: by how much its runs correlate the points. freedom: degrees of freedom of the bootstrap.
    largest: what was fitted at most, of each input. families, domains, contexts: what the points were of, sorted,
    without those that do not say. trials: of the sweep of rate and batch that the runs were trained by.
    """

    law: str
    convention: Convention
    metric: str
    coordinates: tuple[str, ...]
    theta: tuple[float, ...]
    objective: float
    delta: float
    points: int
    runs: int
    starts: int
    followed: int
    agreed: int
    level: float
    freedom: int
    scale: float
    design_effect: float
    profile: tuple[Interval, ...]
    draws: tuple[tuple[float, ...], ...]
    largest: dict[str, float]
    least_loss: float
    warnings: tuple[str, ...]
    families: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    contexts: tuple[int, ...] = ()
    trials: tuple[Trial, ...] = ()

    def natural(self) -> dict[str, float]:
        """Return the numbers that papers print. Print them with `interval`."""
        return laws.load(self.law).natural(np.array(self.theta))

    def interval(self, name: str) -> Interval:
        """Return the interval of a coordinate, or of a natural number.

        By profile, for a coordinate and for X where ln_X is one; else by bootstrap. Raises ConfigError for
        another name, or where there are no draws and there is no profile.
        """
        if name in self.coordinates:
            return self.profile[self.coordinates.index(name)]
        if f"ln_{name}" in self.coordinates:
            inner = self.profile[self.coordinates.index(f"ln_{name}")]
            low, high = (float(np.exp(end)) for end in (inner.low, inner.high))
            return Interval(low, high, inner.open_low, inner.open_high)
        return self.bootstrap_interval(name)

    def bootstrap_interval(self, name: str) -> Interval:
        """Return the interval of a coordinate or natural number by the draws. Raises ConfigError as `interval`."""
        self._ask_for_draws()
        if name in self.coordinates:
            drawn = np.array(self.draws)[:, self.coordinates.index(name)]
        else:
            law = laws.load(self.law)
            allowed = (*self.coordinates, *law.natural(np.array(self.theta)))
            if name not in allowed:
                raise ConfigError(f"fit: law {self.law} has no {name!r}; allowed: {', '.join(allowed)}")
            drawn = np.array([law.natural(theta_P)[name] for theta_P in np.array(self.draws)])
        low, high = percentiles(drawn[:, None], self.level, self.freedom)
        return Interval(float(low[0]), float(high[0]))

    def predict(self, columns: Mapping[str, ArrayLike], convention: Convention) -> Prediction:
        """Predict losses at columns of the law's inputs, such as {"parameters": 1e9, "tokens": 2e10}.

        The interval of a new run adds the noise of one point to the draws' spread. Raises ConfigError for another
        convention than the fit's, missing or foreign columns, or a fit without draws.
        """
        law = laws.load(self.law)
        if convention != self.convention:
            raise ConfigError(
                f"predict: N is counted as {convention}, the law was fitted to {self.convention}; count it so"
            )
        if set(columns) != set(law.INPUTS):
            raise ConfigError(
                f"predict: columns {', '.join(columns)}; law {self.law} reads {', '.join(law.INPUTS)}"
            )
        self._ask_for_draws()
        logs = logs_of(columns)
        log_R = law.log_loss(np.array([self.theta]), logs)[0][0]
        log_BR = law.log_loss(np.array(self.draws), logs)[0]
        curve_low_R, curve_high_R = percentiles(log_BR, self.level, self.freedom)
        noisy = [percentiles(self._with_noise(log_B), self.level, self.freedom) for log_B in log_BR.T]
        low_R, high_R = np.array(noisy)[:, :, 0].T
        return Prediction(
            loss=np.exp(log_R),
            low=np.exp(np.minimum(low_R, curve_low_R)),
            high=np.exp(np.maximum(high_R, curve_high_R)),
            curve_low=np.exp(curve_low_R),
            curve_high=np.exp(curve_high_R),
            warnings=checks.reach(self.largest, logs),
        )

    def lines(self) -> list[str]:
        """Return the fit in words and numbers, a line each; no number of the law without its interval."""
        counted = f"{self.points} points of {self.runs} runs"
        found = [
            f"law {self.law}, fitted to {counted}; N counted as {self.convention}, loss in {self.metric}",
            f"objective {self.objective:.10g} (sum of Huber's loss of ln L, delta {self.delta:g}); "
            f"{self.agreed} of the {self.followed} best of {self.starts} starts agree within {AGREEMENT:g}",
            f"noise of one point {100 * self.scale:.3g}% (robust); intervals at {100 * self.level:g}%",
        ]
        found += [f"  {name} {self._described(name, value)}" for name, value in self.natural().items()]
        return found + [f"warning: {warning}" for warning in self.warnings]

    def _described(self, name: str, value: float) -> str:
        if f"ln_{name}" not in self.coordinates and name not in self.coordinates and not self.draws:
            return "is not printed: without bootstrap draws it has no interval"
        limits = self.interval(name)
        shown = f"[{limits.low:.5g}, {limits.high:.5g}]"
        if not limits.identified:
            ends = [end for end, is_open in (("lower", limits.open_low), ("upper", limits.open_high)) if is_open]
            return f"is not identified: {value:.5g} {shown}, the points set no {' and no '.join(ends)} limit"
        if not self.draws:
            return f"{value:.5g} {shown}"
        drawn = self.bootstrap_interval(name)
        return f"{value:.5g} {shown}, by bootstrap of runs [{drawn.low:.5g}, {drawn.high:.5g}]"

    def to_json(self) -> str:
        """Return the fit as JSON; numbers have all their digits, so `from_json` returns the same to the bit."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> Fitted:
        """Read a fit. `where` names the file for messages. Raises ConfigError for anything else."""
        try:
            mapping = json.loads(text)
        except (ValueError, RecursionError):
            raise ConfigError(f"{where}: is no JSON") from None
        if not isinstance(mapping, dict):
            raise ConfigError(f"{where}: holds no fit, which is an object with the keys of a law")
        fitted = convert(mapping, cls, where)
        law = laws.load(fitted.law)
        widths = {len(fitted.coordinates), len(fitted.theta), len(fitted.profile), *map(len, fitted.draws)}
        if fitted.coordinates != law.PARAMETERS or widths != {len(law.PARAMETERS)}:
            raise ConfigError(f"{where}: the coordinates of law {fitted.law} are {', '.join(law.PARAMETERS)}")
        fitted._refuse_impossible(where)
        return fitted

    def _refuse_impossible(self, where: str) -> None:
        """Raise ConfigError for a number that no fit has, and that intervals or predictions would fall over."""
        names, drawn = checks.ranged(laws.load(self.law).INPUTS), len(self.draws)
        if set(self.largest) != set(names):
            raise ConfigError(
                f"{where}: largest has the keys {', '.join(self.largest) or '(none)'}; law {self.law} has "
                f"{', '.join(names)}; fit it anew"
            )
        for name, value, sound, allowed in (
            ("scale", self.scale, 0 < self.scale < math.inf, "must be positive and finite"),
            ("level", self.level, 0 < self.level < 1, "must lie between 0 and 1"),
            ("freedom", self.freedom, self.freedom >= 1, "must be 1 or more"),
            ("number of draws", drawn, not 0 < drawn < FEWEST, f"must be 0, or {FEWEST} or more"),
            *(
                (f"largest.{name}", most, 0 < most < math.inf, "must be positive and finite")
                for name, most in self.largest.items()
            ),
        ):
            if not sound:
                raise ConfigError(f"{where}: {name} is {value}; {allowed}; fit the law anew")

    def _with_noise(self, log_B: Floats) -> Floats:
        """Return each draw with each of a few normal quantiles of the noise added, [B * quantiles, 1]."""
        chances = (np.arange(QUANTILES) + 0.5) / QUANTILES
        noise_Q = self.scale * np.array([NormalDist().inv_cdf(chance) for chance in chances])
        return (log_B[:, None] + noise_Q).reshape(-1, 1)

    def _ask_for_draws(self) -> None:
        if not self.draws:
            raise ConfigError("fit: made without bootstrap draws, so this has no interval; fit with draws above 0")
