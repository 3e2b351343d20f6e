"""The parts of a fit against closed forms, plain twins and planted faults of the data."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lmwright.errors import ConfigError
from lmwright.scaling import laws
from lmwright.scaling.fit import Fitted, checks, fit
from lmwright.scaling.fit.bootstrap import bootstrap, percentiles
from lmwright.scaling.fit.minimise import lowered, minimise, settle
from lmwright.scaling.fit.profile import Interval, profile, rise_scale
from lmwright.scaling.fit.robust import Objective, design_effect, huber, robust_scale
from lmwright.scaling.fit.students import student_quantile
from lmwright.scaling.points import Points

LAW = laws.load("chinchilla")
TRUTH = LAW.from_natural({"A": 400.0, "B": 1500.0, "E": 1.7, "alpha": 0.34, "beta": 0.36})


def ladder(noise: float = 0.0, seed: int = 0, common: float = 0.0, **changes: object) -> Points:
    """8 sizes of 5 lengths each, a run of each size; noise of ln L of each point, and common to a run."""
    random = np.random.default_rng(seed)
    size = np.repeat(np.geomspace(1e7, 1e9, 8), 5)
    length = size * np.tile(np.geomspace(5, 80, 5), 8)
    log_loss = LAW.log_loss(TRUTH[None], {"parameters": np.log(size), "tokens": np.log(length)})[0][0]
    log_loss = log_loss + noise * random.normal(size=40) + common * np.repeat(random.normal(size=8), 5)
    run = [f"size {index}" for index in range(8) for _ in range(5)]
    return Points.of(size, length, np.exp(log_loss), convention="chinchilla", **{"run": run, **changes})


def powers(noise: float, count: int = 30, seed: int = 1) -> Points:
    """A pure power law in tokens, beta 0.1."""
    tokens = np.geomspace(1e7, 1e10, count)
    log_loss = 3.0 - 0.1 * np.log(tokens) + noise * np.random.default_rng(seed).normal(size=count)
    return Points.of(np.full(count, 1e9), tokens, np.exp(log_loss), convention="chinchilla")


def nearby(count: int = 6) -> np.ndarray:
    return TRUTH * np.random.default_rng(5).uniform(0.98, 1.02, (count, 5))


# --- the objective


def test_huber_is_a_parabola_inside_and_a_line_outside():
    inside, outside = huber(np.array([0.0, 0.5, -1.0]), 1.0), huber(np.array([-2.0, 5.0]), 1.0)
    assert inside.tolist() == [0.0, 0.125, 0.5]
    assert outside.tolist() == [1.5, 4.5]


def test_the_objective_is_a_sum_over_rows_and_weights_count_rows():
    points = ladder(0.01)
    objective = Objective.of(LAW, points)
    weights = np.random.default_rng(3).integers(0, 4, size=40)
    repeated = Objective.of(LAW, points.take(np.repeat(np.arange(40), weights)))
    weights_SR = np.tile(weights.astype(float), (6, 1))
    plain = objective.value(nearby())
    np.testing.assert_allclose(
        Objective.of(LAW, points.take(np.tile(np.arange(40), 2))).value(nearby()), 2 * plain
    )
    np.testing.assert_allclose(objective.value(nearby(), weights_SR), repeated.value(nearby()), rtol=1e-12)
    for one, two in zip(objective.slopes(nearby(), weights_SR), repeated.slopes(nearby()), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(
        objective.hessian(nearby(), weights_SR), repeated.hessian(nearby()), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("delta", [1e-3, 1e-2, 1.0])
def test_slopes_are_those_of_the_value(delta):
    objective = Objective.of(LAW, ladder(0.01), delta)
    value, gradient, above = objective.slopes(nearby())
    smooth = np.abs(np.abs(objective.residual(nearby())) - delta).min(axis=1) > 3e-5
    assert smooth.sum() >= 3
    np.testing.assert_allclose(value, objective.value(nearby()), rtol=1e-13)
    for place in range(5):
        step = np.zeros(5)
        step[place] = 1e-6
        difference = (objective.value(nearby() + step) - objective.value(nearby() - step)) / 2e-6
        np.testing.assert_allclose(gradient[smooth, place], difference[smooth], rtol=1e-5, atol=1e-7)
    assert (np.linalg.eigvalsh(above)[:, 0] > -1e-12).all()


def test_second_derivatives_are_those_of_the_gradient_where_no_row_is_at_a_kink():
    objective = Objective.of(LAW, ladder(0.01), 1e-2)
    hessian = objective.hessian(nearby())
    near_kink = np.abs(np.abs(objective.residual(nearby())) - 1e-2).min(axis=1)
    smooth = near_kink > 2e-5
    assert smooth.sum() >= 3
    for place in range(5):
        step = np.zeros(5)
        step[place] = 5e-7
        ahead, behind = objective.slopes(nearby() + step)[1], objective.slopes(nearby() - step)[1]
        difference = (ahead - behind) / 1e-6
        np.testing.assert_allclose(hessian[smooth, place], difference[smooth], rtol=1e-5, atol=1e-6)


def test_second_derivatives_by_differences_are_those_that_the_law_gives():
    objective = Objective.of(LAW, ladder(0.01), 1e-2)
    without = SimpleNamespace(PARAMETERS=LAW.PARAMETERS, BOUNDS=LAW.BOUNDS, log_loss=LAW.log_loss)
    weights = np.random.default_rng(3).integers(0, 4, size=(6, 40)).astype(float)
    exact, differences = (one.hessian(nearby(), weights) for one in (objective, replace(objective, law=without)))
    np.testing.assert_allclose(exact, differences, rtol=1e-7, atol=1e-8)


def test_a_delta_that_is_none_is_refused():
    for delta in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="delta"):
            Objective.of(LAW, ladder(), delta)


# --- the noise


def test_the_scale_is_that_of_normal_noise_and_ignores_a_few_outliers():
    noise = 0.01 * np.random.default_rng(0).normal(size=20001)
    assert robust_scale(noise, 5, 1.0) == pytest.approx(0.01, rel=0.02)
    noise[:400] = 5.0
    assert robust_scale(noise, 5, 1.0) == pytest.approx(0.01, rel=0.05)
    assert robust_scale(np.array([-2.0, 1.0, 3.0, 4.0]), 2, 9.0) == pytest.approx(1.4826 * 2.5 * 2**0.5, rel=1e-4)
    # Two of them are what a fit of medians runs through.
    assert robust_scale(np.array([0.0, 0.0, 3.0, 4.0]), 2, 1e-3) == pytest.approx(1.4826 * 3.5, rel=1e-4)
    with pytest.raises(ConfigError, match="at least 6"):
        robust_scale(noise[:5], 5, 1e-3)


def test_the_design_effect_is_that_of_the_correlation_within_runs():
    random, runs = np.random.default_rng(0), np.repeat(np.arange(400), 5)
    alone = random.normal(size=2000)
    assert design_effect(alone, np.arange(2000)) == 1.0
    assert design_effect(alone, runs) == pytest.approx(1.0, abs=0.2)
    assert design_effect(np.repeat(random.normal(size=400), 5), runs) == pytest.approx(5.0)
    half = alone + np.repeat(random.normal(size=400), 5)
    assert design_effect(half, runs) == pytest.approx(1 + 4 * 0.5, rel=0.15)
    assert design_effect(np.tile([1.0, -1.0], 1000), np.repeat(np.arange(1000), 2)) == 1.0


@pytest.mark.parametrize(("delta", "scale"), [(1e-3, 1e-2), (1e-2, 1e-2), (1.0, 1e-2), (3e-2, 1e-2)])
def test_the_scale_of_a_rise_is_the_ratio_of_two_means(delta, scale):
    edges = np.linspace(-12, 12, 480001)
    density = np.exp(-0.5 * edges**2) / math.sqrt(2 * math.pi) * (edges[1] - edges[0])
    slope = np.clip(scale * edges, -delta, delta)
    inside = density[np.abs(scale * edges) <= delta].sum()
    assert rise_scale(delta, scale) == pytest.approx(inside / (density * slope**2).sum(), rel=1e-3)
    if delta == 1.0:
        assert rise_scale(delta, scale) == pytest.approx(scale**-2, rel=1e-12)


# --- the minimum


def test_a_planted_law_is_found_whatever_the_order_of_the_points():
    points = ladder(0.005)
    forward = fit("chinchilla", points, draws=0)
    backward = fit("chinchilla", points.take(np.arange(40)[::-1]), draws=0)
    np.testing.assert_allclose(forward.theta, backward.theta, rtol=1e-6)
    assert forward.objective == pytest.approx(backward.objective, rel=1e-10)


def test_least_squares_of_a_line_are_the_closed_form():
    points = powers(0.01)
    fitted = fit("power_data", points, delta=1.0, draws=0)
    slope, height = np.polyfit(points.log("tokens"), points.log("loss"), 1)
    assert fitted.theta == pytest.approx((height, -slope), rel=1e-9)


def test_one_point_that_is_wrong_moves_little():
    points = powers(0.002)
    loss = points.loss.copy()
    loss[10] *= 2
    wrong = Points.of(points.parameters, points.tokens, loss, convention="chinchilla")
    robust, squares = (
        abs(
            fit("power_data", wrong, delta=delta, draws=0).theta[1]
            - fit("power_data", points, delta=delta).theta[1]
        )
        for delta in (1e-3, 1.0)
    )
    assert robust < 3e-4 < 2e-3 < squares


def test_no_start_ends_above_where_it_began_or_beyond_a_bound():
    objective = Objective.of(LAW, ladder(0.02, seed=4))
    starts = LAW.starts(objective.columns, objective.log_loss_R)
    ends, value = settle(objective, starts, approach=5, polish=5)
    assert (value <= objective.value(starts)).all()
    np.testing.assert_allclose(value, objective.value(ends), rtol=1e-12)
    low, high = np.array(LAW.BOUNDS).T
    assert ((low <= ends) & (ends <= high)).all()


def test_a_coordinate_that_is_held_does_not_move_and_the_gradient_of_the_others_ends_at_zero():
    objective = Objective.of(LAW, ladder(0.02, seed=4), 1.0)
    free = np.ones((6, 5), dtype=bool)
    free[:, 3] = False
    starts = nearby()
    ends, _ = settle(objective, starts, approach=20, polish=40, free_SP=free)
    assert np.array_equal(ends[:, 3], starts[:, 3])
    _, gradient, above = objective.slopes(ends)
    scaled = gradient / np.sqrt(np.einsum("spp->sp", above))
    assert np.abs(scaled[:, [0, 1, 2, 4]]).max() < 1e-7
    assert np.abs(scaled[:, 3]).max() > 1e-5


def test_at_a_bound_the_other_coordinates_still_reach_their_minimum():
    """Losses fall as D^-3, the exponent is at most 2.5: the height is then the mean of what is left."""
    tokens = np.geomspace(1e7, 1e9, 12)
    points = Points.of(np.ones(12), tokens, (tokens / 1e6) ** -3.0, convention="kaplan")
    objective = Objective.of(laws.load("power_data"), points, 100.0)
    ends, _ = settle(objective, np.array([[35.0, 2.0], [30.0, 2.49]]), approach=12, polish=0)
    height = (points.log("loss") + 2.5 * points.log("tokens")).mean()
    np.testing.assert_allclose(ends, [[height, 2.5]] * 2, rtol=1e-9)


def test_starts_that_end_elsewhere_are_counted():
    """Three starts are frozen at a bound's corner, where every slope is nothing: they never get to the minimum."""
    objective = Objective.of(LAW, ladder(0.005))
    best = fit("chinchilla", ladder(0.005), draws=0)
    lost = np.array([200.0, -30.0, -7.0, 0.005, 2.5])
    starts = np.stack([np.array(best.theta), lost, lost, np.array(best.theta) + 1e-4])
    minimum = minimise(objective, starts)
    assert (minimum.starts, minimum.followed) == (4, 4)
    assert minimum.agreed == int((objective.value(minimum.ends_SP) <= minimum.value * (1 + 1e-6)).sum())
    assert minimum.value == pytest.approx(best.objective, rel=1e-9)


