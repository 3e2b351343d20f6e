"""Budgets: what is read, what it is worth, and what is refused in one line."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lmwright.errors import ConfigError
from lmwright.scaling.planning.budget import PEAKS, parse


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("90s", 90),
        ("2h", 7200),
        ("3d", 259_200),
        ("1w", 604_800),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        (" 0.5H ", 1800),
        ("10 m", 600),
        ("1 h 30 m", 5400),
        ("1 h30m", 5400),
    ],
)
def test_a_time_is_worth_what_the_machine_does_in_it(text, seconds):
    budget = parse(text)
    assert (budget.seconds, budget.flops, budget.device) == (seconds, None, None)
    assert budget.compute(2e11) == seconds * 2e11
    for rate in (None, 0.0, float("nan")):
        with pytest.raises(ConfigError, match="measure it"):
            budget.compute(rate)


@pytest.mark.parametrize(
    ("text", "flops"),
    [
        ("1e18", 1e18),
        ("1E18", 1e18),
        ("2.5e19 FLOPs", 2.5e19),
        ("5.76e+23", 5.76e23),
        ("1000000000", 1e9),
        ("1e18flop", 1e18),
    ],
)
def test_flops_are_themselves(text, flops):
    assert (parse(text).seconds, parse(text).device) == (None, None)
    assert parse(text).compute() == parse(text).compute(1.0) == flops


@pytest.mark.parametrize("text", ["8xH100 3d", "8 x H100 3 d", "8 x h100 3d", "8×H100 72h", "8*h100 2d 24h"])
def test_devices_reach_a_share_of_their_peak(text):
    budget = parse(text)
    assert (budget.device, budget.devices, budget.seconds) == ("h100", 8, 259_200)
    assert budget.compute() == pytest.approx(8 * 989.4e12 * 0.4 * 259_200)
    assert parse(text, mfu=0.5).compute() == pytest.approx(8 * 989.4e12 * 0.5 * 259_200)
    assert "8 x h100 for 259,200 s at 40% of 989.4 TFLOP/s" in budget.reason()


@pytest.mark.parametrize("device", PEAKS)
def test_every_device_of_the_table_can_be_named_alone(device):
    assert parse(f"{device.upper()} 1h").compute() == pytest.approx(PEAKS[device] * 0.4 * 3600)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a time"),
        ("600", "needs its unit"),
        ("0m", "above 0"),
        ("20000d", "ten years"),
        ("1e33", "at most 1e[+]32"),
        ("1e999", "at most"),
        ("1e9999d", "ten years"),
        ("30m1h", "longest first"),
        ("1h2h", "once"),
        ("-3h", "must be a time"),
        ("8xH100", "must be a time"),
        ("8xH10 3d", "no device 'h10'"),
        ("0xH100 3d", "0 devices"),
        ("9999999xH100 3d", "devices; must be"),
        ("8xH100 1e18", "must be a time"),
        ("nan", "must be a time"),
        ("inf", "must be a time"),
        ("1_0m", "must be a time"),
        ("3 days", "must be a time"),
        ("1" * 5000 + "xH100 3d", "must be a time"),
        ("٣m", "must be a time"),
        ("8h100 30m", "must be a time"),  # the x forgotten; not 8 h and 10,030 m
        ("4h200 10m", "must be a time"),
        ("2 5e18", "must be a time"),
        ("1 e18", "must be a time"),
        ("1 0m", "must be a time"),
        ("1h 3 0m", "must be a time"),
        ("8xH100 1 0m", "must be a time"),
    ],
)
def test_anything_else_is_refused_in_one_line(text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("mfu", [0.0, -1.0, 1.01, float("nan")])
def test_a_share_is_a_share(mfu):
    with pytest.raises(ConfigError, match="mfu"):
        parse("8xH100 3d", mfu=mfu)


@given(some.text(max_size=30))
def test_no_text_brings_more_than_a_refusal(text):
    with contextlib.suppress(ConfigError):
        assert parse(text).compute(1e12) > 0
