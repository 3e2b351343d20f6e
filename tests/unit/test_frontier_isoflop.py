"""Valleys and isoFLOP frontiers: exact parabolas, published biases, and what is left out or warned of."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from lmwright.errors import ConfigError
from lmwright.scaling import laws
from lmwright.scaling.frontier import along, estimate
from lmwright.scaling.frontier.isoflop import budgets
from lmwright.scaling.frontier.parametric import closed_form
from lmwright.scaling.points import Points
from lmwright.scaling.valley import bottom

LAW = laws.load("chinchilla")
HOFFMANN = np.array([6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083])
TRUE = closed_form(HOFFMANN)


def loss_of(size: np.ndarray, length: np.ndarray) -> np.ndarray:
    return np.exp(LAW.log_loss(HOFFMANN[None], {"parameters": np.log(size), "tokens": np.log(length)})[0][0])


def valley(
    flops: float, width: float, steps: int, centre: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = float(along(TRUE, flops)[0]) * centre * np.geomspace(1 / width, width, steps)
    length = flops / 6 / size
    return size, length, loss_of(size, length)


def points(*valleys: tuple[np.ndarray, np.ndarray, np.ndarray], **given: object) -> Points:
    return Points.of(
        *(np.concatenate(columns) for columns in zip(*valleys, strict=True)), convention="chinchilla", **given
    )


def test_an_exact_parabola_gives_its_bottom():
    log_x = np.log([1.0, 1.5, 2.0, 3.0, 3.5])
    found = bottom(log_x[::-1], (2.0 + 0.3 * (log_x - 0.75) ** 2)[::-1])
    assert (found.log_place, found.loss, found.curvature) == pytest.approx((0.75, 2.0, 0.6))
    assert (found.problem, found.notes) == (None, ())


def test_only_points_near_the_lowest_one_count():
    log_x = np.log(2.0) * np.arange(-6, 7)
    height = 1 + log_x**2
    far = np.abs(log_x) > np.log(4.1)
    assert bottom(log_x, np.where(far, height + 5 * log_x**4, height)).log_place == pytest.approx(0.0, abs=1e-12)
    # On a grid of threefold steps the neighbours alone are within fourfold.
    coarse = np.log(3.0) * np.arange(-3, 4)
    skewed = 1 + coarse**2 + 0.2 * np.where(np.abs(coarse) > 2, coarse, 0.0) ** 3
    assert bottom(coarse, skewed).log_place == pytest.approx(0.0, abs=1e-12)
    # Of equal places the mean counts, so a pair with opposite errors changes nothing.
    doubled = np.concatenate([log_x, log_x[[6]], log_x[[6]]])
    pair = np.concatenate([height, height[[6]] + 1e-3, height[[6]] - 1e-3])
    assert bottom(doubled, pair).log_place == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("height", "problem"),
    [
        ([1.0, 2.0, 3.0, 4.0], "first place"),
        ([4.0, 3.0, 2.0, 1.0], "last place"),
        ([2.0, 1.0], "needs three"),
        ([3.0, 3.0, 3.0], "first place"),
    ],
)
def test_a_bottom_at_the_edge_is_no_bottom(height, problem):
    found = bottom(np.arange(float(len(height))) / 2, np.array(height))
    assert problem in found.problem
    assert np.isnan(found.log_place)


def test_a_parabola_over_a_wide_grid_is_biased_as_published_and_the_local_one_is_not():
    """Czech et al. 2026: 0.3% at twofold and 4.1% at sixteenfold reach, on Chinchilla's surface."""
    for width, bias in ((2, 0.003), (16, 0.041)):
        size, _, loss = valley(1e20, width, 33)
        curve, slope, _ = np.polyfit(np.log(size / size[16]), loss, 2)
        wide = -slope / (2 * curve)
        assert abs(wide) == pytest.approx(bias, rel=0.15)
        local = bottom(np.log(size / size[16]), loss)
        assert abs(local.log_place) < 0.004
        assert local.notes == ()


def test_budgets_are_where_points_are_dense():
    flops = [1e18, 3e18, 1.1e18, 1e19, 0.95e18, 1.02e19, 0.98e19]
    assert budgets(np.log(flops)).tolist() == [0, -1, 0, 1, 0, 1, 1]
    assert budgets(np.log([1e18, 2e18])).tolist() == [-1, -1]


