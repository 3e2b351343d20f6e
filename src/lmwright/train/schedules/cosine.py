"""Half a cosine down to the floor after a linear warm-up (Loshchilov & Hutter 2017, equation 5, one cycle)."""

from __future__ import annotations

import math
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
    wave = (1.0 + math.cos(math.pi * progress(step, warmup, total))) / 2.0
    return settings.floor + (1.0 - settings.floor) * wave
