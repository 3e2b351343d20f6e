"""Next runs from draws: against the posterior of a straight law, which draws are made of, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmwright.errors import ConfigError
from lmwright.scaling import laws
from lmwright.scaling.planning.from_draws import next_runs

THETA = np.array([math.log(400.0), math.log(2000.0), math.log(1.8), 0.34, 0.36])
SCALE = 1e-5  # so small that the law is straight where the draws lie
MIDDLE = 0.759  # of the variance of a normal is that of its middle 95%
SIZE, LENGTH = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e6, 1e8, 6), np.geomspace(1e8, 1e10, 6)))
MEASURED = {"parameters": SIZE, "tokens": LENGTH}
CANDIDATES = {"parameters": [2e6, 3e8, 1e7, 1e8], "tokens": [1e8, 3e9, 3e10, 2e8]}
TARGET = {"parameters": [1e9], "tokens": [2e10]}


def jacobian(law: str, theta: np.ndarray, columns) -> np.ndarray:
    logs = {name: np.log(np.array(column)) for name, column in columns.items()}
    return laws.load(law).log_loss(theta[None], logs)[1][0]


def covariance(law: str, rows: np.ndarray, scale: float) -> np.ndarray:
    """Return (sum of j j^T / s^2 + W)^-1: points of noise s, coordinates uniform within their bounds before."""
    width = np.array([high - low for low, high in laws.load(law).BOUNDS])
    return np.linalg.inv(rows.T @ rows / scale**2 + np.diag(12 / width**2))


def draws(law: str, theta: np.ndarray, columns, scale: float, count: int = 40_000) -> np.ndarray:
    found = covariance(law, jacobian(law, theta, columns), scale)
    return np.random.default_rng(0).multivariate_normal(theta, found, size=count, method="cholesky")


def by_points(count: int) -> list[tuple[int, float, float]]:
    """Return row, spread before and after of each choice: the least spread of all left, by brute force."""
    known, offered = (jacobian("chinchilla", THETA, part) for part in (MEASURED, CANDIDATES))
    [goal] = jacobian("chinchilla", THETA, TARGET)

    def spread(taken: list[int]) -> float:
        found = covariance("chinchilla", np.vstack([known, offered[taken]]), SCALE)
        return float(np.sqrt(goal @ found @ goal))

    chosen, taken = [], []
    for _ in range(count):
        left = [row for row in range(len(offered)) if row not in taken]
        best = min(left, key=lambda row: spread([*taken, row]))
        chosen.append((best, spread(taken), spread([*taken, best])))
        taken = [*taken, best]
    return chosen


def test_draws_choose_as_points_do_where_the_law_is_straight():
    wanted = by_points(3)
    found = next_runs(
        "chinchilla", draws("chinchilla", THETA, MEASURED, SCALE), CANDIDATES, TARGET, scale=SCALE, count=3
    )
    assert [one.row for one in found] == [row for row, _, _ in wanted]
    assert found[0].before == pytest.approx(math.sqrt(MIDDLE) * wanted[0][1], rel=0.03)
    for one, (_, _, after) in zip(found, wanted, strict=True):
        assert 0.85 * after < one.after < 1.05 * after
        assert one.gain == pytest.approx(2 * math.log(one.before / one.after))


def test_of_a_power_law_the_ends_are_chosen():
    """ln L = ln B - beta ln D is a line: its slope is known best from points at both ends."""
    theta, middle = np.array([3.0, 0.1]), {"tokens": [1e8, 1.1e8]}
    drawn = draws("power_data", theta, middle, 1e-2, 4000)
    lengths = {"tokens": np.geomspace(1e7, 1e9, 9)}
    found = next_runs("power_data", drawn, lengths, {"tokens": [1e11]}, scale=1e-2, count=2)
    assert {one.row for one in found} == {0, 8}


def test_a_run_as_noisy_as_it_is_unsure_halves_the_variance():
    """The target itself may be run: with K = s^2 what is left is K - K^2 / 2K."""
    theta = np.array([3.0, 0.0])
    drawn = theta + np.random.default_rng(1).normal(size=(4000, 1)) * np.array([[0.02, 0.0]])
    [one] = next_runs("power_data", drawn, {"tokens": [1e9]}, {"tokens": [1e9]}, scale=0.02 * math.sqrt(MIDDLE))
    assert one.before == pytest.approx(0.02 * math.sqrt(MIDDLE), rel=0.05)
    assert one.after / one.before == pytest.approx(math.sqrt(0.5), rel=0.03)


def test_fewer_candidates_than_asked_are_all_returned_each_after_the_last():
    few = {name: column[:2] for name, column in CANDIDATES.items()}
    drawn = draws("chinchilla", THETA, MEASURED, SCALE, 400)
    one, two = next_runs("chinchilla", drawn, few, TARGET, scale=SCALE, count=9)
    assert {one.row, two.row} == {0, 1}
    assert two.before == one.after


def test_what_is_no_design_is_refused():
    drawn = draws("chinchilla", THETA, MEASURED, SCALE, 100)
    for given in ({"scale": 0.0}, {"scale": float("nan")}, {"scale": 1.0, "count": 0}):
        with pytest.raises(ConfigError, match="design: 100 draws, scale"):
            next_runs("chinchilla", drawn, CANDIDATES, TARGET, **given)
    with pytest.raises(ConfigError, match=r"design: 5 draws.*give 20 draws or more"):
        next_runs("chinchilla", drawn[:5], CANDIDATES, TARGET, scale=SCALE)
    with pytest.raises(ConfigError, match="law chinchilla reads parameters, tokens"):
        next_runs("chinchilla", drawn, {"tokens": [1e9]}, TARGET, scale=SCALE)
    with pytest.raises(ConfigError, match="4 targets"):
        next_runs("chinchilla", drawn, CANDIDATES, CANDIDATES, scale=SCALE)
