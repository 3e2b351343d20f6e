"""In what order the rows of a plan are taken, epoch by epoch.

- shuffled: a permutation that depends on (seed, epoch, number of rows) and nothing else. Rows are sorted by a hash
  of their number (the SplitMix64 finaliser, Steele et al. 2014) under a key derived from (seed, epoch).
- streams: stretches of neighbouring rows, as many side by side as a step has rows, so that row b of a step goes on
  where row b of the step before ended: for a model that takes its state along. All end at once, and the next ones
  begin anew. Which come together is shuffled, and they are no longer than need be: neighbouring text step after
  step is learnt worse than text from everywhere (docs/log.md). Rows beyond whole stretches, fewer than there are
  stretches, are left out, at one end or the other as (seed, epoch) has it.

It is plain 64-bit arithmetic, so no library version can change the order under a resumed run.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmwright.seeds import derive

# Tokens that a state is taken along at least, where the text has so many for each stream. LSTMs make use of some
# 200 (Khandelwal et al. 2018, arXiv:1805.04623), and more at a stretch are learnt worse (docs/log.md).
STRETCH = 1024
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
    """Stretches of neighbouring rows, one row of each of `streams` a step.

    count: rows of the plan, at least `streams`. stretch: rows of a stretch at least, where there are so many.
    """

    seed: int
    count: int
    streams: int
    stretch: int

    @property
    def laps(self) -> int:
        """How many times in an epoch all streams begin anew."""
        return max(1, self.count // (self.streams * self.stretch))

    @property
    def steps(self) -> int:
        """Rows of a stretch, so steps of a lap."""
        return self.count // (self.laps * self.streams)

    @property
    def size(self) -> int:
        """Whole laps, so that no step straddles two epochs."""
        return self.laps * self.steps * self.streams

    def epoch(self, number: int) -> NDArray[np.int64]:
        """Return, for each lap, row t of each of its stretches, for each t."""
        return stretches(self, number)

    def continues(self, sample: int) -> bool:
        """Return whether it is not a lap's first: there all streams begin anew."""
        return sample % (self.steps * self.streams) != 0


@functools.lru_cache(maxsize=2)  # a step may straddle two epochs
def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return a permutation of 0..count-1, read-only."""
    key = np.uint64(derive(seed, "order", epoch))
    hashed = _mix(np.arange(1, count + 1, dtype=np.uint64) * GOLDEN + key)
    order = np.argsort(hashed, kind="stable").astype(np.int64)
    order.setflags(write=False)
    return order


@functools.lru_cache(maxsize=2)
def stretches(of: Streams, epoch: int) -> NDArray[np.int64]:
    """Return the rows of an epoch, read-only."""
    first = derive(of.seed, "streams", epoch) % (of.count - of.size + 1)
    begins = first + of.steps * permutation(of.seed, epoch, of.laps * of.streams)
    order = (begins.reshape(of.laps, 1, of.streams) + np.arange(of.steps)[:, None]).ravel()
    order.setflags(write=False)
    return order


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
