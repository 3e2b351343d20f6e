"""L(C, M) = E + (a M^eta + b M^-eta) C^-eta: Gadre et al. 2024, arXiv:2403.08540.

C = 6ND is the compute, M = D/N how many tokens a parameter sees; at any fixed M, however far beyond the
compute-optimal one, the loss falls with compute by the same exponent. As a M^eta C^-eta = a 6^-eta N^(-2 eta),
and the like for b and D, this is the parametric law with alpha = beta = 2 eta: four coordinates that a handful of
small runs can fit.
"""

# S starts, R rows (points), P coordinates, K terms

from __future__ import annotations

import math

import numpy as np

from lmwright.scaling.laws import Columns
from lmwright.scaling.laws._shared import EXPONENT, LN_COEFFICIENT, LN_FLOOR, exp, log_sum, solve, within
from lmwright.scaling.points import Floats

INPUTS = ("parameters", "tokens")
PARAMETERS = ("ln_a", "ln_b", "ln_E", "eta")
BOUNDS = (LN_COEFFICIENT, LN_COEFFICIENT, LN_FLOOR, EXPONENT)
GRID = (0.015, 0.8, 128)  # etas that starts are laid on
LN_6 = math.log(6.0)


def log_loss(theta_SP: Floats, columns: Columns) -> tuple[Floats, Floats]:
    """Return ln L, [S, R], and its derivatives, [S, R, P]."""
    ln_a_S1, ln_b_S1, ln_e_S1, eta_S1 = (theta_SP[:, place, None] for place in range(4))
    by_n_R, by_d_R = _squares(columns)
    terms_SKR = np.stack(
        [
            ln_a_S1 - eta_S1 * by_n_R,
            ln_b_S1 - eta_S1 * by_d_R,
            np.broadcast_to(ln_e_S1, (len(theta_SP), len(by_n_R))),
        ],
        axis=1,
    )
    total_SR, shares_SKR = log_sum(terms_SKR)
    by_eta_SR = -shares_SKR[:, 0] * by_n_R - shares_SKR[:, 1] * by_d_R
    return total_SR, np.concatenate([shares_SKR, by_eta_SR[:, None]], axis=1).transpose(0, 2, 1)


def starts(columns: Columns, log_loss_R: Floats) -> Floats:
    """Return 128 starts, [S, P]: as many etas, the rest solved."""
    low, high, count = GRID
    eta_S1 = np.geomspace(low, high, count)[:, None]
    by_n_R, by_d_R = _squares(columns)
    logs_SKR = np.stack([-eta_S1 * by_n_R, -eta_S1 * by_d_R, np.zeros((count, len(by_n_R)))], axis=1)
    solved_SK = solve(logs_SKR, np.broadcast_to(log_loss_R, (count, len(by_n_R))))
    return within(BOUNDS, np.concatenate([solved_SK, eta_S1], axis=1))


def _squares(columns: Columns) -> tuple[Floats, Floats]:
    """Return ln(C/M) = ln 6N^2 and ln(CM) = ln 6D^2, [R]."""
    return LN_6 + 2 * columns["parameters"], LN_6 + 2 * columns["tokens"]


def natural(theta_P: Floats) -> dict[str, float]:
    """Return a, b, E and eta."""
    ln_a, ln_b, ln_e, eta = (float(value) for value in theta_P)
    return {"a": exp(ln_a), "b": exp(ln_b), "E": exp(ln_e), "eta": eta}


def from_natural(constants: dict[str, float]) -> Floats:
    """Return the coordinates of published constants, [P]."""
    return np.array([*(math.log(constants[name]) for name in ("a", "b", "E")), constants["eta"]])