def test_budgets_by_sorting_are_those_of_all_pairs():
    """Against each pair compared, with rows in any order and many of equal compute."""
    random = np.random.default_rng(0)
    for rows in range(1, 80):
        log_flops = 40 + np.round(random.uniform(0, 0.03 * rows, rows), 2 + rows % 3)
        near = np.abs(log_flops[:, None] - log_flops) <= np.log(1.12)
        free, found = np.ones(rows, dtype=bool), []
        while (count := (near & free).sum(axis=1) * free).max() >= 3:
            found.append(near[count.argmax()] & free)
            free &= ~found[-1]
        wanted = np.full(rows, -1)
        for place, mask in enumerate(sorted(found, key=lambda mask: log_flops[mask].mean())):
            wanted[mask] = place
        assert budgets(log_flops).tolist() == wanted.tolist()


def test_budgets_of_many_rows_need_no_memory_for_their_pairs():
    log_flops = np.random.default_rng(0).uniform(30, 50, 20_000)
    tracemalloc.start()
    found = budgets(log_flops)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.max() > 50
    assert most < 50 * 2**20


def test_budgets_whose_optimum_is_at_an_edge_are_left_out_and_named():
    good = [valley(flops, 3, 7) for flops in (1e18, 1e19, 1e20, 1e21)]
    edge = valley(1e22, 3, 7, centre=9.0)
    clean, mixed = (estimate("isoflop", points(*valleys), draws=0) for valleys in (good, [*good, edge]))
    assert clean.warnings == ()
    assert mixed.line == pytest.approx(clean.line)
    assert len(mixed.budgets) == 4
    assert mixed.warnings == (
        "budget 1e+22 is left out: the least loss is at the first place: the optimum may lie beyond it",
    )
    with pytest.raises(ConfigError, match="1 of 2 budgets show the bottom"):
        estimate("isoflop", points(good[0], edge), draws=0)


def test_coarse_off_centre_and_few_are_warned_of():
    off = estimate(
        "isoflop", points(*(valley(flops, 8, 13, centre=5.0) for flops in (1e18, 1e19, 1e20, 1e21))), draws=0
    )
    assert all("off the centre" in text for text in off.warnings)
    assert len(off.warnings) == 4
    coarse = estimate("isoflop", points(*(valley(flops, 10, 3) for flops in (1e18, 1e19))), draws=0)
    assert sum("coarse" in text for text in coarse.warnings) == 2
    assert sum("2 budgets alone" in text for text in coarse.warnings) == 1


def test_points_whose_schedule_was_cut_are_left_out():
    parts = [valley(flops, 3, 7) for flops in (1e18, 1e19, 1e20, 1e21)]
    cut = tuple(column[:5] for column in valley(1e19, 3, 7))
    spoilt = (cut[0], cut[1], cut[2] + 0.2)
    finished = [True] * 28 + [False] * 5
    found = estimate("isoflop", points(*parts, spoilt, finished=finished), draws=0)
    assert found.line == pytest.approx(estimate("isoflop", points(*parts), draws=0).line)
    assert "5 of 33 points are left out" in found.warnings[0]


def test_draws_without_enough_budgets_are_counted():
    parts = [valley(flops, 3, 3) for flops in (1e18, 1e19)]
    found = estimate("isoflop", points(*parts), draws=200)
    assert len(found.draws) < 180
    assert f"{200 - len(found.draws)} of 200" in found.warnings[-1]


def test_where_the_outer_points_bend_the_other_way_the_three_lowest_tell_the_bottom() -> None:
    """Losses of a real sweep of learning rates: above the best one they level off."""
    log_x, loss = np.log([0.0103, 0.0206, 0.0412, 0.0824]), np.array([5.29, 5.11, 5.94, 6.02])
    found = bottom(log_x, loss)
    assert found.problem is None
    assert "only those three" in found.notes[0]
    # Through three places a step apart: x1 - step (c - a) / 2(a - 2b + c), and b - (c - a)^2 / 8(a - 2b + c).
    step, (a, b, c) = np.log(2), loss[:3]
    assert found.log_place == pytest.approx(log_x[1] - step * (c - a) / (2 * (a - 2 * b + c)))
    assert found.loss == pytest.approx(b - (c - a) ** 2 / (8 * (a - 2 * b + c)))
    assert found.curvature == pytest.approx((a - 2 * b + c) / step**2)