def test_a_law_without_a_finite_start_is_refused():
    objective = Objective.of(LAW, ladder())
    with pytest.raises(ConfigError, match="finite at none"):
        minimise(objective, np.full((3, 5), np.nan))


# --- intervals


def test_the_profile_of_least_squares_is_students_interval():
    points = powers(0.01)
    fitted = fit("power_data", points, delta=1.0, draws=0, level=0.9)
    design = np.stack([np.ones(30), -points.log("tokens")], axis=1)
    spread = fitted.scale * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    reach = student_quantile(0.95, round(0.37 * 28)) * spread
    for place in range(2):
        interval = fitted.profile[place]
        assert interval.low == pytest.approx(fitted.theta[place] - reach[place], abs=2e-3 * reach[place])
        assert interval.high == pytest.approx(fitted.theta[place] + reach[place], abs=2e-3 * reach[place])
        assert interval.identified


def test_at_the_ends_of_a_profile_the_refitted_objective_has_risen_as_allowed():
    objective = Objective.of(LAW, ladder(0.005))
    minimum = minimise(objective, LAW.starts(objective.columns, objective.log_loss_R))
    allowed = 0.1 * minimum.value
    found = profile(objective, minimum.theta_P, minimum.value, allowed, minimum.near_SP)
    assert found.lowest >= minimum.value * (1 - 1e-9)
    for place, interval in enumerate(found.intervals):
        for end in (interval.low, interval.high):
            starts = LAW.starts(objective.columns, objective.log_loss_R)
            starts[:, place] = end
            free = np.ones(starts.shape, dtype=bool)
            free[:, place] = False
            _, value = settle(objective, starts, approach=20, polish=40, free_SP=free)
            assert value.min() - minimum.value == pytest.approx(allowed, rel=0.01)


