"""The envelope of training curves: winners by hand, edges left out, curves that end too early."""

from __future__ import annotations

import numpy as np
import pytest

from lmwright.errors import ConfigError
from lmwright.scaling.frontier import along, estimate
from lmwright.scaling.points import Points, join


def curves(ends: dict[float, float], *, order: int = 1, **given: object) -> Points:
    """L = N^-0.5 + D^-0.5, whose best N and D are equal, along 200 points to `ends[N]` tokens a parameter."""
    columns: list[tuple[float, float, float, str]] = []
    for size, end in ends.items():
        for length in size * np.geomspace(0.02, end, 200)[::order]:
            columns.append((size, length, size**-0.5 + length**-0.5, f"{size:g}"))
    size, length, loss, run = zip(*columns, strict=True)
    return Points.of(size, length, loss, run=run, convention="chinchilla", **given)


SIZES = [1e6 * 2.0**step for step in range(9)]


def test_exponents_of_a_surface_with_equal_parts():
    found = estimate("envelope", curves(dict.fromkeys(SIZES, 60.0)), draws=0)
    assert found.exponents == pytest.approx((0.5, 0.5), abs=0.001)
    flops = 6 * 1.6e7**2
    assert found.parameters(flops) == pytest.approx(1.6e7, rel=0.05)
    assert found.tokens(flops) == pytest.approx(1.6e7, rel=0.05)
    assert [optimum.parameters for optimum in found.budgets] == pytest.approx(SIZES[1:-1])
    assert "left out: at an end of the sizes" in found.warnings[0]
    assert len(found.warnings) == 1


def test_neighbours_change_over_where_their_losses_meet():
    """Losses of N and 2N under one C are equal at D = 2N of the smaller, C = 12 N^2; of N and N/2 at C = 3 N^2."""
    found = estimate("envelope", curves(dict.fromkeys(SIZES, 60.0)), draws=0)
    for optimum in found.budgets:
        assert optimum.flops == pytest.approx(6 * optimum.parameters**2, rel=0.01)
        # Between D = N / 2 and 2N, in ln C: the mean of ln(N^-1/2 + D^-1/2) is a little above that at D = N.
        assert optimum.loss == pytest.approx(2 * optimum.parameters**-0.5, rel=0.01)


def test_a_curve_that_ends_while_the_best_is_named():
    ends = dict.fromkeys(SIZES, 60.0) | {SIZES[4]: 1.2}
    found = estimate("envelope", curves(ends), draws=0)
    assert found.warnings[-1].startswith(f"{SIZES[4]:g}: ended while the best")


def test_cut_schedules_and_the_order_of_rows_do_not_matter():
    plain = curves(dict.fromkeys(SIZES, 60.0))
    cut = curves(dict.fromkeys(SIZES, 60.0), order=-1, finished=[False] * len(plain))
    assert estimate("envelope", cut, draws=0).line == pytest.approx(estimate("envelope", plain, draws=0).line)


def test_several_runs_of_a_size_count_by_the_best():
    plain = curves(dict.fromkeys(SIZES, 60.0))
    worse = Points.of(
        np.tile(plain.parameters, 2),
        np.tile(plain.tokens, 2),
        np.concatenate([plain.loss, plain.loss * 1.05]),
        run=[*plain.run, *(f"{run} again" for run in plain.run)],
        convention="chinchilla",
    )
    assert estimate("envelope", worse, draws=0).line == pytest.approx(estimate("envelope", plain, draws=0).line)


def test_what_is_no_curve_or_shows_no_size_between_is_refused():
    with pytest.raises(ConfigError, match="fewer than two are the best"):
        estimate("envelope", curves(dict.fromkeys(SIZES[:3], 60.0)), draws=0)
    with pytest.raises(ConfigError, match="several sizes"):
        estimate("envelope", Points.of([1e6, 2e6], [1e7, 1e7], [3, 2.9], run=["a", "a"], convention="kaplan"))
    with pytest.raises(ConfigError, match="no run has two points"):
        estimate("envelope", Points.of([1e6, 2e6], [1e7, 1e7], [3, 2.9], convention="kaplan"))


def test_the_bootstrap_leaves_out_whole_runs():
    found = estimate("envelope", curves(dict.fromkeys(SIZES, 60.0)), draws=100)
    low, high = found.interval("a")
    assert low < 0.5 < high
    assert high - low > 0.02
    assert (along(found.line, 1e16)[0] > 0).all()


def test_curves_that_do_not_lie_beside_each_other_tell_no_best_size():
    """A ladder of equal tokens a parameter: at each C one size alone was measured, which is the best of itself."""
    columns = [(n, n * ratio) for n in SIZES for ratio in (10.0, 20.0, 35.0)]
    size, length = np.array(columns).T
    points = Points.of(
        size, length, size**-0.5 + length**-0.5, run=[f"{n:g}" for n in size], convention="chinchilla"
    )
    with pytest.raises(ConfigError, match="fewer than two are the best between others"):
        estimate("envelope", points, draws=0)


@pytest.mark.parametrize("last", SIZES[1:-1])
def test_where_no_run_is_a_curve_no_size_wins(last):
    """A single point at the least C: none is the best there, whichever is listed last."""
    plain = curves(dict.fromkeys([*(n for n in SIZES if n != last), last], 60.0))
    alone = Points.of([1e5], [1e5], [3.0], run=["alone"], convention="chinchilla")
    found = estimate("envelope", join([plain, alone]), draws=0)
    assert [optimum.parameters for optimum in found.budgets] == pytest.approx(SIZES[1:-1])
