"""The arithmetic coder against enumeration, exact fractions and its stated bound."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmwright.decode.coding.arithmetic import LARGEST_TOTAL, Decoder, Encoder
from lmwright.errors import DataError

Part = tuple[int, int, int]  # start, size, total


def encode(parts: Sequence[Part]) -> bytes:
    encoder = Encoder()
    for part in parts:
        encoder.encode(*part)
    return encoder.finish()


def decodes(data: bytes, parts: Sequence[Part]) -> bool:
    """Whether the decoder, told the parts as an encoder's model would be, finds each of them and the end."""
    decoder = Decoder(data)
    for start, size, total in parts:
        if not start <= decoder.target(total) < start + size:
            return False
        decoder.consume(start, size)
    decoder.finish()
    return True


def ideal(parts: Sequence[Part]) -> float:
    return math.fsum(-math.log2(size / total) for _, size, total in parts)


def exact_bytes(parts: Sequence[Part]) -> int:
    """The least bytes that name a number of the interval, by fractions: nothing is ever rounded."""
    low, width = Fraction(0), Fraction(1)
    for start, size, total in parts:
        low, width = low + width * Fraction(start, total), width * Fraction(size, total)
    count = max(int(ideal(parts) // 8) - 1, 0)  # fewer cannot be
    while math.ceil(low * 256**count) >= (low + width) * 256**count:
        count += 1
    return count


def test_all_messages_of_a_small_alphabet_come_back_and_differ() -> None:
    sizes = [1, 2, 5]
    alphabet = [(sum(sizes[:at]), size, sum(sizes)) for at, size in enumerate(sizes)]
    for length in range(6):
        seen = set()
        for message in itertools.product(alphabet, repeat=length):
            data = encode(message)
            seen.add(data.rstrip(b"\0"))  # a decoder reads zeros after the end
            assert decodes(data, message)
            assert 8 * len(data) <= ideal(message) + 8
            assert abs(len(data) - exact_bytes(message)) <= 1
        assert len(seen) == len(alphabet) ** length


def test_the_empty_message_is_empty() -> None:
    assert encode([]) == b""
    Decoder(b"").finish()


@st.composite
def messages(draw: st.DrawFn) -> list[Part]:
    totals = st.one_of(st.integers(1, 300), st.integers(LARGEST_TOTAL - 3, LARGEST_TOTAL), st.integers(1, 2**40))
    found = []
    for _ in range(draw(st.integers(0, 60))):
        total = draw(totals)
        size = draw(st.one_of(st.just(1), st.just(total), st.integers(1, total)))
        start = draw(st.one_of(st.just(0), st.just(total - size), st.integers(0, total - size)))
        found.append((start, size, total))
    return found


@given(messages())
def test_the_length_is_within_the_stated_bound(message: list[Part]) -> None:
    data = encode(message)
    assert 8 * len(data) <= ideal(message) + len(message) * 2**-30 + 8 + 1e-6
    assert decodes(data, message)


def test_a_carry_runs_back_through_written_bytes() -> None:
    total = LARGEST_TOTAL - 1
    middle = (total // 2, 1, total)  # [1/2 - e, 1/2 + e): four bytes 7f ff ff ff are written, or 80 00 00 00 meant
    lower, upper = encode([middle, (0, 1, 1000)]), encode([middle, (999, 1, 1000)])
    assert (lower[:4].hex(), upper[:4].hex()) == ("7fffffff", "80000000")
    assert decodes(lower, [middle, (0, 1, 1000)])
    assert decodes(upper, [middle, (999, 1, 1000)])


def test_a_carry_at_the_end_runs_back_too() -> None:
    middle = ((LARGEST_TOTAL - 1) // 2, 2, LARGEST_TOTAL - 1)  # 1/2 lies in it, and begins with no 7f
    assert encode([middle]).hex() == "80000000"
    assert decodes(encode([middle]), [middle])


def test_what_is_nearly_certain_costs_nearly_nothing_and_a_surprise_its_bits() -> None:
    sure, surprise = (0, LARGEST_TOTAL - 1, LARGEST_TOTAL), (LARGEST_TOTAL - 1, 1, LARGEST_TOTAL)
    message = [sure] * 50_000 + [surprise] * 20 + [sure] * 50_000
    data = encode(message)
    assert len(data) in (100, 101)  # 20 surprises of 40 bits
    assert decodes(data, message)


def consume_all(decoder: Decoder, count: int) -> None:
    for _ in range(count):
        decoder.consume(decoder.target(256), 1)


@pytest.mark.parametrize("seed", range(3))
def test_damage_that_shows_is_told(seed: int) -> None:
    draw = random.Random(seed)
    message = [(draw.randrange(256), 1, 256) for _ in range(200)]
    data = encode(message)
    assert len(data) in (200, 201)
    with pytest.raises(DataError, match="more follows"):
        decodes(data + b"\0", message) and decodes(data + b"\0\0", message)

    decoder = Decoder(data[:150])
    consume_all(decoder, 150)
    with pytest.raises(DataError, match="ends too early"):
        consume_all(decoder, 50)


def test_a_number_outside_every_part_is_told() -> None:
    decoder = Decoder(b"\xff" * 10)
    with pytest.raises(DataError, match="names no symbol"):
        decoder.target(3)