def test_a_profile_from_beside_the_minimum_tells_of_it():
    objective = Objective.of(LAW, ladder(0.005))
    best = minimise(objective, LAW.starts(objective.columns, objective.log_loss_R))
    beside = best.theta_P + np.array([0.0, 0.0, 0.005, 0.0, 0.0])
    found = profile(objective, beside, float(objective.value(beside[None])[0]), 0.1 * best.value, beside[None])
    assert found.lowest < objective.value(beside[None])[0] - 0.5 * best.value * 0.01


def two_valleys(tilt: float) -> Objective:
    """One coordinate t, residuals t^2 - 1 and tilt (t - 1): minima at 1 and, higher by the tilt, near -1."""

    def log_loss(theta_SP: np.ndarray, columns: object) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.concatenate([theta_SP**2 - 1, tilt * (theta_SP - 1)], axis=1),
            np.stack([2 * theta_SP, np.full_like(theta_SP, tilt)], axis=1),
        )

    law = SimpleNamespace(PARAMETERS=("t",), BOUNDS=((-3.0, 3.0),), log_loss=log_loss)
    return Objective(law, {}, np.zeros(2), 10.0)


def test_a_profile_reaches_into_another_valley_that_is_as_low():
    objective, optimum = two_valleys(0.0), np.array([1.0])
    ends = math.sqrt(1 - math.sqrt(0.2)), math.sqrt(1 + math.sqrt(0.2))
    (alone,) = profile(objective, optimum, 0.0, 0.1, optimum[None]).intervals
    assert (alone.low, alone.high) == pytest.approx(ends, abs=2e-3)
    (both,) = profile(objective, optimum, 0.0, 0.1, np.array([[1.0], [-0.9], [-1.0]])).intervals
    assert (both.low, both.high) == pytest.approx((-ends[1], ends[1]), abs=3e-3)
    (tilted,) = profile(two_valleys(0.5), optimum, 0.0, 0.1, np.array([[-1.0]])).intervals
    assert tilted.low > 0


