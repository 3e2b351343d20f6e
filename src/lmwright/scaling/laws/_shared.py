"""What laws share: bounds, the logarithm of a sum with its shares, the linear part solved, and sums of powers.

A law is a sum of terms, each a coefficient times something that the other coordinates fix. In logarithms a term of
powers is linear in the coordinates, ln A_k - a_k ln x_k, and ln L is the terms' log-sum-exp, its derivative by a
term the term's share of the loss. So nothing overflows, and nothing must be kept positive. Knows no law.
"""

# S starts, R rows (points), P coordinates, K terms

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from lmwright.scaling.laws import Columns
from lmwright.scaling.points import Floats

LN_COEFFICIENT = (-30.0, 200.0)  # so wide that only a term that does not matter ends there
LN_FLOOR = (-7.0, 5.0)  # E of 0.001 is none
EXPONENT = (0.005, 2.5)
GRID = (0.03, 1.6)  # exponents that starts are laid on
LEAST_SHARE = 0.01  # of the least loss: what a coefficient starts at that would be negative


@dataclass(frozen=True, kw_only=True)
class PowerSum:
    """A law L = [E +] sum_k A_k / x_k^a_k. Coordinates: ln A_1 .. ln A_K, [ln E], a_1 .. a_K.

    inputs: the column x_k of each power. coefficients, exponents: how A_k and a_k are called. floor: whether there
    is E. grid: exponents that starts try for each power. Its methods are those of a `Law`.
    """

    inputs: tuple[str, ...]
    coefficients: tuple[str, ...]
    exponents: tuple[str, ...]
    floor: bool = True
    grid: int = 64

    @property
    def parameters(self) -> tuple[str, ...]:
        """Return the names of the coordinates."""
        return (*(f"ln_{name}" for name in (*self.coefficients, *("E",) * self.floor)), *self.exponents)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Return the bounds of the coordinates."""
        powers = len(self.inputs)
        return (LN_COEFFICIENT,) * powers + (LN_FLOOR,) * self.floor + (EXPONENT,) * powers

    def log_loss(self, theta_SP: Floats, columns: Columns) -> tuple[Floats, Floats]:
        """Return ln L, [S, R], and its exact derivatives by the coordinates, [S, R, P]."""
        powers = len(self.inputs)
        terms = powers + self.floor
        logs = [columns[name] for name in self.inputs]
        # Rows last, so that each operation runs over memory in order; the caller's [S, R, P] is a view of it.
        jacobian_SPR = np.empty((len(theta_SP), terms + powers, len(logs[0])))
        for k, log_R in enumerate(logs):
            np.multiply(theta_SP[:, terms + k, None], -log_R, out=jacobian_SPR[:, k])
            jacobian_SPR[:, k] += theta_SP[:, k, None]
        if self.floor:
            jacobian_SPR[:, powers] = theta_SP[:, powers, None]
        total_SR, shares_SKR = log_sum(jacobian_SPR[:, :terms])
        for k, log_R in enumerate(logs):
            np.multiply(shares_SKR[:, k], -log_R, out=jacobian_SPR[:, terms + k])
        return total_SR, jacobian_SPR.transpose(0, 2, 1)

    def curvature(self, jacobian_SRP: Floats, columns: Columns, slope_SR: Floats) -> Floats:
        """Return sum_r slope_r d2 ln L_r, [S, P, P], from the first derivatives; exact, as terms are linear."""
        powers = len(self.inputs)
        terms = powers + self.floor
        pulled_SRP = jacobian_SRP * slope_SR[:, :, None]
        curved_SPP: Floats = -np.matmul(jacobian_SRP.transpose(0, 2, 1), pulled_SRP)
        for k in range(terms):
            curved_SPP[:, k, k] += pulled_SRP[:, :, k].sum(axis=1)
        for k, name in enumerate(self.inputs):
            # By an exponent a term changes -ln x times as much as by its coefficient.
            across_S = pulled_SRP[:, :, terms + k].sum(axis=1)
            curved_SPP[:, k, terms + k] += across_S
            curved_SPP[:, terms + k, k] += across_S
            curved_SPP[:, terms + k, terms + k] -= pulled_SRP[:, :, terms + k] @ columns[name]
        return curved_SPP

    def starts(self, columns: Columns, log_loss_R: Floats) -> Floats:
        """Return where a fit begins, [S, P]: on a grid of exponents, the rest solved."""
        axis = np.geomspace(*GRID, self.grid)
        exponents_SK = np.array(list(itertools.product(axis, repeat=len(self.inputs))))
        logs_KR = np.stack([columns[name] for name in self.inputs])
        logs_SKR = -exponents_SK[:, :, None] * logs_KR
        if self.floor:
            logs_SKR = np.concatenate([logs_SKR, np.zeros_like(logs_SKR[:, :1])], axis=1)
        solved_SK = solve(logs_SKR, np.broadcast_to(log_loss_R, (len(logs_SKR), len(log_loss_R))))
        return within(self.bounds, np.concatenate([solved_SK, exponents_SK], axis=1))

    def natural(self, theta_P: Floats) -> dict[str, float]:
        """Return A_k, E and a_k by their names."""
        named = zip(self.parameters, theta_P.tolist(), strict=True)
        return {name.removeprefix("ln_"): exp(value) if name.startswith("ln_") else value for name, value in named}

    def from_natural(self, constants: dict[str, float]) -> Floats:
        """Return the coordinates of published constants, [P]."""
        logs = [math.log(constants[name]) for name in (*self.coefficients, *("E",) * self.floor)]
        return np.array([*logs, *(constants[name] for name in self.exponents)])


@dataclass(frozen=True, kw_only=True)
class PowerLaw(PowerSum):
    """A law L = A / x^a = (x_c / x)^a of one power without E. scale: how x_c is called, where L would be 1."""

    scale: str
    floor: bool = False

    def natural(self, theta_P: Floats) -> dict[str, float]:
        """Return x_c = A^(1/a) and a by their names."""
        ln_coefficient, exponent = theta_P.tolist()
        return {self.scale: exp(ln_coefficient / exponent), self.exponents[0]: exponent}

    def from_natural(self, constants: dict[str, float]) -> Floats:
        """Return the coordinates of published constants, [P]."""
        exponent = constants[self.exponents[0]]
        return np.array([exponent * math.log(constants[self.scale]), exponent])


def log_sum(terms_SKR: Floats) -> tuple[Floats, Floats]:
    """Return ln sum_k exp(term_k), [S, R], and each term's share of the sum, [S, K, R].

    The shares take the place of the terms in memory: a bootstrap spends its time here.
    """
    largest_SR = terms_SKR.max(axis=1)
    terms_SKR -= largest_SR[:, None]
    shares_SKR = np.exp(terms_SKR, out=terms_SKR)
    total_SR: Floats = shares_SKR.sum(axis=1)
    shares_SKR /= total_SR[:, None]
    np.log(total_SR, out=total_SR)
    total_SR += largest_SR
    return total_SR, shares_SKR


def solve(logs_SKR: Floats, log_value_SR: Floats) -> Floats:
    """Return ln c_k, [S, K], of the coefficients for which sum_k c_k exp(logs_k) is nearest to the values.

    Variable projection (Golub and Pereyra 1973; for scaling laws Czech et al. 2026, arXiv:2603.22339): given the
    other coordinates, a law is linear. Nearest in relative error, so to first order in the logarithm. A
    coefficient that would be negative, or next to nothing, becomes what makes its largest term LEAST_SHARE of the
    least value.
    """
    largest_SK = logs_SKR.max(axis=2)
    design_SKR = np.exp(logs_SKR - largest_SK[:, :, None] - log_value_SR[:, None])
    size_SK = np.sqrt(np.einsum("skr,skr->sk", design_SKR, design_SKR))
    inverse_SKR = np.linalg.pinv((design_SKR / size_SK[:, :, None]).transpose(0, 2, 1), rcond=1e-9)
    coefficients_SK = inverse_SKR.sum(axis=2) / size_SK
    least_S1 = LEAST_SHARE * np.exp(log_value_SR.min(axis=1, keepdims=True))
    solved_SK: Floats = np.log(np.maximum(coefficients_SK, least_S1)) - largest_SK
    return solved_SK


def within(bounds: tuple[tuple[float, float], ...], theta_SP: Floats) -> Floats:
    """Return the coordinates, [S, P], moved to the nearest bound where they are beyond it."""
    low_P, high_P = np.array(bounds).T
    inside_SP: Floats = np.clip(theta_SP, low_P, high_P)
    return inside_SP


def exp(value: float) -> float:
    """Return e to the value, infinity where that is too large for a float."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
