"""L = E + A / N'^alpha + B / D'^beta: Muennighoff et al. 2023, arXiv:2305.16264 (data seen again).

U tokens are distinct among the D that are trained on. Repeats lose value, and so do parameters beyond those that U
tokens call for:
    D' = U + U R_D* (1 - exp(-(D/U - 1) / R_D*))
    N' = U_N + U_N R_N* (1 - exp(-(N/U_N - 1) / R_N*)),  U_N = min(N, N_opt(U))
N_opt(U), the parameters for which U tokens are compute-optimal, solves alpha A / N^alpha = beta B / U^beta.
Without repeats, and for models no larger than that, it is the parametric law. More repeats never hurt here; in
truth they may.
"""

# S starts, R rows (points), P coordinates, K terms

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike

from lmwright.scaling.laws import Columns
from lmwright.scaling.laws._shared import EXPONENT, LN_COEFFICIENT, LN_FLOOR, exp, log_sum, solve, within
from lmwright.scaling.points import Floats

INPUTS = ("parameters", "tokens", "unique_tokens")
PARAMETERS = ("ln_A", "ln_B", "ln_E", "alpha", "beta", "ln_R_D_star", "ln_R_N_star")
LN_REPEATS = (-5.0, 12.0)  # of R*: from "repeats are worth nothing" to "they are as good as new"
BOUNDS = (LN_COEFFICIENT, LN_COEFFICIENT, LN_FLOOR, EXPONENT, EXPONENT, LN_REPEATS, LN_REPEATS)
GRID = (0.1, 1.2, 7)  # exponents that starts are laid on
REPEATS = (2.0, 8.0, 32.0)  # R* that starts are laid on
TURNS = 4  # of solving the coefficients, which move N_opt, which moves the coefficients
MOST = 600.0  # of ln(x / unique): e^600 is still a float


def log_loss(theta_SP: Floats, columns: Columns) -> tuple[Floats, Floats]:
    """Return ln L, [S, R], and its derivatives, [S, R, P]."""
    ln_a_S1, ln_b_S1, ln_e_S1, alpha_S1, beta_S1, star_d_S1, star_n_S1 = (
        theta_SP[:, place, None] for place in range(7)
    )
    unique_R = columns["unique_tokens"]
    data_SR, _, data_by_star_SR = saturate(unique_R, columns["tokens"], star_d_S1)
    optimal_SR = _log_optimal(ln_a_S1, ln_b_S1, alpha_S1, beta_S1, unique_R)
    size_SR, size_by_optimal_SR, size_by_star_SR = saturate(optimal_SR, columns["parameters"], star_n_S1)
    terms_SKR = np.stack(
        [ln_a_S1 - alpha_S1 * size_SR, ln_b_S1 - beta_S1 * data_SR, np.broadcast_to(ln_e_S1, size_SR.shape)],
        axis=1,
    )
    total_SR, shares_SKR = log_sum(terms_SKR)
    share_n_SR, share_d_SR, share_e_SR = shares_SKR[:, 0], shares_SKR[:, 1], shares_SKR[:, 2]
    moved_SR = share_n_SR * size_by_optimal_SR  # what a rise of alpha ln N_opt takes off ln L
    by_coordinate = (
        share_n_SR - moved_SR,
        share_d_SR + moved_SR,
        share_e_SR,
        -share_n_SR * size_SR - moved_SR * (1 / alpha_S1 - optimal_SR),
        -share_d_SR * data_SR - moved_SR * (unique_R - 1 / beta_S1),
        -share_d_SR * beta_S1 * data_by_star_SR,
        -share_n_SR * alpha_S1 * size_by_star_SR,
    )
    return total_SR, np.stack(by_coordinate, axis=2)


