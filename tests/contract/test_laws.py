"""What holds for every file in scaling/laws, present and future."""

from __future__ import annotations

import numpy as np
import pytest

from lmwright import seams
from lmwright.scaling import laws
from lmwright.scaling.fit import fit
from lmwright.scaling.points import NUMBERS, Points

NAMES = laws.names()


def grid(loss: np.ndarray | None = None) -> Points:
    """8 sizes by 5 lengths, a fifth of them with repeated tokens; losses that fall with both, unless given."""
    size, length = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 2e9, 8), np.geomspace(3e8, 1e11, 5)))
    unique = length / np.where(np.arange(40) % 5 == 0, 6.0, 1.0)
    if loss is None:
        loss = 1.7 + 400 * size**-0.34 + 1500 * length**-0.34
    return Points.of(size, length, loss, unique_tokens=unique, convention="chinchilla")


def inside(name: str, count: int, seed: int) -> np.ndarray:
    """Coordinates around those that a fit of `grid` starts from, and so of a size that matters."""
    law, points = laws.load(name), grid()
    starts = law.starts(points.logs(law.INPUTS), points.log("loss"))
    random = np.random.default_rng(seed)
    chosen = starts[random.integers(len(starts), size=count)]
    low, high = np.array(law.BOUNDS).T
    return np.clip(chosen * random.uniform(0.97, 1.03, chosen.shape), low + 0.01, high - 0.01)


def planted(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a law that bends within the grid as much as a start allows, and its losses there."""
    law, points = laws.load(name), grid()
    columns = points.logs(law.INPUTS)
    starts = law.starts(columns, points.log("loss"))
    values, _ = law.log_loss(starts, columns)
    best = starts[np.argsort(np.abs(values - points.log("loss")).sum(axis=1), kind="stable")[0]]
    return best, np.exp(law.log_loss(best[None], columns)[0][0])


@pytest.mark.parametrize("name", NAMES)
def test_a_law_says_what_it_reads_and_what_is_fitted(name):
    law = laws.load(name)
    assert law.INPUTS
    assert set(law.INPUTS) <= set(NUMBERS) - {"loss"}
    assert len(set(law.PARAMETERS)) == len(law.PARAMETERS) == len(law.BOUNDS)
    assert all(np.isfinite((low, high)).all() and low < high for low, high in law.BOUNDS)
    assert law is seams.load(laws.PACKAGE, name)


@pytest.mark.parametrize("name", NAMES)
def test_starts_are_finite_within_the_bounds_few_and_the_same_each_time(name):
    law, points = laws.load(name), grid()
    columns, log_loss = points.logs(law.INPUTS), points.log("loss")
    starts = law.starts(columns, log_loss)
    assert starts.dtype == np.float64
    assert starts.shape == (len(starts), len(law.PARAMETERS))
    assert 1 <= len(starts) <= 600
    low, high = np.array(law.BOUNDS).T
    assert ((low <= starts) & (starts <= high)).all()
    assert np.isfinite(law.log_loss(starts, columns)[0]).all()
    assert np.array_equal(starts, law.starts(columns, log_loss))


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_are_those_of_finite_differences(name):
    law, points = laws.load(name), grid()
    columns, theta = points.logs(law.INPUTS), inside(name, 25, seed=3)
    values, jacobian = law.log_loss(theta, columns)
    assert values.shape == (25, 40)
    assert jacobian.shape == (25, 40, len(law.PARAMETERS))
    for place in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, place] = 2e-5
        exact, differences = jacobian[:, :, place], []
        for size in (1, 2):
            (ahead, ahead_SRP), (behind, behind_SRP) = (
                law.log_loss(theta + sign * size * step, columns) for sign in (1, -1)
            )
            differences.append((ahead - behind) / (4e-5 * size))
        # Richardson's combination of two central differences: its error is of the fourth order.
        error = np.abs((4 * differences[0] - differences[1]) / 3 - exact) / (1 + np.abs(exact))
        assert (error < 1e-8).mean() >= 0.99
        # Where a law switches between two forms within the steps, its slope jumps, and the difference with it.
        jump = np.abs(ahead_SRP[:, :, place] - 2 * exact + behind_SRP[:, :, place])
        assert (error < 1e-8 + jump).all()


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(laws.load(name), "curvature")])
def test_second_derivatives_that_a_law_gives_are_those_of_differences(name):
    law, points = laws.load(name), grid()
    columns, theta = points.logs(law.INPUTS), inside(name, 12, seed=6)
    slope = np.random.default_rng(7).normal(size=(12, 40))
    found = law.curvature(law.log_loss(theta, columns)[1], columns, slope)
    for place in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, place] = 1e-5
        ahead, behind = (law.log_loss(theta + sign * step, columns)[1] for sign in (1, -1))
        expected = np.einsum("sr,srp->sp", slope, ahead - behind) / 2e-5
        np.testing.assert_allclose(found[:, place], expected, atol=1e-6 * (1 + np.abs(found).max()))


@pytest.mark.parametrize("name", NAMES)
def test_many_at_once_are_each_alone(name):
    law, points = laws.load(name), grid()
    columns, theta = points.logs(law.INPUTS), inside(name, 6, seed=4)
    values, jacobian = law.log_loss(theta, columns)
    for index in range(len(theta)):
        value, slope = law.log_loss(theta[index : index + 1], columns)
        np.testing.assert_allclose(value[0], values[index], rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(slope[0], jacobian[index], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_natural_numbers_are_finite_and_lead_back_to_the_coordinates(name):
    law = laws.load(name)
    for theta in inside(name, 5, seed=5):
        natural = law.natural(theta)
        assert natural
        assert np.isfinite(list(natural.values())).all()
        for place, coordinate in enumerate(law.PARAMETERS):
            if coordinate in natural:
                assert natural[coordinate] == theta[place]
            elif coordinate.removeprefix("ln_") in natural:
                assert np.log(natural[coordinate.removeprefix("ln_")]) == pytest.approx(theta[place], rel=1e-12)
        if hasattr(law, "from_natural"):
            np.testing.assert_allclose(law.from_natural(natural), theta, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_law_without_noise_is_found_again(name):
    theta, loss = planted(name)
    fitted = fit(name, grid(loss), draws=0)
    np.testing.assert_allclose(fitted.theta, theta, rtol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_law_with_noise_lies_within_the_intervals(name):
    theta, loss = planted(name)
    noise = np.random.default_rng(11).normal(size=40) * 2e-3
    fitted = fit(name, grid(loss * np.exp(noise)), draws=60, level=0.999)
    for place, coordinate in enumerate(fitted.coordinates):
        interval = fitted.interval(coordinate)
        assert interval.low <= theta[place] <= interval.high, coordinate
    assert fitted.scale == pytest.approx(2e-3, rel=0.5)
    prediction = fitted.predict(
        {name: getattr(grid(), name)[-3:] for name in laws.load(name).INPUTS}, "chinchilla"
    )
    assert (prediction.curve_low <= loss[-3:]).all()
    assert (loss[-3:] <= prediction.curve_high).all()
