"""What the schedules share: linear warm-up, and how far a decay has gone.

Both are drawn so that no update is wasted: the first warm-up step has 1/w of the peak and the last all of it; a
decay over n steps starts at the peak and would reach its floor one step after its last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from lmwright.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class WarmupSettings:
    """warmup_steps: updates until the peak is reached; None is a twentieth of the run, at most 1000."""

    warmup_steps: Annotated[int, Meta(ge=0)] | None = None

    def resolve(self, total: int) -> int:
        """Return the warm-up for a run of `total` steps. Raises ConfigError if it would not end."""
        warmup = min(total // 20, 1000) if self.warmup_steps is None else self.warmup_steps
        if warmup >= total and warmup > 0:
            raise ConfigError(f"schedule.warmup_steps = {warmup}: must be less than the run's {total} steps")
        return warmup


@dataclass(frozen=True, kw_only=True)
class DecaySettings(WarmupSettings):
    """floor: the fraction of the peak that the decay goes down to."""

    floor: Annotated[float, Meta(ge=0, le=1)] = 0.1


def warm_up(step: int, warmup: int) -> float | None:
    """Return (step + 1) / warmup during the warm-up, None after it."""
    return (step + 1) / warmup if step < warmup else None


def progress(step: int, start: int, end: int) -> float:
    """Return how much of the decay over the steps start .. end - 1 is done before `step`: 0 at start, 1 at end."""
    return (step - start) / (end - start)
