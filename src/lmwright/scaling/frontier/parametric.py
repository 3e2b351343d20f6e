"""Approach 3: the frontier that follows from a fitted L(N, D) = E + A / N^alpha + B / D^beta and C = 6ND.

Hoffmann et al. 2022, arXiv:2203.15556, eq. 4: with G = (alpha A / (beta B))^(1 / (alpha + beta)), a = beta /
(alpha + beta) and b = alpha / (alpha + beta), N* = G (C/6)^a and D* = G^-1 (C/6)^b. Two rounded digits of alpha
and beta are not enough: with the paper's printed ones tokens per parameter at 5.76e23 FLOPs come out as 59 or
93. For other laws, exact FLOPs, repeated data or inference there is `best`, in one dimension.
"""

from __future__ import annotations

import math

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling.fit import fit
from lmwright.scaling.fit.fitted import Fitted
from lmwright.scaling.frontier import Frontier, Line
from lmwright.scaling.frontier._optimum import best, six_n
from lmwright.scaling.points import Floats, Points

__all__ = ["best", "closed_form", "estimate", "of_fitted", "six_n", "two_powers"]

LAW = "chinchilla"


def closed_form(theta_P: Floats) -> Line:
    """Return the line of coordinates ln_A, ln_B, ln_E, alpha, beta."""
    ln_a, ln_b, _, alpha, beta = (float(value) for value in theta_P)
    total = alpha + beta
    a, b = beta / total, alpha / total
    ln_g = (math.log(alpha / beta) + ln_a - ln_b) / total
    return ln_g - a * math.log(6), a, -ln_g - b * math.log(6), b


def estimate(points: Points, *, level: float = 0.95, draws: int = 1000, seed: int = 0) -> Frontier:
    """Fit the law to points, and return its frontier. Raises ConfigError as the fit does."""
    return of_fitted(fit(LAW, points, level=level, draws=draws, seed=seed))


def of_fitted(fitted: Fitted) -> Frontier:
    """Return the frontier of a fit. Raises ConfigError for a law that does not read both N and D."""
    found = (two_powers(fitted.law, np.array(theta)) for theta in (fitted.theta, *fitted.draws))
    lines = [closed_form(theta_P) for theta_P in found if theta_P is not None]
    if not lines:
        raise ConfigError(f"law {fitted.law} does not say how a budget is divided between parameters and tokens")
    return Frontier(
        approach="parametric",
        convention=fitted.convention,
        line=lines[0],
        draws=tuple(lines[1:]),
        level=fitted.level,
        runs=fitted.freedom + 1,
        budgets=(),
        largest=fitted.largest["6ND"],
        warnings=fitted.warnings,
    )


def two_powers(law: str, theta_P: Floats) -> Floats | None:
    """Return ln_A, ln_B, ln_E, alpha, beta of the sum of powers that has its optimum where `law` has it.

    Repeats: with new data alone the law is the parametric one there. Kaplan: a sum of two powers under a power.
    Over-training: by its own definition. None for a law that does not read N and D.
    """
    if law in (LAW, "data_constrained"):
        return theta_P[:5]
    if law == "kaplan":
        ln_n, ln_d, alpha_n, alpha_d = theta_P
        ratio = alpha_n / alpha_d
        return np.array([ratio * ln_n, ln_d, 0.0, ratio, 1.0])
    if law == "over_training":
        ln_a, ln_b, ln_e, eta = theta_P
        return np.array([ln_a - eta * math.log(6), ln_b - eta * math.log(6), ln_e, 2 * eta, 2 * eta])
    return None