def saturate(ln_unique: Floats, ln_total: Floats, ln_star: Floats) -> tuple[Floats, Floats, Floats]:
    """Return ln x' of x' = u + u R* (1 - exp(-(x/u - 1) / R*)), its derivatives by ln u and by ln R*.

    Where the total x is below u, nothing is repeated: x' = x, and it depends on neither.
    """
    star = np.exp(ln_star)
    times = np.exp(np.clip(ln_total - ln_unique, 0.0, MOST))
    repeats = times - 1
    kept = np.exp(-repeats / star)
    worth = 1 - star * np.expm1(-repeats / star)
    value: Floats = np.minimum(ln_unique, ln_total) + np.log(worth)
    by_unique: Floats = 1 - times * kept / worth
    by_star: Floats = (worth - 1 - repeats * kept) / worth
    return value, by_unique, by_star


def _log_optimal(ln_a: Floats, ln_b: Floats, alpha: Floats, beta: Floats, unique_R: Floats) -> Floats:
    """Return ln N_opt(U): N_opt = G (U G)^(beta / alpha), G = (alpha A / (beta B))^(1 / (alpha + beta))."""
    optimal: Floats = (np.log(alpha / beta) + ln_a - ln_b + beta * unique_R) / alpha
    return optimal


def starts(columns: Columns, log_loss_R: Floats) -> Floats:
    """Return 441 starts, [S, P]: 7 alphas, 7 betas and 3 of each R*; the rest solved, as N_opt settles."""
    low, high, count = GRID
    axis, stars = np.geomspace(low, high, count), np.log(REPEATS)
    rest_S4 = np.array(list(itertools.product(axis, axis, stars, stars)))
    alpha_S1, beta_S1, star_d_S1, star_n_S1 = (rest_S4[:, place, None] for place in range(4))
    unique_R, log_loss_SR = columns["unique_tokens"], np.broadcast_to(log_loss_R, (len(rest_S4), len(log_loss_R)))
    data_SR, _, _ = saturate(unique_R, columns["tokens"], star_d_S1)
    size_SR = np.broadcast_to(columns["parameters"], data_SR.shape)
    for _ in range(TURNS):
        logs_SKR = np.stack([-alpha_S1 * size_SR, -beta_S1 * data_SR, np.zeros(data_SR.shape)], axis=1)
        solved_SK = solve(logs_SKR, log_loss_SR)
        optimal_SR = _log_optimal(solved_SK[:, :1], solved_SK[:, 1:2], alpha_S1, beta_S1, unique_R)
        size_SR = saturate(optimal_SR, columns["parameters"], star_n_S1)[0]
    return within(BOUNDS, np.concatenate([solved_SK, rest_S4], axis=1))


def natural(theta_P: Floats) -> dict[str, float]:
    """Return A, B, E, alpha, beta, R_D_star and R_N_star."""
    ln_a, ln_b, ln_e, alpha, beta, star_d, star_n = (float(value) for value in theta_P)
    found = {"A": exp(ln_a), "B": exp(ln_b), "E": exp(ln_e), "alpha": alpha, "beta": beta}
    return found | {"R_D_star": exp(star_d), "R_N_star": exp(star_n)}


def from_natural(constants: dict[str, float]) -> Floats:
    """Return the coordinates of published constants, [P]."""
    logs = {name: math.log(constants[name]) for name in ("A", "B", "E", "R_D_star", "R_N_star")}
    middle = [constants["alpha"], constants["beta"]]
    return np.array([logs["A"], logs["B"], logs["E"], *middle, logs["R_D_star"], logs["R_N_star"]])


def effective_tokens(unique: ArrayLike, tokens: ArrayLike, repeats_star: float) -> Floats:
    """Return D': how many distinct tokens the D trained on are worth, U of them distinct."""
    value, _, _ = saturate(
        np.log(np.asarray(unique)), np.log(np.asarray(tokens)), np.log(np.asarray(repeats_star))
    )
    worth: Floats = np.exp(value)
    return worth


def optimal_parameters(constants: dict[str, float], tokens: ArrayLike) -> Floats:
    """Return N_opt: the parameters for which so many distinct tokens are compute-optimal."""
    ln_a, ln_b, alpha, beta = (np.asarray(value) for value in from_natural(constants)[[0, 1, 3, 4]])
    ln_tokens = np.log(np.asarray(tokens, dtype=np.float64))
    parameters: Floats = np.exp(_log_optimal(ln_a, ln_b, alpha, beta, ln_tokens))
    return parameters
