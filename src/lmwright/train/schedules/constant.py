"""Constant learning rate after a linear warm-up."""

from __future__ import annotations

from dataclasses import dataclass

from lmwright.train.schedules._shared import WarmupSettings, warm_up


@dataclass(frozen=True, kw_only=True)
class Settings(WarmupSettings):
    """Nothing but the warm-up can be set."""


def factor(step: int, total: int, settings: Settings) -> float:
    """Return the fraction of the peak for update `step` of `total`."""
    warming = warm_up(step, settings.resolve(total))
    return 1.0 if warming is None else warming
