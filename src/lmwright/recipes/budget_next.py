"""The small runs that would make a planned run's prediction surer, or give it one. Torch-free."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.recipes.budget_basis import LawUsed
from lmwright.recipes.budget_run import shaped
from lmwright.scaling import laws
from lmwright.scaling.fit.bootstrap import FEWEST
from lmwright.scaling.flops import count_parameters, flops_per_token
from lmwright.scaling.planning import allocate, from_draws, hyper, shape

GRID_SHARES, GRID_SIZES = (0.01, 0.03, 0.1), (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)  # of compute, and of parameters
NEXT = 3
FIRST_SIZES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # of a model's parameters


@dataclass(frozen=True, kw_only=True)
class SmallRun:
    """A run that would make the prediction surer. spread: of ln L at the plan, after it and those before it."""

    parameters: int
    tokens: float
    flops: float
    spread: float


def first_sizes(model: ModelConfig, length: int) -> list[float]:
    """Return the parameters of up to NEXT small models, by whose losses that of `model` could be foretold.

    They are no larger than half of it where there are such models.
    """
    largest = count_parameters(model).total
    found: dict[ModelConfig, float] = {}
    for part in FIRST_SIZES:
        size = float(f"{part * largest:.3g}")
        with contextlib.suppress(ConfigError):  # no model is so small
            small = shape.shape(
                size, vocab_size=model.vocab_size, length=length, convention="chinchilla", family=model.family,
                tie_embeddings=True,
            )  # fmt: skip
            found.setdefault(small.config, size)
    return list(found.values())[:NEXT]


def next_runs(
    used: LawUsed,
    flops: float,
    best: allocate.Allocation,
    vocab: int,
    length: int,
    family: str,
    unique: int,
) -> tuple[float | None, tuple[SmallRun, ...]]:
    """Return the spread of ln L at the best allocation, and the cheap runs that lower it most."""
    used = used.seen(best.tokens, unique)
    fitted = used.fitted
    if fitted is None or len(fitted.draws) < FEWEST:
        return None, ()
    offered: list[tuple[int, float, float]] = []
    for part in GRID_SIZES:
        model, _, _ = shaped(part * best.parameters, vocab, length, used.convention, family)
        for share in GRID_SHARES:
            cost = flops_per_token(model, length)
            tokens = min(share * flops / cost, allocate.MANY_EPOCHS * unique)
            if tokens >= length * hyper.FEWEST_UPDATES:
                offered.append((shape.counted(model, used.convention), tokens, tokens * cost))
    offered = sorted(set(offered))
    if not offered:
        return None, ()

    def columns(parameters: list[float], tokens: list[float]) -> dict[str, list[float]]:
        by_name = {
            "parameters": parameters,
            "tokens": tokens,
            "unique_tokens": [min(unique, count) for count in tokens],
        }
        return {name: by_name[name] for name in laws.load(used.name).INPUTS}

    found = from_draws.next_runs(
        used.name,
        np.array(fitted.draws),
        columns([float(row[0]) for row in offered], [row[1] for row in offered]),
        columns([best.parameters], [best.tokens]),
        scale=max(fitted.scale, 1e-6),
        count=NEXT,
    )
    runs = tuple(
        SmallRun(
            parameters=offered[one.row][0], tokens=offered[one.row][1], flops=offered[one.row][2], spread=one.after
        )
        for one in found
    )
    return found[0].before, runs
