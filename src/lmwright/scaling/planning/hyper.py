"""Batch, steps, learning rate, warm-up and weight decay of a planned run, each with its reason in words.

Rate and batch come from rules: one's own sweep where there is one, a published prior else (`scaling.sweep`).
What a rule wants is bent where it must be: a batch is a whole number of sequences and leaves enough updates,
and the rate follows the batch by the square root.
Knows nothing of the machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.scaling.priors import Scale, power_lines
from lmwright.scaling.sweep import Rule, Swept, at_batch, fit_sweep

CEILING = 2e-2  # of a rate that was not measured: no model of any size was best above it (docs/results)
FEWEST_UPDATES = 200  # below, a schedule has no room for its warm-up and its decay
WARMUP_SHARE = 0.1  # of the run, at most
LEAST_DECAY, MOST_DECAY = 0.01, 0.2  # half a decade and more around the usual 0.1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is trained with. batch_size: sequences in an update. reasons: by the name of the setting.

    wanted_rate: what the rule gives at this batch, which learning_rate is where it is at most `ceiling`.
    """

    batch_size: int
    steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    reasons: dict[str, str]
    wanted_rate: float
    ceiling: float


def choose(config: ModelConfig, tokens: float, length: int, *, rules: Swept | None = None) -> Settings:
    """Choose the settings for a model that is trained on `tokens` in sequences of `length`.

    rules: of a sweep; None: the priors alone. Steps are rounded down, so that no more than `tokens` are read.
    Raises ConfigError where the tokens are fewer than one sequence.
    """
    if not tokens >= length:
        raise ConfigError(f"hyper: {tokens:.3g} tokens are less than one sequence of {length}")
    rules = rules or fit_sweep([])
    scale = Scale.of(config, tokens, length)
    reasons: dict[str, str] = {}
    batch_size = _batch(rules.batch_tokens, scale, length, reasons)
    steps = int(tokens // (batch_size * length))
    reasons["steps"] = f"{tokens:.4g} tokens by {batch_size * length:,} in an update, rounded down"
    wanted_rate = _rate(rules, scale, batch_size * length, reasons)
    ceiling = math.inf if rules.learning_rate.coefficients else CEILING
    learning_rate = min(wanted_rate, ceiling)
    reasons["learning_rate"] += _lowered(wanted_rate, ceiling)
    return Settings(
        batch_size=batch_size,
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=_warmup(scale, batch_size * length, steps, reasons),
        weight_decay=decay(scale, batch_size * length, learning_rate, reasons),
        reasons=reasons,
        wanted_rate=wanted_rate,
        ceiling=ceiling,
    )


def moved(
    chosen: Settings, config: ModelConfig, length: int, *, batch_size: int, steps: int, reasons: Mapping[str, str]
) -> Settings:
    """Return the settings at another batch, or for so many steps.

    The rate that the rule wants goes by the square root of the batch, and is lowered to the ceiling at the new
    one; the warm-up has as many tokens as were chosen, or its share of the run; the decay is what it would be of
    these. reasons: for batch and steps.
    """
    said = {**chosen.reasons, **reasons}
    wanted_rate = at_batch(chosen.wanted_rate, chosen.batch_size, batch_size)
    rate = min(wanted_rate, chosen.ceiling)
    if batch_size != chosen.batch_size:
        reason = said["learning_rate"].removesuffix(_lowered(chosen.wanted_rate, chosen.ceiling))
        reason += f"; from a batch of {chosen.batch_size} to {batch_size} likewise"
        said["learning_rate"] = reason + _lowered(wanted_rate, chosen.ceiling)
    warmup = round(chosen.warmup_steps * chosen.batch_size / batch_size)
    return Settings(
        batch_size=batch_size,
        steps=steps,
        learning_rate=rate,
        warmup_steps=min(warmup, math.floor(WARMUP_SHARE * steps)),
        weight_decay=decay(Scale.of(config, steps * batch_size * length, length), batch_size * length, rate, said),
        reasons=said,
        wanted_rate=wanted_rate,
        ceiling=chosen.ceiling,
    )


def schedule(warmup_steps: int) -> dict[str, Any]:
    """Return the schedule of a run that ends: the rate is held, and let down to nothing over the last fifth.

    A law that was fitted to such runs foretells no other (Hägele et al. 2024, arXiv:2405.18392, section 3).
    """
    return {"name": "wsd", "warmup_steps": warmup_steps, "floor": 0.0}  # a fifth is what wsd takes by itself


def _batch(rule: Rule, scale: Scale, length: int, reasons: dict[str, str]) -> int:
    """Return sequences in an update: the nearest power of two, but so few that there are enough updates."""
    wanted = rule.value(scale)
    size = 1 << max(0, round(math.log2(wanted / length)))
    most = max(1, math.floor(scale.tokens / (FEWEST_UPDATES * length)))
    reasons["batch_size"] = f"{wanted:,.0f} tokens by {rule.reason(scale)}; the nearest power of two of sequences"
    if size > most:
        size = most
        reasons["batch_size"] += f", lowered so that there are {FEWEST_UPDATES} updates where tokens allow it"
    return size


def _rate(rules: Swept, scale: Scale, batch_tokens: int, reasons: dict[str, str]) -> float:
    """Return the rule's peak rate, by the square root of the batch over that which the rule has in mind."""
    rule = rules.learning_rate
    reasons["learning_rate"] = f"{rule.reason(scale)}; by the square root of the batch over the batch rule's"
    return at_batch(rule.value(scale), rules.batch_tokens.value(scale), batch_tokens)


def _lowered(wanted_rate: float, ceiling: float) -> str:
    """Return the end of the rate's reason where the ceiling lowers it, else nothing."""
    if wanted_rate <= ceiling:
        return ""
    return f"; {wanted_rate:.2g} lowered to {ceiling:g}, above which no model was best"


def _warmup(scale: Scale, batch_tokens: int, steps: int, reasons: dict[str, str]) -> int:
    wanted = math.ceil(scale.total / batch_tokens)
    most = max(1, math.floor(WARMUP_SHARE * steps))
    reasons["warmup_steps"] = "as many tokens as parameters (Porian et al. 2024, arXiv:2406.19146, section 3.3)"
    if wanted > most:
        reasons["warmup_steps"] += f", but at most {WARMUP_SHARE:.0%} of the run"
    return min(wanted, most)


def decay(scale: Scale, batch_tokens: int, learning_rate: float, reasons: dict[str, str]) -> float:
    """Return AdamW's weight decay of a run at such a batch and rate, and say why in `reasons`."""
    share = power_lines.timescale(scale)
    wanted = batch_tokens / (learning_rate * scale.tokens * share)
    decay = min(max(wanted, LEAST_DECAY), MOST_DECAY)
    reasons["weight_decay"] = (
        f"{wanted:.3g} makes AdamW remember {share:.0%} of the run, the best for {scale.tokens / scale.total:.3g} "
        f"tokens a parameter ({power_lines.SOURCE})"
    )
    if decay != wanted:
        reasons["weight_decay"] += f"; kept within {LEAST_DECAY} to {MOST_DECAY}"
    return decay
