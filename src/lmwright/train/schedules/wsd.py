"""Warm-up, stable, decay (Hu et al. 2024, MiniCPM, section 4): the peak is held and let down at the end.

The decay is linear or 1 - sqrt (Hägele et al. 2024, section 3.1). A run can be continued from its stable part with
another length, which cosine does not allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from lmwright.errors import ConfigError
from lmwright.train.schedules._shared import DecaySettings, progress, warm_up


@dataclass(frozen=True, kw_only=True)
class Settings(DecaySettings):
    """decay_steps: length of the decay; None is a fifth of the run. shape: 'linear' or 'sqrt' (1 - sqrt)."""

    decay_steps: Annotated[int, Meta(ge=0)] | None = None
    shape: Literal["linear", "sqrt"] = "sqrt"

    def decay(self, total: int) -> int:
        """Return the length of the decay. Raises ConfigError if it does not fit beside the warm-up."""
        length = total // 5 if self.decay_steps is None else self.decay_steps
        if length + self.resolve(total) > total:
            raise ConfigError(
                f"schedule.decay_steps = {length}: with {self.resolve(total)} warm-up steps it exceeds the "
                f"run's {total} steps"
            )
        return length


def factor(step: int, total: int, settings: Settings) -> float:
    """Return the fraction of the peak for update `step` of `total`."""
    start = total - settings.decay(total)
    warming = warm_up(step, settings.resolve(total))
    if warming is not None:
        return warming
    if step < start:
        return 1.0
    done = progress(step, start, total)
    return 1.0 - (1.0 - settings.floor) * (math.sqrt(done) if settings.shape == "sqrt" else done)