def test_a_lower_minimum_takes_the_place_of_one_that_starts_agreed_on():
    objective = two_valleys(0.1)
    higher = minimise(objective, np.array([[-1.2], [-0.8]]))
    assert (higher.agreed, higher.theta_P[0]) == (2, pytest.approx(-1, abs=0.01))
    lower = lowered(objective, higher, np.array([0.9]))
    assert lower.theta_P[0] == pytest.approx(1, abs=1e-9)
    assert lower.value < 1e-18 < higher.value
    assert (lower.agreed, lower.followed) == (0, 2)


def test_runs_that_err_together_widen_the_profile():
    alone = fit("chinchilla", ladder(0.005, run=[str(row) for row in range(40)]), draws=0)
    assert alone.design_effect == 1.0
    together = fit("chinchilla", ladder(0.001, common=0.005), draws=0)
    apart = fit("chinchilla", ladder(0.001, common=0.005, run=[str(row) for row in range(40)]), draws=0)
    assert together.design_effect > 1.5
    assert any("points of a run err together (design effect" in text for text in together.warnings)
    assert not any("err together" in text for text in apart.warnings)
    assert (together.freedom, apart.freedom) == (7, 35)
    widths = [one.interval("beta").high - one.interval("beta").low for one in (together, apart)]
    assert widths[0] > 1.2 * widths[1]


def test_the_bootstrap_draws_runs_with_all_their_points():
    """Each draw is fitted as the drawn runs, physically repeated, are."""
    points = ladder(0.005)
    objective = Objective.of(LAW, points)
    starts = LAW.starts(objective.columns, objective.log_loss_R)
    _, clusters = points.clusters()
    best = minimise(objective, starts).theta_P
    theta, value = bootstrap(objective, best, starts, clusters, 6, np.random.default_rng(9))
    counts = np.random.default_rng(9).multinomial(8, np.full(8, 1 / 8), size=6)
    assert (counts.max(axis=1) > 1).all()
    for draw in range(6):
        rows = np.concatenate([np.tile(np.flatnonzero(clusters == run), counts[draw, run]) for run in range(8)])
        plain = Objective.of(LAW, points.take(rows))
        twin = minimise(plain, LAW.starts(plain.columns, plain.log_loss_R))
        assert value[draw] == pytest.approx(twin.value, rel=1e-6)
        assert plain.value(theta[draw : draw + 1])[0] == pytest.approx(value[draw], rel=1e-10)


