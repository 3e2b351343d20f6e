"""Approach 3 against published tables, and the 1-D optimum against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from lmwright.errors import ConfigError
from lmwright.scaling import laws
from lmwright.scaling.fit import fit
from lmwright.scaling.frontier import along, estimate, parametric
from lmwright.scaling.frontier.parametric import best, closed_form
from lmwright.scaling.points import Points

CHINCHILLA = laws.load("chinchilla")
# Coordinates as in the TeX source of Hoffmann et al. 2022.
HOFFMANN = np.array([6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083])
# Besiroglu et al. 2024, arXiv:2404.10102.
BESIROGLU = CHINCHILLA.from_natural({"A": 482.01, "B": 2085.43, "E": 1.8169, "alpha": 0.3478, "beta": 0.3658})


def test_exponents_and_the_ratio_of_the_replication():
    assert closed_form(HOFFMANN)[1] == pytest.approx(0.4565, abs=5e-5)
    line = closed_form(BESIROGLU)
    assert line[1] == pytest.approx(0.513, abs=5e-4)
    parameters, tokens = along(line, 5.76e23)
    assert 18 < tokens / parameters < 26


def test_rounding_the_constants_moves_the_ratio_as_measured():
    rounded = CHINCHILLA.from_natural({"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28})
    ratio = [float(np.divide(*along(closed_form(theta), 5.76e23)[::-1])) for theta in (HOFFMANN, rounded)]
    assert ratio == pytest.approx([58.9, 92.7], abs=0.1)


@pytest.mark.parametrize("theta", [HOFFMANN, BESIROGLU])
@pytest.mark.parametrize("flops", [1e15, 1e19, 5.76e23, 1e27])
def test_the_line_spends_the_budget_and_is_the_one_dimensional_optimum(theta, flops):
    parameters, tokens = along(closed_form(theta), flops)
    assert 6 * parameters * tokens == pytest.approx(flops, rel=1e-12)
    found = best(CHINCHILLA, theta, flops)
    assert found.parameters == pytest.approx(float(parameters), rel=1e-10)
    assert found.tokens == pytest.approx(float(tokens), rel=1e-10)
    columns = {"parameters": np.log([float(parameters)]), "tokens": np.log([float(tokens)])}
    assert found.loss == pytest.approx(
        float(np.exp(CHINCHILLA.log_loss(theta[None], columns)[0][0, 0])), rel=1e-15
    )


def test_with_equal_exponents_and_coefficients_half_goes_to_each():
    theta = CHINCHILLA.from_natural({"A": 400.0, "B": 400.0, "E": 1.5, "alpha": 0.3, "beta": 0.3})
    found = best(CHINCHILLA, theta, 6e20)
    assert found.parameters == pytest.approx(1e10, rel=1e-11)
    assert found.tokens == pytest.approx(1e10, rel=1e-11)


def test_exact_flops_move_the_optimum_as_a_search_over_models_says():
    """6N + attention that grows as N^(1/3) x T: every size of a fine grid, by its loss."""

    def exact(parameters):
        return 6 * parameters + 5e4 * parameters ** (1 / 3) * 64

    flops = 1e17
    sizes = np.geomspace(1e5, 1e9, 2_000_001)
    columns = {"parameters": np.log(sizes), "tokens": np.log(flops / exact(sizes))}
    losses = CHINCHILLA.log_loss(BESIROGLU[None], columns)[0][0]
    found = best(CHINCHILLA, BESIROGLU, flops, per_token=exact)
    assert found.parameters == pytest.approx(sizes[losses.argmin()], rel=2e-5)
    assert np.log(found.loss) <= losses.min() + 1e-15
    assert found.tokens * exact(found.parameters) == pytest.approx(flops, rel=1e-12)


def test_tokens_to_be_read_make_models_smaller_and_are_paid_for():
    plain = best(CHINCHILLA, BESIROGLU, 1e21)
    read = best(CHINCHILLA, BESIROGLU, 1e21, inference_tokens=1e11)
    assert read.parameters < plain.parameters
    assert 6 * read.parameters * read.tokens + 2 * read.parameters * 1e11 == pytest.approx(1e21, rel=1e-12)
    assert read.loss > plain.loss
    # Where the slope of ln L by ln N is zero: alpha A / N^alpha = beta B / D^beta (D + T/3) / D.
    values = CHINCHILLA.natural(BESIROGLU)
    left = values["alpha"] * values["A"] / read.parameters ** values["alpha"]
    right = values["beta"] * values["B"] / read.tokens ** values["beta"] * (1 + 1e11 / 3 / read.tokens)
    assert left == pytest.approx(right, rel=1e-10)


DATA_BOUND = {
    "A": 521.0,
    "B": 1488.0,
    "E": 1.87,
    "alpha": 0.353,
    "beta": 0.353,
    "R_D_star": 15.39,
    "R_N_star": 5.31,
}


def test_repeated_data_by_brute_force_and_not_where_nothing_repeats():
    law = laws.load("data_constrained")
    theta = law.from_natural(DATA_BOUND)
    for flops, unique in ((1e19, 1e12), (1e19, 1e8), (1e21, 1e9), (1e19, 9.1e8)):
        found = best(law, theta, flops, unique_tokens=unique)
        sizes = np.geomspace(1e6, 1e12, 1_000_001)
        tokens = flops / 6 / sizes
        columns = {"parameters": sizes, "tokens": tokens, "unique_tokens": np.minimum(tokens, unique)}
        losses = law.log_loss(theta[None], {name: np.log(column) for name, column in columns.items()})[0][0]
        assert found.parameters == pytest.approx(sizes[losses.argmin()], rel=5e-5), (flops, unique)
        assert np.log(found.loss) <= losses.min() + 1e-14
    free = CHINCHILLA.from_natural({name: DATA_BOUND[name] for name in ("A", "B", "E", "alpha", "beta")})
    plain = best(CHINCHILLA, free, 1e19)
    # N_opt(U), where this law bends, is the optimum itself here; so heights alone decide, to half the digits.
    for unique in (None, 1e12):
        found = best(law, theta, 1e19, unique_tokens=unique)
        assert found.parameters == pytest.approx(plain.parameters, rel=1e-6)
        assert found.loss == pytest.approx(plain.loss, rel=1e-14)


def test_what_cannot_be_allocated_is_refused():
    for law, given, says in (
        ("power_data", {}, "reads tokens"),
        ("chinchilla", {"inference_tokens": 1e40}, "does not pay"),
        ("chinchilla", {"inference_tokens": -1.0}, "positive budget"),
        ("chinchilla", {"unique_tokens": 0.0}, "unique"),
    ):
        theta = HOFFMANN if law == "chinchilla" else np.array([3.0, 0.1])
        with pytest.raises(ConfigError, match=says):
            best(laws.load(law), theta, 1e18, **given)
    with pytest.raises(ConfigError, match="positive budget"):
        best(CHINCHILLA, HOFFMANN, float("nan"))
    never = CHINCHILLA.from_natural({"A": 1e-12, "B": 1e9, "E": 1.0, "alpha": 0.3, "beta": 0.3})
    with pytest.raises(ConfigError, match="no model is the best"):
        best(CHINCHILLA, never, 1e15)


def planted(noise: float = 0.0) -> Points:
    size, length = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 2e9, 8), np.geomspace(3e8, 1e11, 6)))
    columns = {"parameters": np.log(size), "tokens": np.log(length)}
    loss = np.exp(CHINCHILLA.log_loss(BESIROGLU[None], columns)[0][0])
    loss = loss * np.exp(noise * np.random.default_rng(3).normal(size=len(loss)))
    return Points.of(size, length, loss, convention="chinchilla")


def test_a_fit_gives_its_frontier_with_intervals():
    exact = estimate("parametric", planted(), draws=0)
    assert exact.line == pytest.approx(closed_form(BESIROGLU), rel=1e-6)
    frontier = estimate("parametric", planted(2e-3), draws=80, level=0.95)
    true = closed_form(BESIROGLU)
    for place, name in enumerate(("ln_k", "a", "ln_k_tokens", "b")):
        low, high = frontier.interval(name)
        assert low < frontier.line[place] < high
        assert low < true[place] < high
    assert sum(frontier.exponents) == pytest.approx(1.0)
    (low_n, high_n), (low_d, high_d) = frontier.band([1e20, 1e22])
    assert (low_n < along(true, [1e20, 1e22])[0]).all()
    assert (along(true, [1e20, 1e22])[0] < high_n).all()
    assert (low_d < frontier.tokens([1e20, 1e22])).all()
    assert (frontier.parameters([1e20, 1e22]) < high_n).all()
    assert (high_d / low_d < 10).all()
    assert (frontier.approach, frontier.convention, frontier.largest) == (
        "parametric",
        "chinchilla",
        6 * 2e9 * 1e11,
    )
    with pytest.raises(ConfigError, match="without bootstrap draws"):
        exact.interval("a")
    with pytest.raises(ConfigError, match="no number 'alpha'"):
        frontier.interval("alpha")


def test_only_a_law_with_a_closed_form_gives_a_line():
    with pytest.raises(ConfigError, match="does not say how a budget is divided"):
        parametric.of_fitted(fit("power_data", planted(2e-3), draws=0))
