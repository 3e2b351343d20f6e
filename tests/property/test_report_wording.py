"""How numbers and text are written, over all numbers and all text."""

from __future__ import annotations

import math
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmwright.inert import visible
from lmwright.report.wording import (
    clipped,
    duration,
    integer,
    percent,
    shortened,
    si,
    significant,
    write,
)

UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


def read(text: str) -> float:
    """Read what `significant` wrote."""
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    mantissa, _, power = text.replace("−", "-").replace(",", "").partition(" × 10")
    return float(mantissa) * 10.0 ** int(power.translate(digits) or 0)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300))
def test_four_significant_digits_read_back(value):
    assert read(significant(value)) == pytest.approx(value, rel=5.001e-4, abs=1e-320)


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_counts_keep_every_digit(value):
    assert int(integer(value).replace(",", "").replace("−", "-")) == value


@given(st.floats(min_value=1, max_value=1e20))
def test_si_reads_back_and_its_number_is_below_a_thousand(value):
    number, _, prefix = si(value).partition(" ")
    assert read(number) * UNITS[prefix] == pytest.approx(value, rel=5.001e-4)
    assert read(number) < 1000 or prefix == "E"


@given(st.floats(min_value=0, max_value=1e9))
def test_durations_read_back(seconds):
    sizes = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
    words = re.findall(r"([\d.×⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+(?: × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?) (d|h|min|s)", duration(seconds))
    total = math.fsum(read(number) * sizes[unit] for number, unit in words)
    finest = min((sizes[unit] for _, unit in words), default=1.0)
    assert words
    assert abs(total - seconds) <= max(0.501 * finest if seconds >= 59.95 else 0, 0.006 * seconds)


@given(st.text(alphabet=st.characters(), max_size=40), st.integers(min_value=1, max_value=20))
def test_text_becomes_printable_and_keeps_the_rest(text, limit):
    shown = visible(text)
    shown.encode("utf-8")
    kinds = {unicodedata.category(sign) for sign in shown if sign not in "\n\t"}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    ordinary = "".join(sign for sign in text if unicodedata.category(sign)[0] in "LNPS")
    assert "".join(sign for sign in re.sub(r"⟨U\+[0-9A-F]{4,}⟩", "", shown) if sign in ordinary) == re.sub(
        r"⟨U\+[0-9A-F]{4,}⟩", "", ordinary
    )
    assert len(clipped(text, limit)) <= limit
    assert shortened(text, limit).startswith(text[:limit])


@given(st.sampled_from(["\u202a", "\u202e", "\u2066", "\u2069", "\u200f", "\u061c", "\ud800", "\x1b", "\x9b"]))
def test_what_deceives_is_named(sign):
    assert visible(f"a{sign}b") == f"a⟨U+{ord(sign):04X}⟩b"


@pytest.mark.parametrize(
    ("value", "style", "text"),
    [
        (2.43098, "significant", "2.431"), (0.99996, "significant", "1.000"), (24767.2, "significant", "24,767"),
        (1.23e-5, "significant", "1.23 × 10⁻⁵"), (-0.5, "significant", "−0.5000"), (0, "significant", "0"),
        (124_439_808, "integer", "124,439,808"), (0.4213, "percent", "42.1%"),
        (874_944_921_600, "FLOP", "874.9 GFLOP"), (999_960, "B", "1.000 MB"), (12, "B", "12 B"),
        (0.84, "duration", "0.840 s"), (59.97, "duration", "1 min 00 s"), (252, "duration", "4 min 12 s"),
        (11_000, "duration", "3 h 03 min"), (3599.6, "duration", "1 h 00 min"), (200_000, "duration", "2 d 8 h"),
        (math.nan, "percent", "not finite"), (math.inf, "FLOP", "not finite"),
        (-math.inf, "duration", "not finite"), (math.nan, "integer", "not finite"),
        (math.inf, "significant", "not finite"),
    ],
)  # fmt: skip
def test_written_as_a_person_writes(value, style, text):
    assert write(value, style) == text


def test_signed_percent():
    assert percent(0.031, signed=True) == "+3.10%"
    assert percent(-0.5, signed=True) == "−50.0%"