def test_draws_do_not_depend_on_the_number_of_processors(monkeypatch):
    points = powers(0.01)
    fits = []
    for processors in ({0}, {0, 1, 2}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, found=processors: found)
        fits.append(fit("power_data", points, draws=150, seed=4))
    assert fits[0] == fits[1]
    assert fits[0].draws != fit("power_data", points, draws=150, seed=5).draws


def test_the_bootstrap_of_a_line_has_the_spread_of_its_slope():
    points = powers(0.01, count=200)
    fitted = fit("power_data", points, delta=1.0, draws=600)
    centred = points.log("tokens") - points.log("tokens").mean()
    expected = 0.01 / math.sqrt(float((centred**2).sum()))
    assert np.std(np.array(fitted.draws)[:, 1]) == pytest.approx(expected, rel=0.15)


def test_percentiles_are_those_of_a_wider_level_where_runs_are_few():
    values = np.arange(10001.0)[:, None]
    low, high = percentiles(values, 0.9, 10**4)
    assert (low[0], high[0]) == pytest.approx((500, 9500), abs=2)
    few_low, few_high = percentiles(values, 0.9, 7)
    assert few_low[0] < 300
    assert few_low[0] + few_high[0] == 10000
    assert np.isinf(percentiles(np.array([[0.0], [1.0], [np.inf], [np.inf]]), 0.9, 5)[1][0])


def test_a_bootstrap_of_one_run_is_refused():
    with pytest.raises(ConfigError, match="two runs"):
        fit("power_data", Points.of([1e9] * 4, [1, 2, 3, 4], [4, 3, 2, 1], run=["a"] * 4, convention="kaplan"))


# --- what a fit says


def test_a_parameter_that_the_data_do_not_identify_is_said_to_be_so():
    """All models have one size: A, alpha and E cannot be told apart."""
    tokens = ladder().tokens
    loss = (2 + 100 * tokens**-0.3) * np.exp(0.003 * np.random.default_rng(0).normal(size=40))
    flat = Points.of(np.full(40, 1e8), tokens, loss, convention="kaplan")
    fitted = fit("chinchilla", flat, draws=20)
    assert not fitted.interval("alpha").identified
    assert not fitted.interval("A").identified
    (line,) = (line for line in fitted.lines() if line.startswith("  alpha "))
    assert "is not identified" in line
    assert "[0.005, 2.5]" in line


def test_no_number_is_printed_without_an_interval():
    with_draws, without = (fit("power_data", powers(0.01), draws=draws) for draws in (50, 0))
    for fitted in (with_draws, without):
        for name, value in fitted.natural().items():
            (line,) = (line for line in fitted.lines() if line.startswith(f"  {name} "))
            assert ("[" in line) == (f"{value:.5g}" in line)
    assert any("D_c is not printed" in line for line in without.lines())
    assert with_draws.interval("D_c") == with_draws.bootstrap_interval("D_c")
    assert "chinchilla" in with_draws.lines()[0]
    assert "nats/token" in with_draws.lines()[0]


def test_a_fit_of_clean_points_has_no_warning():
    assert fit("chinchilla", ladder(0.003), draws=50).warnings == ()


def test_points_whose_schedule_was_cut_are_left_out_with_a_warning():
    points = ladder(0.003)
    cut = np.arange(40) % 5 == 2
    loss = np.where(cut, points.loss * 1.1, points.loss)
    marked = ladder(0.003, finished=~cut)
    marked = Points.of(
        marked.parameters, marked.tokens, loss, run=marked.run, finished=~cut, convention="chinchilla"
    )
    fitted, clean = fit("chinchilla", marked, draws=0), fit("chinchilla", points.take(~cut), draws=0)
    assert fitted.theta == clean.theta
    assert fitted.points == 32
    assert any("8 of 40 points are left out" in warning for warning in fitted.warnings)
    with pytest.raises(ConfigError, match="no point ran to its end"):
        fit("chinchilla", ladder(finished=np.zeros(40, dtype=bool)))


