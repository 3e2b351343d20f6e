"""L(N, D) = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D: Kaplan et al. 2020, arXiv:2001.08361, eq. 1.5.

The joint law of early-stopped models: with endless data it is (N_c / N)^alpha_N, with an endless model
(D_c / D)^alpha_D, and how much is lost to overfitting depends on N^(alpha_N / alpha_D) / D alone. N is without
embeddings. There is no irreducible loss, so it cannot hold to the end. Knows no compute budget.
"""

# S starts, R rows (points), P coordinates, K terms

from __future__ import annotations

import itertools
import math

import numpy as np

from lmwright.scaling.laws import Columns
from lmwright.scaling.laws._shared import EXPONENT, exp, log_sum, solve, within
from lmwright.scaling.points import Floats

INPUTS = ("parameters", "tokens")
PARAMETERS = ("ln_N_c", "ln_D_c", "alpha_N", "alpha_D")
LN_SCALE = (-100.0, 500.0)  # where L would be 1; far out for small exponents, and e^500 is still a float
BOUNDS = (LN_SCALE, LN_SCALE, EXPONENT, EXPONENT)
GRID = (0.05, 0.8, 16)  # exponents that starts are laid on


def log_loss(theta_SP: Floats, columns: Columns) -> tuple[Floats, Floats]:
    """Return ln L, [S, R], and its derivatives, [S, R, P]."""
    ln_n_S1, ln_d_S1, alpha_n_S1, alpha_d_S1 = (theta_SP[:, place, None] for place in range(4))
    apart_SR = ln_n_S1 - columns["parameters"]
    lacking_n_SR = alpha_n_S1 / alpha_d_S1 * apart_SR
    terms_SKR = np.stack([lacking_n_SR, ln_d_S1 - columns["tokens"]], axis=1)
    inner_SR, shares_SKR = log_sum(terms_SKR)
    share_n_SR, share_d_SR = shares_SKR[:, 0], shares_SKR[:, 1]
    by_coordinate = (
        alpha_n_S1 * share_n_SR,
        alpha_d_S1 * share_d_SR,
        share_n_SR * apart_SR,
        inner_SR - share_n_SR * lacking_n_SR,
    )
    return alpha_d_S1 * inner_SR, np.stack(by_coordinate, axis=2)


def starts(columns: Columns, log_loss_R: Floats) -> Floats:
    """Return 256 starts, [S, P]: 16 alpha_N by 16 alpha_D; L^(1 / alpha_D) is linear in the rest, so solved."""
    low, high, count = GRID
    axis = np.geomspace(low, high, count)
    exponents_S2 = np.array(list(itertools.product(axis, repeat=2)))
    ratio_S1 = (exponents_S2[:, 0] / exponents_S2[:, 1])[:, None]
    ln_n_SR, ln_d_SR = np.broadcast_arrays(-ratio_S1 * columns["parameters"], -columns["tokens"])
    solved_SK = solve(np.stack([ln_n_SR, ln_d_SR], axis=1), log_loss_R / exponents_S2[:, 1:])
    ln_scales_SK = np.stack([solved_SK[:, 0] / ratio_S1[:, 0], solved_SK[:, 1]], axis=1)
    return within(BOUNDS, np.concatenate([ln_scales_SK, exponents_S2], axis=1))


def natural(theta_P: Floats) -> dict[str, float]:
    """Return N_c, D_c, alpha_N and alpha_D."""
    ln_n, ln_d, alpha_n, alpha_d = (float(value) for value in theta_P)
    return {"N_c": exp(ln_n), "D_c": exp(ln_d), "alpha_N": alpha_n, "alpha_D": alpha_d}


def from_natural(constants: dict[str, float]) -> Floats:
    """Return the coordinates of published constants, [P]."""
    logs = [math.log(constants[name]) for name in ("N_c", "D_c")]
    return np.array([*logs, constants["alpha_N"], constants["alpha_D"]])


def tokens_for_overfit(constants: dict[str, float], parameters: float, overfit: float) -> float:
    """Return the tokens at which L(N, D) is (1 + overfit) L(N, endless D): eq. 4.3 solved for D.

    With the published constants and an overfit of 0.02 this is eq. 4.4, about 5e3 N^0.74.
    """
    ratio = constants["alpha_N"] / constants["alpha_D"]
    spared = math.expm1(math.log1p(overfit) / constants["alpha_D"])
    return constants["D_c"] / spared * math.pow(parameters / constants["N_c"], ratio)


def allocation_exponents(alpha_n: float, alpha_b: float, alpha_s: float) -> dict[str, float]:
    """Return how loss, model, batch, steps and data scale with compute: eqs. 1.7 and 1.8.

    alpha_n, alpha_s: exponents of L(N, S), eq. 1.6. alpha_b: of the critical batch, eq. 1.4. Key L is the exponent
    with which the loss falls, the others those with which N, B, S and D = B S grow.
    """
    loss = 1 / (1 / alpha_s + 1 / alpha_b + 1 / alpha_n)
    batch, steps = loss / alpha_b, loss / alpha_s
    return {"L": loss, "N": loss / alpha_n, "B": batch, "S": steps, "D": batch + steps}
