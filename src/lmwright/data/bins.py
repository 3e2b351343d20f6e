"""Best-fit decreasing bin packing (Johnson 1973): each item, longest first, goes where it leaves least room.

Items of one length are placed together and rows are kept in buckets by free space, so that the work grows with
the number of distinct (length, free space) pairs and not with items times rows. Knows nothing of tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_fit(lengths: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """Return the row of each item. lengths: 1..capacity. Equal input gives equal output."""
    rows = np.empty(len(lengths), dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    bounds = np.flatnonzero(np.diff(lengths[order], prepend=-1, append=-1))
    free = _FreeRows(capacity)
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        members = order[start:stop]
        length = int(lengths[members[0]])
        placed = 0
        while placed < len(members):
            space, chosen = free.take(length, len(members) - placed)
            each = space // length
            count = min(each * len(chosen), len(members) - placed)
            rows[members[placed : placed + count]] = np.repeat(chosen, each)[:count]
            full, rest = divmod(count, each)
            free.give(space - each * length, chosen[:full])
            if rest:
                free.give(space - rest * length, chosen[full:])
            placed += count
    return rows


class _FreeRows:
    """Rows by free space, and a bit mask of the spaces that have any."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: list[list[int]] = [[] for _ in range(capacity + 1)]
        self._mask = 0
        self._num_rows = 0

    def take(self, length: int, items: int) -> tuple[int, list[int]]:
        """Return the least space that holds `length`, and as many rows with it as `items` items need."""
        fitting = self._mask >> length
        if not fitting:
            needed = -(-items // (self._capacity // length))
            self._num_rows += needed
            return self._capacity, list(range(self._num_rows - needed, self._num_rows))
        space = length + (fitting & -fitting).bit_length() - 1
        bucket = self._rows[space]
        needed = -(-items // (space // length))
        chosen, self._rows[space] = bucket[:needed], bucket[needed:]
        if not self._rows[space]:
            self._mask ^= 1 << space
        return space, chosen

    def give(self, space: int, rows: list[int]) -> None:
        """Put rows back with `space` left in each."""
        if space and rows:
            self._rows[space].extend(rows)
            self._mask |= 1 << space
