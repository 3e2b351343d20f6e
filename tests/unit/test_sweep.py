"""Rules from sweeps: planted optima come back, edges are refused, few sizes bend a prior only by a factor."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmwright.errors import ConfigError
from lmwright.scaling import priors
from lmwright.scaling.priors import Scale
from lmwright.scaling.sweep import Trial, fit_sweep


def scale(size: float, ratio: float = 20.0) -> Scale:
    return Scale(non_embedding=size, total=1.2 * size, head=0.1 * size, attention=0.2 * size, tokens=ratio * size)


def sweep(sizes: list[Scale], rate, batch=None, *, noise: float = 0.0, shift: float = 1.0) -> list[Trial]:
    """Losses that are parabolas in ln rate and ln batch around planted optima, on grids of factors of two.

    Without a batch all runs have that of the prior, so that no rate has to be moved.
    """
    random = np.random.default_rng(2)
    prior = priors.load("step_law").batch_tokens
    trials = []
    for one in sizes:
        for step in range(-2, 3):
            for turn in range(-2, 3) if batch else (0,):
                chosen_batch = batch(one) * 2.0**turn * 1.1 if batch else prior(one)
                chosen = rate(one) * 2.0**step * 1.2 * shift
                loss = 3 + 0.05 * math.log(chosen / rate(one)) ** 2 + noise * random.normal()
                loss += 0.02 * math.log(chosen_batch / batch(one)) ** 2 if batch else 0.0
                trials.append(Trial(scale=one, learning_rate=chosen, batch_tokens=chosen_batch, loss=loss))
    return trials


LADDER = [scale(size) for size in (1e6, 3e6, 1e7, 3e7)]


def test_a_planted_power_law_comes_back_and_carries_on():
    def rate(one: Scale) -> float:
        return 0.9 * one.non_embedding**-0.4

    def batch(one: Scale) -> float:
        return 3.0 * one.tokens**0.5

    found = fit_sweep(sweep(LADDER, rate, batch), rate_prior="step_law")
    assert found.warnings == ()
    for one, best in zip(LADDER, found.optima, strict=True):
        assert best.scale == one
        assert best.learning_rate == pytest.approx(rate(one), rel=1e-9)
        assert best.batch_tokens == pytest.approx(batch(one), rel=1e-9)
        assert best.loss == pytest.approx(3.0)
    far = scale(3e9)
    assert found.learning_rate.value(far) == pytest.approx(rate(far), rel=1e-8)
    assert found.batch_tokens.value(far) == pytest.approx(batch(far), rel=1e-8)
    assert found.learning_rate.covariates == ("N D",)
    assert found.learning_rate.spread == pytest.approx(0.0, abs=1e-9)
    assert "as measured on 4 sizes" in found.learning_rate.reason(far)


def test_where_n_and_d_vary_apart_each_has_its_exponent():
    sizes = [scale(size, ratio) for size in (1e6, 4e6, 2e7) for ratio in (5.0, 40.0)]

    def rate(one: Scale) -> float:
        return 0.9 * one.non_embedding**-0.4 * (one.tokens / 1e8) ** 0.1

    found = fit_sweep(sweep(sizes, rate), rate_prior="step_law")
    assert found.learning_rate.covariates == ("N", "D")
    for far in (scale(1e9, 100.0), scale(1e5, 1.0)):
        assert found.learning_rate.value(far) == pytest.approx(rate(far), rel=1e-8)


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_sizes_move_the_prior_by_a_factor(count):
    prior = priors.load("deepseek").learning_rate
    found = fit_sweep(sweep(LADDER[:count], lambda one: 0.3 * prior(one)), rate_prior="deepseek")
    for one in (*LADDER, scale(1e9)):
        assert found.learning_rate.value(one) == pytest.approx(0.3 * prior(one), rel=1e-9)
    assert found.learning_rate.covariates == ()
    assert "times 0.3" in found.learning_rate.reason(LADDER[0])


def test_noise_leaves_a_spread():
    found = fit_sweep(sweep(LADDER, lambda one: 0.9 * one.non_embedding**-0.4, noise=2e-3))
    assert 0 < found.learning_rate.spread < 0.3
    assert found.learning_rate.value(scale(1e7)) == pytest.approx(0.9 * 1e7**-0.4, rel=0.2)
    assert "to a factor of 1." in found.learning_rate.reason(scale(1e7))


def test_an_optimum_at_the_edge_is_refused_and_the_prior_stands():
    for shift, side in ((20.0, "first"), (0.05, "last")):
        found = fit_sweep(sweep(LADDER, lambda one: 0.9 * one.non_embedding**-0.4, shift=shift))
        assert found.optima == ()
        assert len(found.warnings) == 4
        assert all(f"is refused: the least loss is at the {side} rate" in text for text in found.warnings)
        one = scale(3e8)
        assert found.learning_rate.value(one) == priors.load("step_law_small").learning_rate(one)
        assert "not measured here" in found.learning_rate.reason(one)


def test_a_batch_at_the_edge_is_refused_and_its_rate_is_kept():
    trials = sweep(LADDER[:1], lambda one: 1e-3, lambda one: 8192.0)
    kept = [trial for trial in trials if trial.batch_tokens < 12_000]
    found = fit_sweep(kept)
    assert found.optima[0].batch_tokens is None
    assert found.optima[0].learning_rate == pytest.approx(1e-3)
    assert "its batch is refused: the least loss is at the last batch" in found.warnings[0]
    assert found.batch_tokens.coefficients == ()
    wanted, at = priors.load("step_law").batch_tokens(LADDER[0]), found.optima[0].at
    assert at == max(trial.batch_tokens for trial in kept)
    assert found.learning_rate.value(LADDER[0]) == pytest.approx(1e-3 * math.sqrt(wanted / at))


def test_runs_that_diverged_are_no_points_of_the_valley():
    trials = sweep(LADDER[:1], lambda one: 1e-3)
    lost = [Trial(scale=LADDER[0], learning_rate=1.0, batch_tokens=trials[0].batch_tokens, loss=math.inf)]
    assert fit_sweep([*trials, *lost]).learning_rate == fit_sweep(trials).learning_rate
    only = [Trial(scale=LADDER[0], learning_rate=1.0, batch_tokens=1e4, loss=math.inf)]
    assert "0 different rates" in fit_sweep(only).warnings[0]


def test_without_trials_it_is_the_prior_and_says_where_from():
    found = fit_sweep([], rate_prior="step_law", batch_prior="power_lines")
    one = scale(1e6)
    assert found.batch_tokens.value(one) == priors.load("power_lines").batch_tokens(one)
    assert "arXiv:2505.13738" in found.batch_tokens.reason(one)
    assert "outside the range" in found.learning_rate.reason(one)


def test_what_is_no_sweep_is_refused():
    with pytest.raises(ConfigError, match="gives no learning_rate"):
        fit_sweep(sweep(LADDER[:1], lambda one: 1e-3), rate_prior="power_lines")
    for wrong in ({"learning_rate": 0.0}, {"loss": math.nan}, {"batch_tokens": math.inf}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Trial(**({"scale": LADDER[0], "learning_rate": 1e-3, "batch_tokens": 1e4, "loss": 3.0} | wrong))
