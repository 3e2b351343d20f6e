"""Linear decay to the floor after a linear warm-up."""

from __future__ import annotations

from dataclasses import dataclass

from lmwright.train.schedules._shared import DecaySettings, progress, warm_up


@dataclass(frozen=True, kw_only=True)
class Settings(DecaySettings):
    """Warm-up and floor."""


def factor(step: int, total: int, settings: Settings) -> float:
    """Return the fraction of the peak for update `step` of `total`."""
    warmup = settings.resolve(total)
    warming = warm_up(step, warmup)
    if warming is not None:
        return warming
    return 1.0 - (1.0 - settings.floor) * progress(step, warmup, total)
