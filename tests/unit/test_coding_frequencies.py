"""Integer frequencies of logits: their sum, their cost and their inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lmwright.decode.coding.frequencies import TOTAL, frequencies
from lmwright.errors import CheckpointError
from lmwright.seeds import numpy_generator

ROWS = {
    "uniform": np.zeros(7),
    "one": np.zeros(1),
    "two": np.array([0.0, 1.0]),
    "certain": np.array([0.0, 60.0, -60.0, 3.0]),
    "absurd": np.array([3e38, -3e38, 0.0]),
    "spread": numpy_generator(0, "logits").normal(0, 6, 49_152),
    "flat and wide": numpy_generator(1, "logits").normal(0, 0.01, 65_536),
}


def sizes(row: np.ndarray) -> np.ndarray:
    return np.diff(frequencies(row.astype(np.float32)).ends_V, prepend=0)


@pytest.mark.parametrize("name", ROWS)
def test_every_symbol_has_a_part_and_the_sum_is_the_total(name: str) -> None:
    counts = sizes(ROWS[name])
    assert counts.min() >= 1
    assert counts.sum() == TOTAL


@pytest.mark.parametrize("name", ROWS)
def test_no_symbol_costs_more_than_the_stated_bound(name: str) -> None:
    row = ROWS[name].astype(np.float32)
    found, counts = frequencies(row), sizes(ROWS[name])
    shifted = [float(x) - float(row.max()) for x in row.tolist()]
    log_sum = math.log(math.fsum(math.exp(x) for x in shifted))  # by a sum without rounding
    lost = -math.log2(1 - len(row) / TOTAL)
    for symbol in {0, len(row) - 1, int(row.argmax()), int(row.argmin()), len(row) // 2}:
        bits = (log_sum - shifted[symbol]) / math.log(2)
        assert found.bits(symbol) == pytest.approx(bits, rel=1e-12, abs=1e-12)
        assert -math.log2(counts[symbol] / TOTAL) <= bits + lost + 1e-11


def test_the_expected_cost_is_the_entropy_to_a_millionth() -> None:
    row = ROWS["spread"].astype(np.float32)
    p = np.exp(row.astype(np.float64) - row.max())
    p /= p.sum()
    entropy = -(p * np.log2(p)).sum()
    assert 0 <= -(p * np.log2(sizes(row) / TOTAL)).sum() - entropy < 1e-6


def test_a_place_leads_back_to_its_symbol() -> None:
    found = frequencies(np.array([1.0, 3.0, -2.0, 3.0, -90.0], dtype=np.float32))
    for symbol in range(5):
        start, size = found.part(symbol)
        assert [found.symbol(place) for place in (start, start + size - 1)] == [symbol, symbol]


def test_a_row_does_not_depend_on_where_it_lies() -> None:
    rows = numpy_generator(2, "logits").normal(0, 4, (5, 1003)).astype(np.float32)
    for row in rows:
        alone = frequencies(row.copy()).ends_V
        assert (frequencies(row).ends_V == alone).all()
        assert (frequencies(np.stack([row, row]).T[:, 0]).ends_V == alone).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_damaged_weights_are_told(bad: float) -> None:
    with pytest.raises(CheckpointError, match="not finite"):
        frequencies(np.array([0.0, bad, 1.0], dtype=np.float32))
