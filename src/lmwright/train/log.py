"""What a run says about itself in metrics.jsonl, and the clocks behind its rates.

Kinds of record: `start` (a process took the run up), `step`, `evaluation`, `checkpoint`, `finding`, `nonfinite`,
`end`. Trackers are told each record as it is written.
A step's tokens per second are the tokens trained on since the record before it, over the time spent in training
steps since then, reading of batches included; evaluation and saving are timed apart, in their own records.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmwright.runs import RunDirectory

if TYPE_CHECKING:
    from lmwright.train.trackers import Tracker


@dataclass
class Clock:
    """Seconds of wall time by what they were spent on."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the time inside the block as spent on `what`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[what] = self.of(what) + time.perf_counter() - start

    def of(self, what: str) -> float:
        """Return the seconds spent on `what`."""
        return self.spent.get(what, 0.0)


class Log:
    """Writes the records of one process of a run.

    flops_per_token: of training, forward and backward. peak_flops: of the machine in the run's dtype; MFU is
    flops_per_token x tokens per second / peak_flops. clock: what earlier processes of the run have spent.
    silent: nothing is written, for another process writes the same.
    """

    def __init__(
        self,
        run: RunDirectory,
        *,
        flops_per_token: float,
        peak_flops: float,
        clock: Clock,
        trackers: Sequence[Tracker] = (),
        silent: bool = False,
    ) -> None:
        self.clock = clock
        self._silent = silent
        self._trackers = trackers
        self._run = run
        self._mfu_per_rate = flops_per_token / peak_flops
        self.last_loss: float | None = None  # of the last step record, in nats per token
        self._open = clock.of("train")  # training seconds up to the last step record
        self._loss = 0.0
        self._count = 0
        self._metrics: dict[str, float] = {}

    def add(self, loss_sum: float, count: int, metrics: Mapping[str, float]) -> None:
        """Count one step towards the next step record."""
        self._loss += loss_sum
        self._count += count
        for name, value in metrics.items():
            self._metrics[name] = self._metrics.get(name, 0.0) + value

    def step(self, step: int, **facts: Any) -> None:
        """Write the record of the steps since the last one; `loss` is in nats per token over their tokens."""
        seconds = self.clock.of("train") - self._open
        rate = self._count / seconds
        self.last_loss = self._loss / self._count
        means = {name: value / self._count for name, value in self._metrics.items()}
        self.write(
            "step",
            step,
            loss=self.last_loss,
            **facts,
            **means,
            tokens_per_second=rate,
            mfu=rate * self._mfu_per_rate,
            interval_tokens=self._count,
            interval_seconds=seconds,
            seconds=self.clock.of("train"),
        )
        self._open += seconds
        self._loss, self._count, self._metrics = 0.0, 0, {}

    def write(self, kind: str, step: int, **facts: Any) -> None:
        """Append one record."""
        if self._silent:
            return
        record = {"kind": kind, "step": step, **facts}
        self._run.log(record)
        for tracker in self._trackers:
            tracker.write(record)
