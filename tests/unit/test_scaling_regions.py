"""The three regions of a learning curve: planted ones are found where they are, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from lmwright.errors import ConfigError
from lmwright.scaling import regions
from lmwright.scaling.points import Points
from lmwright.scaling.regions import Regions, find, of_points

TOKENS = np.geomspace(1e3, 1e9, 25)


def curve(small: float = np.inf, floor: float = 0.0) -> np.ndarray:
    """40 D^-0.2 between two plateaus; without any, from 10 down to 0.63."""
    return np.clip(40.0 * TOKENS**-0.2, floor, small)


@pytest.mark.parametrize(
    ("small", "floor"),
    [(np.inf, 0.0), (6.0, 0.0), (np.inf, 1.5), (6.0, 1.5)],
    ids=["none", "small", "floor", "both"],
)
@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_planted_regions_are_found(small: float, floor: float, noise: float) -> None:
    random = np.random.default_rng(0)
    order = random.permutation(len(TOKENS))
    loss = curve(small, floor) * np.exp(noise * random.standard_normal(len(TOKENS)))
    found = find(TOKENS[order], loss[order])
    close = {"rel": 1e-9} if noise == 0.0 else {"rel": 0.05}
    assert found.exponent == pytest.approx(0.2, **close)
    assert found.ln_A == pytest.approx(np.log(40.0), **close)
    for given, seen, place in ((small, found.small, found.begin), (floor, found.floor, found.end)):
        if given in (0.0, np.inf):
            assert seen is None
            assert place is None
        else:
            assert seen == pytest.approx(given, **close)
            assert place == pytest.approx((40.0 / given) ** 5, rel=1e-6 if noise == 0.0 else 0.25)
    low, high = found.exponent_interval
    assert low <= found.exponent <= high
    assert found.loss(TOKENS) == pytest.approx(curve(small, floor), rel=1e-6 if noise == 0.0 else 0.02)


def test_a_place_is_told_its_region() -> None:
    found = find(TOKENS, curve(6.0, 1.5))
    begin, end = (40 / 6.0) ** 5, (40 / 1.5) ** 5
    assert [found.region(place) for place in (begin / 1.01, begin * 1.01, end / 1.01, end * 1.01)] == [
        "small data",
        "power law",
        "power law",
        "irreducible",
    ]
    alone = Regions(
        ln_A=1.0, exponent=0.1, exponent_interval=(0.1, 0.1), small=None, floor=None, begin=None, end=None,
        spread=0.0,
    )  # fmt: skip
    assert alone.region(1.0) == alone.region(1e30) == "power law"


def test_noise_alone_makes_no_plateau() -> None:
    """At most one very noisy curve in five is seen to have a region that it has not; unpenalised, half are."""
    random = np.random.default_rng(1)
    seen = [find(TOKENS, curve() * np.exp(0.2 * random.standard_normal(len(TOKENS)))) for _ in range(100)]
    assert sum(one.small is not None or one.floor is not None for one in seen) <= 20


def test_the_best_of_all_parts_is_chosen() -> None:
    """Against a plain search over a grid of plateaus and lines, which no criterion guides."""
    random = np.random.default_rng(2)
    loss = curve(6.0, 1.5) * np.exp(0.02 * random.standard_normal(len(TOKENS)))
    found = find(TOKENS, loss)
    best = min(
        float(((np.log(np.clip(a * TOKENS**-b, floor, small)) - np.log(loss)) ** 2).sum())
        for a in np.linspace(30, 50, 21)
        for b in np.linspace(0.18, 0.22, 21)
        for small in np.linspace(5.8, 6.2, 9)
        for floor in np.linspace(1.45, 1.55, 9)
    )
    assert found.spread**2 * len(TOKENS) <= best * 1.001


@pytest.mark.parametrize(
    ("tokens", "loss", "message"),
    [
        ([1e3, 1e4, 1e5, 1e5], [4, 3, 2, 2], "3 different numbers"),
        ([1e3, 1e4, 1e5, 1e6], [1, 2, 3, 4], "not fall"),
    ],
)
def test_what_has_no_regions_is_refused(tokens: list[float], loss: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(np.array(tokens), np.array(loss))


def test_the_interval_of_the_exponent_holds_at_its_rate() -> None:
    """Of 400 lines of six points with noise, 95% of the intervals hold the planted slope, but for three errors."""
    random = np.random.default_rng(4)
    tokens = np.geomspace(1e4, 1e6, 6)
    noisy = (40 * tokens**-0.2 * np.exp(0.001 * random.standard_normal(6)) for _ in range(400))
    lines = [one for one in (find(tokens, loss) for loss in noisy) if one.small is None and one.floor is None]
    held = np.mean([one.exponent_interval[0] < 0.2 < one.exponent_interval[1] for one in lines])
    assert len(lines) > 200
    assert held == pytest.approx(0.95, abs=3 * np.sqrt(0.05 * 0.95 / len(lines)))


def test_a_long_curve_is_parted_at_evenly_chosen_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 numbers of tokens in any order: as many ways are tried as for 200, and the planted curve is found."""
    random, tried, parted = np.random.default_rng(3), [], regions._parted
    tokens = np.geomspace(1e3, 1e9, 20_000)
    loss = np.clip(40.0 * tokens**-0.2, 1.5, 6.0) * np.exp(0.005 * random.standard_normal(20_000))
    order = random.permutation(20_000)
    monkeypatch.setattr(regions, "_parted", lambda log_d, *rest: tried.append(len(log_d)) or parted(log_d, *rest))
    found = find(tokens[order], loss[order])
    assert set(tried) == {200}
    assert len(tried) <= 200**2 / 2
    assert found == find(tokens, loss), "the choice does not depend on the order"
    assert found.exponent == pytest.approx(0.2, abs=0.01)
    assert (found.small, found.floor) == pytest.approx((6.0, 1.5), rel=0.01)


