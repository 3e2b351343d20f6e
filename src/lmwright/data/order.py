"""The order of an epoch: a permutation that depends on (seed, epoch, number of sequences) and nothing else.

Sequences are sorted by a hash of their number (the SplitMix64 finaliser, Steele et al. 2014) under a key derived
from (seed, epoch). It is plain 64-bit arithmetic, so no library version can change the order under a resumed run.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from lmwright.seeds import derive

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@functools.lru_cache(maxsize=2)  # a step may straddle two epochs
def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return a permutation of 0..count-1, read-only."""
    key = np.uint64(derive(seed, "order", epoch))
    hashed = _mix(np.arange(1, count + 1, dtype=np.uint64) * GOLDEN + key)
    order = np.argsort(hashed, kind="stable").astype(np.int64)
    order.setflags(write=False)
    return order


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
