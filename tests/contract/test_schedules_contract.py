"""What holds for every file in train/schedules, present and future."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmwright import seams
from lmwright.train.schedules._shared import WarmupSettings

PACKAGE = "lmwright.train.schedules"


@pytest.mark.parametrize("name", seams.names(PACKAGE))
@given(total=st.integers(1, 400), data=st.data())
def test_a_schedule_rises_to_the_peak_never_over_it_and_never_stops_learning(
    name: str, total: int, data: st.DataObject
) -> None:
    schedule = seams.load(PACKAGE, name)
    warmup = data.draw(st.one_of(st.none(), st.integers(0, max(0, min(total - 1, total * 4 // 5)))))
    settings = schedule.Settings(warmup_steps=warmup)
    assert isinstance(settings, WarmupSettings)
    factors = [schedule.factor(step, total, settings) for step in range(total)]
    warm = settings.resolve(total)
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:warm] == pytest.approx([(step + 1) / warm for step in range(warm)])
    after = factors[warm:]
    assert after[0] == 1.0
    assert after == sorted(after, reverse=True)
