"""The byte model: round trips, and its code length against a plain count."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmwright.decode.coding.adaptive import FIRST, STEP, decode_bytes, encode_bytes
from lmwright.errors import DataError
from lmwright.seeds import numpy_generator

RANDOM = numpy_generator(0, "bytes").integers(0, 256, 5000).astype("uint8").tobytes()


def nothing(count: int) -> None: ...


def plain_bits(data: bytes) -> float:
    """The code length from the docstring: p = (n_b + 1) / (n + 256), counted anew after 16, 48, 112 ... bytes."""
    seen, step, marks = 0, FIRST, []
    while seen < len(data):
        marks.append(seen)
        seen, step = seen + step, min(2 * step, STEP)
    bits = 0.0
    for place, byte in enumerate(data):
        known = data[: max(mark for mark in marks if mark <= place)]
        bits -= math.log2((known.count(byte) + 1) / (len(known) + 256))
    return bits


@given(st.binary(max_size=400))
def test_any_bytes_come_back(data: bytes) -> None:
    coded, _ = encode_bytes(data, nothing)
    assert decode_bytes(coded, len(data), nothing) == data


@pytest.mark.parametrize("data", [b"", b"a", bytes(3000), b"ab" * 1400, RANDOM[:2500]], ids=len)
def test_the_code_length_is_that_of_the_counts(data: bytes) -> None:
    coded, bits = encode_bytes(data, nothing)
    assert bits == pytest.approx(plain_bits(data), rel=1e-9)
    assert 8 * len(coded) <= bits + 8.001


def test_a_run_costs_little_and_noise_little_more_than_itself() -> None:
    assert len(encode_bytes(bytes(2**17), nothing)[0]) < 500
    assert len(encode_bytes(RANDOM, nothing)[0]) < len(RANDOM) * 1.05


def test_progress_counts_every_byte() -> None:
    told: list[int] = []
    coded, _ = encode_bytes(RANDOM, told.append)
    decode_bytes(coded, len(RANDOM), told.append)
    assert sum(told) == 2 * len(RANDOM)


def test_a_wrong_length_is_told() -> None:
    coded, _ = encode_bytes(RANDOM, nothing)
    with pytest.raises(DataError, match="damaged"):
        decode_bytes(coded, len(RANDOM) - 10, nothing)
    with pytest.raises(DataError, match="damaged"):
        decode_bytes(coded, len(RANDOM) + 30, nothing)