def test_an_exponent_at_its_bound_is_warned_of():
    tokens = np.geomspace(1e7, 1e9, 12)
    steep = Points.of(np.ones(12), tokens, (tokens / 1e6) ** -3.0, convention="kaplan")
    assert any("beta is at its upper bound 2.5" in text for text in fit("power_data", steep, draws=0).warnings)
    rising = Points.of(np.ones(12), tokens, 3 + 0.1 * np.log10(tokens), convention="kaplan")
    assert any("beta is at its lower bound" in text for text in fit("power_data", rising, draws=0).warnings)


def test_an_irreducible_loss_of_nothing_or_of_the_least_observed_is_warned_of():
    fitted = fit("power_data_floor", powers(0.0005), draws=0)
    assert any("E is next to zero" in text for text in fitted.warnings)
    assert fitted.interval("E").open_low
    tokens = np.geomspace(1e7, 1e10, 15)
    ended = Points.of(np.ones(15), tokens, 2 + (tokens / 1e7) ** -1.0, convention="kaplan")
    assert any("next to the least observed loss" in text for text in fit("power_data_floor", ended).warnings)


def test_few_agreeing_starts_and_unlike_intervals_are_warned_of():
    assert checks.agreement(8, 32) == ()
    assert "only 7 of the 32" in checks.agreement(7, 32)[0]
    narrow, wide = np.array([1.0, 1.0]), np.array([1.9, 2.1])
    assert "intervals of b by bootstrap" in checks.unlike(("a", "b"), narrow, wide)[0]
    assert checks.unlike(("a",), np.array([np.inf]), np.array([5.0])) == ()


def test_a_prediction_far_beyond_the_points_is_warned_of():
    fitted = fit("chinchilla", ladder(0.003), draws=30)
    most = fitted.largest["6ND"] / 6
    near = fitted.predict({"parameters": 1e9, "tokens": 29 * most / 1e9}, "chinchilla")
    far = fitted.predict({"parameters": 1e9, "tokens": [1e9, 31 * most / 1e9]}, "chinchilla")
    assert near.warnings == ()
    assert any("6ND" in text and "31 times beyond the largest fitted" in text for text in far.warnings)
    lopsided = fitted.predict({"parameters": 1e6, "tokens": 1000 * fitted.largest["tokens"]}, "chinchilla")
    assert [text.split(" is ")[0] for text in lopsided.warnings] == ["tokens 8e+13"]
    line = fit("power_data", powers(0.01), draws=30)
    assert "tokens 3.1e+11 is 31 times" in line.predict({"tokens": 3.1e11}, "chinchilla").warnings[0]


def test_a_prediction_is_of_the_law_and_wider_for_a_run_than_for_the_curve():
    fitted = fit("chinchilla", ladder(0.004, run=[str(row) for row in range(40)]), draws=300)
    asked = {"parameters": [1e8, 5e9], "tokens": [2e9, 1e11]}
    prediction = fitted.predict(asked, "chinchilla")
    natural = fitted.natural()
    for place in range(2):
        size, length = asked["parameters"][place], asked["tokens"][place]
        plain = natural["E"] + natural["A"] * size ** -natural["alpha"] + natural["B"] * length ** -natural["beta"]
        assert prediction.loss[place] == pytest.approx(plain, rel=1e-12)
    assert (prediction.low < prediction.curve_low).all()
    assert (prediction.curve_low < prediction.loss).all()
    assert (prediction.loss < prediction.curve_high).all()
    assert (prediction.curve_high < prediction.high).all()
    inside = np.log(prediction.high[0] / prediction.low[0])
    assert inside > 2 * 1.96 * fitted.scale


def test_predictions_that_cannot_be_made_are_refused():
    fitted = fit("chinchilla", ladder(0.003), draws=20)
    with pytest.raises(ConfigError, match="N is counted as kaplan, the law was fitted to chinchilla"):
        fitted.predict({"parameters": 1e8, "tokens": 1e9}, "kaplan")
    with pytest.raises(ConfigError, match="reads parameters, tokens"):
        fitted.predict({"tokens": 1e9}, "chinchilla")
    with pytest.raises(ConfigError, match="without bootstrap draws"):
        replace(fitted, draws=()).predict({"parameters": 1e8, "tokens": 1e9}, "chinchilla")
    with pytest.raises(ConfigError, match="has no 'gamma'"):
        fitted.interval("gamma")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": 1.0}, "level"),
        ({"draws": -1}, "draws"),
        ({"draws": 1}, r"draws 1; .*give 20 or more \(1000 is usual\), or 0 for none"),
        ({"draws": 19}, "draws 19; .*give 20 or more"),
        ({"delta": 0.0}, "delta"),
    ],
)
def test_settings_that_are_none_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        fit("chinchilla", ladder(0.003), **changes)