def test_a_place_that_was_run_often_does_not_crowd_out_the_others() -> None:
    tokens = np.concatenate([np.full(5000, 1e4), np.full(60, 1e5), [1e6, 1e7, 1e8]])
    found = find(tokens, 40 * tokens**-0.2)
    assert found.exponent == pytest.approx(0.2)
    few = find(np.repeat(TOKENS, 8), np.repeat(curve(6.0, 1.5), 8))
    assert (few.small, few.floor) == pytest.approx((6.0, 1.5)), "200 rows are all looked at"


def test_lengths_are_counted_per_size_by_a_window() -> None:
    """Against each pair of rows compared; 200,000 sizes are counted without their pairs."""
    random = np.random.default_rng(0)
    log_n, tokens = np.round(random.uniform(0, 1, 300), 3), random.integers(1, 9, 300).astype(float)
    wanted = [len(np.unique(tokens[abs(log_n - one) <= 0.02])) for one in log_n]
    assert regions._lengths(log_n, tokens).tolist() == wanted
    many = np.arange(200_000.0)
    assert (regions._lengths(many, many) == 1).all()


def test_of_points_the_model_with_the_most_lengths_on_new_text_is_taken() -> None:
    small, large = np.geomspace(1e4, 1e8, 6), np.geomspace(1e4, 1e8, 9)
    size = np.concatenate([np.full(6, 1e6), np.full(9, 4e6), np.full(3, 1.6e7)])
    tokens = np.concatenate([small, large, large[:3]])
    whole = Points.of(size, tokens, 40 * tokens**-0.2, convention="kaplan")
    n, found = of_points(whole)
    assert n == pytest.approx(4e6)
    assert found.exponent == pytest.approx(0.2)
    repeated = Points.of(
        size, tokens, 40 * tokens**-0.2, unique_tokens=np.where(size == 4e6, 1e4, tokens), convention="kaplan"
    )
    assert of_points(repeated)[0] == pytest.approx(1e6), "repeats are another curve"
    with pytest.raises(ConfigError, match="3 different numbers of tokens"):
        of_points(whole.take(size == 1.6e7))
