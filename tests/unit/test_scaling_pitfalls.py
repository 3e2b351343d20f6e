"""Every pitfall of scaling-law fits that the literature has stepped into, planted and caught.

What was tested where its code is, is named here and not repeated; a test below keeps the names true.

1. A mean or a small objective under absolute tolerances stops where it starts: here, and
   `unit/test_scaling_fit.py::test_the_objective_is_a_sum_over_rows_and_weights_count_rows`.
2. Local minima (nine in ten of the published starts end above the best): here, and
   `unit/test_scaling_fit.py::test_few_agreeing_starts_and_unlike_intervals_are_warned_of`,
   `unit/test_scaling_fit.py::test_a_lower_minimum_takes_the_place_of_one_that_starts_agreed_on`,
   `parity/test_scaling_fit_scipy.py::test_the_minimum_is_no_worse_than_scipys_over_the_whole_published_grid`.
3. Single precision: here, and
   `contract/test_laws.py::test_a_planted_law_without_noise_is_found_again`.
4. Huber's delta, and what it is the Huber loss of: here.
5. Rounded coefficients: `unit/test_scaling_fit.py::test_a_fit_is_saved_and_read_to_the_bit`,
   `unit/test_scaling_published.py::test_rounding_alone_moves_the_optimum`,
   `unit/test_frontier_parametric.py::test_rounding_the_constants_moves_the_ratio_as_measured`.
6. Parabolas over wide or off-centre grids, and optima at an edge:
   `unit/test_frontier_isoflop.py::test_a_parabola_over_a_wide_grid_is_biased_as_published_and_the_local_one_is_not`,
   `unit/test_frontier_isoflop.py::test_budgets_whose_optimum_is_at_an_edge_are_left_out_and_named`,
   `unit/test_frontier_isoflop.py::test_coarse_off_centre_and_few_are_warned_of`.
7. A fit that returns its initial guess: here, and
   `unit/test_scaling_fit.py::test_a_law_without_a_finite_start_is_refused`.
8. Conventions, metrics and tokenizers mixed; training for validation loss:
   `unit/test_scaling_points.py::test_points_join_if_they_are_of_one_kind`,
   `unit/test_scaling_points.py::test_convention_and_metric_of_a_table_are_one_and_agree_with_the_callers`,
   `unit/test_scaling_fit.py::test_predictions_that_cannot_be_made_are_refused`,
   `unit/test_run_points.py::test_losses_by_the_token_of_other_tokenizers_are_not_compared`; and here, that a
   convention alone moves the exponents.
9. Points of one run taken for independent: here, and
   `unit/test_scaling_fit.py::test_the_bootstrap_draws_runs_with_all_their_points`,
   `unit/test_scaling_fit.py::test_runs_that_err_together_widen_the_profile`.
10. Curves cut before their schedule ends:
   `unit/test_scaling_fit.py::test_points_whose_schedule_was_cut_are_left_out_with_a_warning`,
   `unit/test_frontier_isoflop.py::test_points_whose_schedule_was_cut_are_left_out`.
11. Far extrapolation, E at nothing or at the least loss, exponents at a bound:
   `unit/test_scaling_fit.py::test_a_prediction_far_beyond_the_points_is_warned_of`,
   `unit/test_scaling_fit.py::test_an_irreducible_loss_of_nothing_or_of_the_least_observed_is_warned_of`,
   `unit/test_scaling_fit.py::test_an_exponent_at_its_bound_is_warned_of`,
   `unit/test_scaling_fit.py::test_a_parameter_that_the_data_do_not_identify_is_said_to_be_so`; and here, an input
   that is the same in all points.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize

from lmwright.scaling import laws, published
from lmwright.scaling.fit import checks, fit
from lmwright.scaling.fit.minimise import minimise, settle
from lmwright.scaling.fit.robust import Objective
from lmwright.scaling.points import Points

TESTS = Path(__file__).parents[1]
LAW = laws.load("chinchilla")
POINTS = published.points("chinchilla")
OBJECTIVE = Objective.of(LAW, POINTS)
LEAST = 8.4009311995742e-4  # of the 234 points, by scipy from all published starts
# ln A, ln B, ln E, alpha, beta: a few of the published grid.
STARTS = np.array(
    [[5, 5, 0.5, 0.5, 0.5], [10, 10, 0, 1, 1], [0, 20, -1, 0.5, 1.5], [25, 5, 1, 2, 0.5]], dtype=float
)


@pytest.mark.parametrize(("path", "name"), sorted(set(re.findall(r"`(\w+/\w+\.py)::(\w+)`", __doc__ or ""))))
def test_the_index_names_tests_that_exist(path, name):
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


# --- 1: means and tolerances


def test_1_where_a_mean_under_usual_tolerances_stops_at_its_start_the_fit_goes_on():
    """The same start and the same small objective, a millionth of the mean: scipy's default gives up at once."""
    small = 1e-6 / len(POINTS)

    def mean(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient, _ = OBJECTIVE.slopes(theta[None])
        return small * float(value[0]), small * gradient[0]

    start = STARTS[0]
    stopped = minimize(mean, start, jac=True, method="L-BFGS-B")
    assert stopped.success
    assert stopped.nit <= 2
    assert stopped.fun > 50 * small * LEAST
    weights = np.full((1, len(POINTS)), small)
    found, value = settle(OBJECTIVE, start[None], approach=20, polish=80, weights_SR=weights)
    assert value[0] == pytest.approx(small * LEAST, rel=1e-9)
    plain, _ = settle(OBJECTIVE, start[None], approach=20, polish=80)
    np.testing.assert_allclose(found, plain, rtol=1e-6)


# --- 2: local minima


def test_2_published_starts_end_apart_and_the_fit_says_how_many_of_its_own_agree():
    """A usual minimiser ends more than 1% above the best from such starts, and at different places."""

    def total(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient, _ = OBJECTIVE.slopes(theta[None])
        return float(value[0]), gradient[0]

    ends = [minimize(total, start, jac=True, method="L-BFGS-B").fun for start in STARTS]
    assert sum(end > 1.01 * LEAST for end in ends) >= 3
    fitted = fit("chinchilla", POINTS, draws=0)
    assert fitted.objective == pytest.approx(LEAST, rel=1e-10)
    assert (fitted.agreed, fitted.followed, fitted.starts) == (32, 32, 256)
    assert any("32 of the 32 best of 256 starts agree" in line for line in fitted.lines())


def test_2_a_minimum_that_one_start_of_many_finds_is_taken_and_warned_of():
    """Residuals t^2 - 1 and (t - 1)/10: a valley at 1, and a higher one near -1, where all starts but one are."""

    def log_loss(theta_SP: np.ndarray, columns: object) -> tuple[np.ndarray, np.ndarray]:
        values = np.concatenate([theta_SP**2 - 1, (theta_SP - 1) / 10], axis=1)
        return values, np.stack([2 * theta_SP, np.full_like(theta_SP, 0.1)], axis=1)

    law = SimpleNamespace(PARAMETERS=("t",), BOUNDS=((-3.0, 3.0),), log_loss=log_loss)
    starts = np.concatenate([np.linspace(-1.5, -0.7, 20), [0.8]])[:, None]
    minimum = minimise(Objective(law, {}, np.zeros(2), 10.0), starts)
    assert minimum.theta_P[0] == pytest.approx(1.0, abs=1e-9)
    assert (minimum.agreed, minimum.followed) == (1, 21)
    assert "only 1 of the 21" in checks.agreement(minimum.agreed, minimum.followed)[0]


# --- 3: single precision


def test_3_points_of_single_precision_are_fitted_in_double_and_single_would_not_do():
    size, length = np.repeat(np.geomspace(1e7, 1e9, 8), 5), np.tile(np.geomspace(1e9, 1e11, 5), 8)
    truth = LAW.from_natural({"A": 400.0, "B": 1500.0, "E": 1.7, "alpha": 0.34, "beta": 0.36})
    columns = {"parameters": np.log(size), "tokens": np.log(length)}
    exact = LAW.log_loss(truth[None], columns)[0][0]
    single = {name: column.astype(np.float32) for name, column in columns.items()}
    rounded = LAW.log_loss(truth[None].astype(np.float32), single)[0][0]
    assert np.abs(rounded - exact).max() > 1e-7  # what the last digits of a converging fit are made of
    given = [column.astype(np.float32) for column in (size, length, np.exp(exact))]
    points = Points.of(*given, convention="chinchilla")
    fitted = fit("chinchilla", points, draws=0)
    twin = fit("chinchilla", Points.of(*(c.astype(np.float64) for c in given), convention="chinchilla"), draws=0)
    assert {getattr(points, name).dtype for name in ("parameters", "tokens", "loss")} == {np.dtype(np.float64)}
    assert fitted.theta == twin.theta
    np.testing.assert_allclose(fitted.theta, truth, rtol=1e-3)


# --- 4: Huber's delta


def test_4_above_the_noise_delta_is_least_squares_and_moves_the_allocation_and_the_fit_says_which():
    """N* ~ C^a: a is 0.4995 at the published delta and its threefold, 0.4948 from 0.03 on, 0.507 at a tenth."""
    fits = {delta: fit("chinchilla", POINTS, draws=0, delta=delta) for delta in (1e-4, 1e-3, 3e-3, 0.03, 1.0)}
    found = {}
    for delta, fitted in fits.items():
        natural = fitted.natural()
        found[delta] = natural["beta"] / (natural["alpha"] + natural["beta"])
        assert fitted.delta == delta
        assert any(f"sum of Huber's loss of ln L, delta {delta:g}" in line for line in fitted.lines())
    assert found[1e-3] == pytest.approx(found[3e-3], abs=1e-3)
    assert found[1e-4] == pytest.approx(found[1e-3], abs=0.01)
    assert found[0.03] == pytest.approx(found[1.0], abs=1e-6)
    assert abs(found[1.0] - found[1e-3]) > 0.004
    squares = np.sum((Objective.of(LAW, POINTS, 1.0).residual(np.array(fits[1.0].theta)[None])) ** 2) / 2
    assert fits[1.0].objective == pytest.approx(squares, rel=1e-9)


# --- 7: the initial guess returned


def test_7_a_fit_moves_from_each_of_its_starts_and_one_that_does_not_is_warned_of():
    starts = LAW.starts(OBJECTIVE.columns, OBJECTIVE.log_loss_R)
    found = minimise(OBJECTIVE, starts)
    assert found.value < 0.98 * OBJECTIVE.value(starts).min()
    assert np.abs(starts - found.theta_P).min() > 1e-6

    def without_slopes(theta_SP: np.ndarray, columns: object) -> tuple[np.ndarray, np.ndarray]:
        values, jacobian = LAW.log_loss(theta_SP, columns)
        return values, np.zeros_like(jacobian)

    broken = SimpleNamespace(PARAMETERS=LAW.PARAMETERS, BOUNDS=LAW.BOUNDS, log_loss=without_slopes)
    stuck = minimise(Objective(broken, OBJECTIVE.columns, OBJECTIVE.log_loss_R, OBJECTIVE.delta), starts)
    assert (np.abs(starts - stuck.theta_P).max(axis=1) == 0).any()
    assert checks.agreement(stuck.agreed, stuck.followed)


# --- 8: what is counted


def test_8_counting_without_embeddings_moves_the_exponents_so_a_fit_names_its_convention():
    """Models of width 128 upwards with a vocabulary of 32,000: their embeddings are half of the small ones."""
    total = np.repeat(np.geomspace(1e7, 1e9, 8), 5)
    inner = total - 32_000 * 128 * (total / 1e7) ** (1 / 3)
    length = total * np.tile(np.geomspace(5, 80, 5), 8)
    truth = LAW.from_natural({"A": 400.0, "B": 1500.0, "E": 1.7, "alpha": 0.34, "beta": 0.36})
    loss = np.exp(LAW.log_loss(truth[None], {"parameters": np.log(total), "tokens": np.log(length)})[0][0])
    whole = fit("chinchilla", Points.of(total, length, loss, convention="chinchilla"), draws=0)
    without = fit("chinchilla", Points.of(inner, length, loss, convention="kaplan"), draws=0)
    assert whole.natural()["alpha"] == pytest.approx(0.34, abs=1e-6)
    assert without.natural()["alpha"] < 0.31
    assert "N counted as chinchilla" in whole.lines()[0]
    assert "N counted as kaplan" in without.lines()[0]


# --- 9: runs and rows


def test_9_intervals_by_row_are_too_narrow_where_points_of_a_run_err_together():
    """Eight runs of five points each, whose errors are their run's: 30 such ladders, intervals at 80%.

    By run about 24 hold the planted exponent; by row the points seem to be five times as many as they are.
    """
    tokens = np.geomspace(1e7, 1e10, 8)
    random = np.random.default_rng(3)
    held = {"run": 0, "row": 0}
    for _ in range(30):
        common = np.repeat(0.01 * random.normal(size=8), 5)
        length = np.repeat(tokens, 5) * np.tile(np.geomspace(0.8, 1.25, 5), 8)
        loss = np.exp(3.0 - 0.1 * np.log(length) + common + 1e-3 * random.normal(size=40))
        for what, run in (("run", np.repeat(np.arange(8), 5)), ("row", np.arange(40))):
            points = Points.of(np.full(40, 1e9), length, loss, run=list(map(str, run)), convention="chinchilla")
            limits = fit("power_data", points, delta=1.0, draws=80, level=0.8).bootstrap_interval("beta")
            held[what] += limits.low <= 0.1 <= limits.high
    assert held["run"] >= 21
    assert held["row"] <= 16


# --- 11: what is not in the points


def test_11_an_input_that_is_the_same_in_all_points_is_warned_of():
    tokens = np.geomspace(1e8, 1e10, 12)
    points = Points.of(np.full(12, 1e8), tokens, 2 + 100 * tokens**-0.3, convention="kaplan")
    fitted = fit("chinchilla", points, draws=0)
    assert fitted.warnings[0] == "parameters is 1e+08 in all points: they do not show what the loss owes to it"
    assert not fitted.interval("alpha").identified
    assert not any("in all points" in text for text in fit("power_data_floor", points, draws=0).warnings)


def test_11_compute_of_one_budget_is_the_same_in_all_points_though_its_last_digits_differ():
    size = np.geomspace(1e7, 1.3e9, 20)
    points = Points.of(size, 7e19 / (6 * size), np.linspace(4, 3, 20), convention="chinchilla")
    assert 0 < np.ptp(points.flops) < 1e5
    (warning,) = checks.constant(points, ("parameters", "tokens", "flops"))
    assert warning.startswith("flops is 7e+19 in all points")