def test_too_few_points_and_unknown_laws_are_refused():
    with pytest.raises(ConfigError, match="5 points for 5 coordinates; give at least 6"):
        fit("chinchilla", ladder(0.003).take(np.arange(0, 40, 8)))
    with pytest.raises(ConfigError, match=r"did you mean chinchilla\?"):
        fit("chinchila", ladder())


def test_a_fit_is_saved_and_read_to_the_bit():
    fitted = fit("chinchilla", ladder(0.003), draws=20)
    text = fitted.to_json()
    again = Fitted.from_json(text, "fit.json")
    assert again == fitted
    assert isinstance(again.profile[0], Interval)
    assert again.lines() == fitted.lines()
    saved = json.loads(text)
    assert dict(zip(saved["coordinates"], saved["theta"], strict=True))["ln_B"] == fitted.theta[1]


def test_a_fit_knows_what_its_points_were_of():
    of = {
        "family": ["lstm", "", "llama", "lstm"] * 10,
        "domain": ["law", ""] * 20,
        "context": [1024, 0] * 19 + [0, 512],
    }
    fitted = fit("chinchilla", ladder(0.003, **of), draws=0)
    assert (fitted.families, fitted.domains, fitted.contexts) == (("llama", "lstm"), ("law",), (512, 1024))
    assert Fitted.from_json(fitted.to_json(), "fit.json") == fitted
    older = {
        key: value
        for key, value in json.loads(fitted.to_json()).items()
        if key not in ("families", "domains", "contexts")
    }
    assert Fitted.from_json(json.dumps(older), "fit.json").families == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta": [1.0]}, "the coordinates of law chinchilla are"),
        ({"coordinates": ["a", "b", "c", "d", "e"]}, "the coordinates of law chinchilla are"),
        ({"draws": [[1.0, 2.0]]}, "the coordinates of law chinchilla are"),
        ({"law": "none"}, "no 'none'"),
        ({"foreign": 1}, "foreign"),
        ({"convention": "other"}, "convention"),
        ({"draws": [[6.0, 7.0, 0.5, 0.3, 0.3]] * 19}, "number of draws is 19; must be 0, or 20 or more"),
        ({"largest": {}}, r"largest has the keys \(none\); law chinchilla has parameters, tokens, 6ND"),
        ({"largest": {"parameters": 1e9, "tokens": 1e9}}, "keys parameters, tokens; .* 6ND; fit it anew"),
        (
            {"largest": {"parameters": 1e9, "tokens": 0.0, "6ND": 1e19}},
            r"^fit\.json: largest\.tokens is 0\.0; must be positive and finite; fit the law anew$",
        ),
        ({"scale": -1}, "scale is -1.0; must be positive and finite"),
        ({"scale": 0.0}, "scale is 0.0; must be positive"),
        ({"scale": math.inf}, "scale"),
        ({"level": 1.0}, "level is 1.0; must lie between 0 and 1"),
        ({"level": 0.0}, "level is 0.0; must lie between 0 and 1"),
        ({"freedom": 0}, "freedom is 0; must be 1 or more"),
    ],
)
def test_a_damaged_fit_is_refused(change, message):
    saved = json.loads(fit("chinchilla", ladder(0.003), draws=20).to_json())
    with pytest.raises(ConfigError, match=message):
        Fitted.from_json(json.dumps({**saved, **change}), "fit.json")


@pytest.mark.parametrize("name", laws.names())
def test_a_fit_of_each_law_and_in_any_metric_is_read(name):
    fitted = fit(name, replace(ladder(0.003), metric="nats/word"), draws=0)
    assert Fitted.from_json(fitted.to_json(), "fit.json") == fitted


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "3"])
def test_what_is_no_fit_is_refused(text):
    with pytest.raises(ConfigError, match=r"fit\.json"):
        Fitted.from_json(text, "fit.json")


# --- what no ladder should look like


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, -math.inf, math.nan, 1e300, 1e-300])
def test_a_prediction_where_nothing_can_be_is_refused(wrong):
    fitted = fit("chinchilla", ladder(0.003), draws=20)
    for columns in ({"parameters": wrong, "tokens": 1e9}, {"parameters": [1e8, 1e8], "tokens": [1e9, wrong]}):
        with pytest.raises(ConfigError, match="must be positive and finite"):
            fitted.predict(columns, "chinchilla")


