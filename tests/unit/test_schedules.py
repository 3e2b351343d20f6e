"""Schedules where they can be one off: at the first step, the last of the warm-up, the one after, the last."""

from __future__ import annotations

import itertools
import math

import pytest

from lmwright import seams
from lmwright.errors import ConfigError
from lmwright.train.schedules import constant, cosine, linear, wsd

TOTAL = 100


def test_constant_is_the_peak_after_its_warm_up() -> None:
    settings = constant.Settings(warmup_steps=4)
    factors = [constant.factor(step, TOTAL, settings) for step in range(TOTAL)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(factors[4:]) == {1.0}


def test_linear_falls_by_equal_parts_and_wastes_no_step() -> None:
    settings = linear.Settings(warmup_steps=20, floor=0.2)
    factors = [linear.factor(step, TOTAL, settings) for step in range(TOTAL)]
    assert factors[19] == 1.0
    assert factors[20] == 1.0
    assert factors[60] == pytest.approx(0.6)
    assert factors[99] == pytest.approx(0.2 + 0.8 / 80)
    assert {round(a - b, 12) for a, b in itertools.pairwise(factors[20:])} == {0.01}


def test_cosine_is_half_a_wave_from_the_peak_to_the_floor() -> None:
    settings = cosine.Settings(warmup_steps=10, floor=0.1)
    factor = [cosine.factor(step, TOTAL, settings) for step in range(TOTAL)]
    assert factor[0] == pytest.approx(0.1)
    assert factor[9] == 1.0
    assert factor[10] == 1.0
    assert factor[55] == pytest.approx(0.55)  # half of the decay
    assert factor[40] == pytest.approx(0.1 + 0.9 * 0.75)  # a third of it: cos 60 degrees is a half
    assert factor[99] == pytest.approx(0.1 + 0.9 * (1 - math.cos(math.pi / 90)) / 2)


@pytest.mark.parametrize(("shape", "halfway"), [("linear", 0.5), ("sqrt", 1 - math.sqrt(0.5))])
def test_wsd_holds_the_peak_and_then_lets_go(shape: str, halfway: float) -> None:
    settings = wsd.Settings(warmup_steps=10, floor=0.0, decay_steps=20, shape=shape)  # type: ignore[arg-type]
    factor = [wsd.factor(step, TOTAL, settings) for step in range(TOTAL)]
    assert factor[0] == pytest.approx(0.1)
    assert set(factor[9:81]) == {1.0}
    assert factor[81] < 1.0
    assert factor[90] == pytest.approx(halfway)
    done = 19 / 20
    assert factor[99] == pytest.approx(1 - (done if shape == "linear" else math.sqrt(done)))


@pytest.mark.parametrize("name", seams.names("lmwright.train.schedules"))
def test_a_warm_up_is_not_longer_than_the_run(name: str) -> None:
    schedule = seams.load("lmwright.train.schedules", name)
    with pytest.raises(ConfigError, match=r"warmup_steps = 100.*less than the run's 100"):
        schedule.factor(0, 100, schedule.Settings(warmup_steps=100))


def test_warm_up_and_decay_have_to_fit_together() -> None:
    with pytest.raises(ConfigError, match="exceeds the run's 100 steps"):
        wsd.factor(50, 100, wsd.Settings(warmup_steps=60, decay_steps=50))
