"""Logits -> integer frequencies for the arithmetic coder.

    p_i = exp(x_i - max x) / sum_j exp(x_j - max x)  in float64        f_i = 1 + floor(p_i (TOTAL - V))

The likeliest symbol takes what the rounding leaves, so that the sum is TOTAL = 2^40. Every symbol can be coded,
and as 1 + floor(y) > y, one costs at most -log2(p_i) - log2(1 - V / TOTAL) bits: for a vocabulary of 49,152 below
-log2(p_i) + 6.5e-8. The result is a function of the row alone: each row is taken by itself, so that no vector
instruction of numpy spans two. Knows nothing of where logits come from.
"""

# V vocab

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmwright.decode.coding.arithmetic import LARGEST_TOTAL
from lmwright.errors import CheckpointError

TOTAL = LARGEST_TOTAL


@dataclass(frozen=True)
class Frequencies:
    """A distribution in integers.

    ends_V: the sums of the frequencies up to and with each symbol; the last is TOTAL. logits_V: float64, less
    their maximum. log_sum: the natural logarithm of the sum of their exp.
    """

    ends_V: NDArray[np.int64]
    logits_V: NDArray[np.float64]
    log_sum: float

    def part(self, symbol: int) -> tuple[int, int]:
        """Return (start, size) of the symbol's part of [0, TOTAL)."""
        start = int(self.ends_V[symbol - 1]) if symbol else 0
        return start, int(self.ends_V[symbol]) - start

    def symbol(self, place: int) -> int:
        """Return the symbol whose part holds `place`."""
        return int(np.searchsorted(self.ends_V, place, side="right"))

    def bits(self, symbol: int) -> float:
        """Return -log2 of the symbol's probability before it was rounded to a frequency."""
        return (self.log_sum - float(self.logits_V[symbol])) / math.log(2)


def frequencies(logits_V: NDArray[np.float32]) -> Frequencies:
    """Return the frequencies of one row of logits [V], V at most 2^24.

    Raises CheckpointError if a logit is infinite or no number: the weights are damaged.
    """
    row_V = np.array(logits_V, dtype=np.float64)
    if not np.isfinite(row_V).all():
        raise CheckpointError(
            "the model's logits are not finite, so its weights are damaged; check the checkpoint, or use another"
        )
    row_V -= row_V.max()
    shares_V = np.exp(row_V)
    total = float(shares_V.sum())
    counts_V = 1 + np.floor(shares_V * ((TOTAL - len(row_V)) / total)).astype(np.int64)
    counts_V[int(row_V.argmax())] += TOTAL - int(counts_V.sum())
    return Frequencies(np.cumsum(counts_V), row_V, math.log(total))
