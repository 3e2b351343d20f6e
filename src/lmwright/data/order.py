"""In what order the rows of a plan are taken, epoch by epoch.

- shuffled: a permutation that depends on (seed, epoch, number of rows) and nothing else. Rows are sorted by a hash
  of their number (the SplitMix64 finaliser, Steele et al. 2014) under a key derived from (seed, epoch).
- streams: as many stretches of neighbouring rows as a step has rows, read side by side, so that row b of a step
  goes on where row b of the step before ended: for a model that takes its state along. The rows that
  do not fill a last step, fewer than a step's, are left out, at one end or the other as (seed, epoch) has it.

It is plain 64-bit arithmetic, so no library version can change the order under a resumed run.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmwright.seeds import derive

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Order(Protocol):
    """The order of all epochs."""

    @property
    def size(self) -> int:
        """Samples of an epoch."""
        ...

    def epoch(self, number: int) -> NDArray[np.int64]:
        """Return the rows of the samples of an epoch, in their order."""
        ...

    def continues(self, sample: int) -> bool:
        """Return whether each row of the step that begins with `sample` goes on where the step before ended."""
        ...


@dataclass(frozen=True)
class Shuffled:
    """Every row once an epoch. count: rows of the plan."""

    seed: int
    count: int

    @property
    def size(self) -> int:
        """All rows."""
        return self.count

    def epoch(self, number: int) -> NDArray[np.int64]:
        """Return the epoch's permutation."""
        return permutation(self.seed, number, self.count)

    def continues(self, sample: int) -> bool:
        """Return False: no row has to do with the one before."""
        return False


@dataclass(frozen=True)
class Streams:
    """`streams` stretches of neighbouring rows, one row of each a step. count: rows of the plan."""

    seed: int
    count: int
    streams: int

    @property
    def size(self) -> int:
        """Whole steps, so that none straddles two epochs."""
        return self.count - self.count % self.streams

    def epoch(self, number: int) -> NDArray[np.int64]:
        """Return row t of each stretch, for each t."""
        return stretches(self.seed, number, self.count, self.streams)

    def continues(self, sample: int) -> bool:
        """Return whether it is not the epoch's first: there all stretches start anew."""
        return sample % self.size != 0


@functools.lru_cache(maxsize=2)  # a step may straddle two epochs
def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return a permutation of 0..count-1, read-only."""
    key = np.uint64(derive(seed, "order", epoch))
    hashed = _mix(np.arange(1, count + 1, dtype=np.uint64) * GOLDEN + key)
    order = np.argsort(hashed, kind="stable").astype(np.int64)
    order.setflags(write=False)
    return order


@functools.lru_cache(maxsize=2)
def stretches(seed: int, epoch: int, count: int, streams: int) -> NDArray[np.int64]:
    """Return row t of each of `streams` stretches of 0..count-1, for each t; read-only."""
    size = count - count % streams
    first = derive(seed, "streams", epoch) % (count - size + 1)
    order = np.arange(first, first + size, dtype=np.int64).reshape(streams, -1).T.flatten()
    order.setflags(write=False)
    return order


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