def test_a_prediction_of_what_is_no_number_is_refused():
    fitted = fit("power_data", powers(0.01), draws=20)
    with pytest.raises(ConfigError, match=r"^points: tokens 'a lot'; must be a number, or a list of them$"):
        fitted.predict({"tokens": "a lot"}, "chinchilla")


@pytest.mark.parametrize("name", laws.names())
def test_a_prediction_at_the_ends_of_what_can_be_is_a_number_with_a_warning(name):
    fitted = fit(name, ladder(0.003), draws=20)
    for value in (1e-6, 1e60):
        prediction = fitted.predict(dict.fromkeys(laws.load(name).INPUTS, value), "chinchilla")
        for column in (prediction.loss, prediction.low, prediction.high):
            assert np.isfinite(column).all()
    assert "beyond the largest fitted" in prediction.warnings[0]
    assert len(prediction.warnings[0]) < 200


@pytest.mark.parametrize("name", laws.names())
def test_losses_that_are_all_the_same_are_fitted_by_what_is_left_and_warned_of(name):
    flat = ladder(0.0)
    flat = Points.of(flat.parameters, flat.tokens, np.full(40, 3.0), convention="chinchilla")
    fitted = fit(name, flat, draws=20)
    if "ln_E" in fitted.coordinates:
        assert fitted.natural()["E"] == pytest.approx(3.0, rel=1e-4)
        assert any("next to the least observed loss" in text for text in fitted.warnings)
    else:
        assert any("lower bound 0.005" in text for text in fitted.warnings)


@pytest.mark.parametrize("name", ["chinchilla", "kaplan", "power_data", "power_compute_floor"])
def test_points_at_one_place_identify_no_exponent_and_are_warned_of(name):
    loss = 3.0 * np.exp(0.01 * np.random.default_rng(0).normal(size=12))
    fitted = fit(name, Points.of(np.full(12, 1e8), np.full(12, 1e9), loss, convention="chinchilla"), draws=20)
    exponents = [place for place in fitted.coordinates if not place.startswith("ln_")]
    assert exponents
    assert not any(fitted.interval(exponent).identified for exponent in exponents)
    assert sum("in all points" in text for text in fitted.warnings) == len(laws.load(name).INPUTS)


def test_points_taken_twice_give_the_same_law():
    points = ladder(0.005, run=[str(row) for row in range(40)])
    once, twice = (fit("chinchilla", part, draws=0) for part in (points, points.take(np.tile(np.arange(40), 2))))
    np.testing.assert_allclose(once.theta, twice.theta, rtol=1e-6)
    assert twice.objective == pytest.approx(2 * once.objective, rel=1e-9)


def test_two_points_are_too_few_for_any_law():
    for name in laws.names():
        with pytest.raises(ConfigError, match="2 points for"):
            fit(name, ladder().take([0, 39]), draws=0)


def test_many_points_are_first_fitted_by_a_part_of_them_and_in_parts(monkeypatch):
    """As 100,000 points are, but in smaller parts: three starts at a time, and ten rows first."""
    points = ladder(0.005)
    whole = fit("chinchilla", points, draws=20)
    monkeypatch.setattr("lmwright.scaling.fit.robust.AT_ONCE", 40 * 5 * 3)
    monkeypatch.setattr("lmwright.scaling.fit.bootstrap.WEIGHTS", 40 * 4 * 5)
    objective = Objective.of(LAW, points)
    weights = np.random.default_rng(3).integers(0, 4, size=(6, 40)).astype(float)
    in_parts = objective.value(nearby(), weights), objective.residual(nearby())
    parted = fit("chinchilla", points, draws=20)
    monkeypatch.undo()
    np.testing.assert_array_equal(in_parts[0], objective.value(nearby(), weights))
    np.testing.assert_array_equal(in_parts[1], objective.residual(nearby()))
    assert parted.theta == whole.theta
    np.testing.assert_allclose(parted.draws, whole.draws, rtol=1e-9)
    monkeypatch.setattr("lmwright.scaling.fit.estimate.ROWS", 10)
    thinned = fit("chinchilla", points, draws=0)
    np.testing.assert_allclose(thinned.theta, whole.theta, rtol=1e-6)
    few = objective.thinned(10, np.random.default_rng(0))
    assert few.log_loss_R.shape == few.columns["tokens"].shape == (10,)
    pairs = [set(zip(one.columns["tokens"], one.log_loss_R, strict=True)) for one in (few, objective)]
    assert pairs[0] < pairs[1]
    assert objective.thinned(40, np.random.default_rng(0)) is objective
