"""The loader: steps of rows in an order that depends on (seed, epoch) alone, for any number of ranks.

The one state is the cursor: how many samples all ranks together have consumed. Sample number s is row
order.epoch(s // N)[s % N] of the plan (N samples an epoch; `data.order`). A step takes the next `batch_size`
samples, and rank r of W the part r of W of them. So the stream of samples is the same for every number of ranks,
before and after a resume, and across the end of an epoch. No random state exists.

Shuffled rows, the usual order, are all read once an epoch, the stream is the same for every batch size, too, and
a step may straddle two epochs. Rows in streams give that up: there are as many streams as a step has rows, so
another batch size is another order, which a resume refuses; no step straddles; and rows beyond whole stretches are
left out of an epoch, not always the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmwright.data.batch import Batch
from lmwright.data.order import STRETCH, Order, Shuffled, Streams
from lmwright.data.pack import PackPlan, fingerprint
from lmwright.errors import CheckpointError, ConfigError, DataError


@dataclass(frozen=True)
class Cursor:
    """Position in the stream of samples. samples: consumed so far, by all ranks together, over all epochs."""

    samples: int = 0

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise ConfigError(f"cursor: samples = {self.samples}: must not be negative")


def part(batch_size: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return the first row, and the one after the last, of a step's rows that are a rank's."""
    return batch_size * rank // world_size, batch_size * (rank + 1) // world_size


class Loader:
    """Gives one rank its part of each step."""

    def __init__(
        self,
        plan: PackPlan,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        cursor: Cursor | None = None,
        streams: bool = False,
    ) -> None:
        """batch_size: rows of a step, over all ranks. streams: of contiguous blocks, row b of a step comes after
        row b of the one before, stretch by stretch (see `data.order`). Raises DataError for too few, ConfigError.
        """
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank}: must be from 0 to world size - 1 = {world_size - 1}")
        if batch_size < world_size:
            raise ConfigError(
                f"batch_size = {batch_size}: must be at least the number of ranks, {world_size}, so that each has "
                "a sequence; raise it, or start fewer processes"
            )
        if plan.num_sequences < 1:
            raise DataError(
                f"{plan.split.name}: too small: {plan.split.num_tokens} tokens give no row of "
                f"{plan.context_length} and its label; give more text, or a context of at most "
                f"{plan.split.num_tokens - 1}, or pack by documents"
            )
        if streams and plan.num_sequences < batch_size:
            raise DataError(
                f"{plan.split.name}: too small: {plan.num_sequences} rows of {plan.context_length} tokens are no "
                f"{batch_size} streams; give more text, or a smaller batch or context"
            )
        self.plan = plan
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.cursor = cursor or Cursor()
        self.streams = streams
        self._order: Order = Shuffled(seed, plan.num_sequences)
        if streams:
            stretch = max(1, STRETCH // plan.context_length)
            self._order = Streams(seed, plan.num_sequences, batch_size, stretch)

    @property
    def epoch(self) -> int:
        """Number of whole epochs consumed."""
        return self.cursor.samples // self._order.size

    def next_batch(self) -> Batch:
        """Return this rank's rows of the next step and move the cursor past the whole step."""
        start = self.cursor.samples
        first, end = part(self.batch_size, self.rank, self.world_size)
        indices = self.order(start + first, start + end)
        goes_on = self._order.continues(start)
        batch = Batch.of(self.plan.fetch(indices), tuple(indices.tolist()), continues=goes_on)
        self.cursor = Cursor(start + self.batch_size)
        return batch

    def last_rows(self) -> tuple[int, ...]:
        """Return the rows of the step that `next_batch` gave last, of all ranks, in their order."""
        end = self.cursor.samples
        return tuple(self.order(end - self.batch_size, end).tolist())

    def order(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the rows of samples start..stop-1, which may lie in several epochs."""
        parts: list[NDArray[np.int64]] = []
        while start < stop or not parts:
            epoch, offset = divmod(start, self._order.size)
            parts.append(self._order.epoch(epoch)[offset : offset + stop - start])
            start += len(parts[-1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the cursor, and by what its meaning is recognised."""
        kept = {"samples": self.cursor.samples, "seed": self.seed, "plan": fingerprint(self.plan)}
        return kept | {"streams": self.batch_size} if self.streams else kept

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; ranks may differ, and the batch size where rows are shuffled.

        Raises CheckpointError if the state is malformed, or belongs to another seed, other data or another order.
        """
        samples, seed, plan = (state.get(key) for key in ("samples", "seed", "plan"))
        if not isinstance(samples, int) or isinstance(samples, bool) or samples < 0:
            raise CheckpointError(f"loader state: samples = {samples!r}: must be a whole number, 0 or more")
        if seed != self.seed:
            raise CheckpointError(
                f"loader state: was saved with seed {seed!r}, but this run has {self.seed}; use that"
            )
        if plan != fingerprint(self.plan):
            raise CheckpointError(
                f"loader state: was saved with other data, context length or packing than {self.plan.split.name} "
                f"({self.plan.kind}, {self.plan.context_length} tokens); resume with the ones it was saved with"
            )
        before, now = state.get("streams"), self.batch_size if self.streams else None
        if before != now:
            had, has = (
                f"{n} streams side by side" if n is not None else "a shuffled order" for n in (before, now)
            )
            raise CheckpointError(
                f"loader state: {samples} rows were read in {had}, and this run reads them in {has}; resume with "
                "the batch size, packing and kind of model that it was saved with, or train anew"
            )
        self.cursor = Cursor(samples)

    def documents_of(self, sample_ids: Iterable[int]) -> list[str]:
        """Return `path:line` of the documents in these rows, each once, for messages."""
        numbers = dict.fromkeys(number for index in sample_ids for number in self.plan.documents(index))
        return list(dict.fromkeys(self.plan.split.document_names(list(numbers))))
