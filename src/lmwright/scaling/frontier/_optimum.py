"""The least loss that a law allows under a budget, in one dimension: how large, and so how long.

With f(N) the training FLOPs of a token, and T tokens to be read by the finished model at f/3 each (a forward
pass; 2N where f = 6N; Sardana et al. 2023, arXiv:2401.00448), the budget leaves D(N) = C / f(N) - T / 3. What
is minimised over ln N is ln L(N, D(N)). For laws without a closed form, such as that of repeated data, and for
exact FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling.frontier import Optimum
from lmwright.scaling.laws import Law
from lmwright.scaling.points import Floats

PerToken = Callable[[Floats], Floats]  # N -> training FLOPs of a token
GRID, ZOOM = 4001, 41
NARROW = 1e-3  # of ln N: from here on the slope decides, which is sharper than the height
# Central difference of the eighth order: with this step, error and rounding are both below 1e-13.
STEP = 0.02
WEIGHTS = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280])
AGREE = 1e-9


def six_n(parameters: Floats) -> Floats:
    """Return 6N, the training FLOPs of a token without attention's part."""
    return 6.0 * parameters


def best(
    law: Law,
    theta_P: Floats,
    flops: float,
    *,
    per_token: PerToken = six_n,
    unique_tokens: float | None = None,
    inference_tokens: float = 0.0,
) -> Optimum:
    """Return the allocation with the least loss. unique_tokens: None where there are always new ones.

    Raises ConfigError where the law reads no N or no D, where the budget is too small for what is to be read, or
    where the law has no best allocation.
    """
    if not {"parameters", "tokens"} <= set(law.INPUTS) <= {"parameters", "tokens", "unique_tokens"}:
        raise ConfigError(f"frontier: the law reads {', '.join(law.INPUTS)}; to allocate it must read N and D")
    if not (math.isfinite(flops) and flops > 0 and inference_tokens >= 0):
        raise ConfigError(f"frontier: {flops} FLOPs and {inference_tokens} tokens to read; give a positive budget")
    if unique_tokens is not None and not unique_tokens > 0:
        raise ConfigError(f"frontier: {unique_tokens} unique tokens; must be positive")

    def tokens(log_n: Floats) -> Floats:
        return flops / per_token(np.exp(log_n)) - inference_tokens / 3

    def height(log_n: Floats) -> Floats:
        spent = tokens(log_n)
        fine = spent >= 1
        log_d = np.log(np.where(fine, spent, 1.0))
        log_u = log_d if unique_tokens is None else np.minimum(log_d, math.log(unique_tokens))
        columns = {"parameters": log_n, "tokens": log_d, "unique_tokens": log_u}
        return np.where(fine, law.log_loss(theta_P[None], columns)[0][0], np.inf)

    log_n = np.array([_lowest(height, math.log(flops))])
    return Optimum(
        flops=flops,
        parameters=float(np.exp(log_n)[0]),
        tokens=float(tokens(log_n)[0]),
        loss=float(np.exp(height(log_n))[0]),
    )


def _lowest(height: Callable[[Floats], Floats], high: float) -> float:
    """Return ln N of the least height up to `high`: by a grid, by narrower ones, then where the slope is 0."""
    places = np.linspace(0.0, high, GRID)
    heights = height(places)
    lowest = int(heights.argmin())
    if not np.isfinite(heights[lowest]):
        raise ConfigError("frontier: the budget does not pay for reading so many tokens, whatever the model")
    if lowest == 0 or not np.isfinite(heights[lowest + 1 : lowest + 2]).any():
        raise ConfigError("frontier: under this law no model is the best: its loss falls to the end of the budget")
    low, high = places[lowest - 1], places[lowest + 1]
    while high - low > NARROW:
        places = np.linspace(low, high, ZOOM)
        lowest = min(max(int(height(places).argmin()), 1), ZOOM - 2)
        low, high = places[lowest - 1], places[lowest + 1]
    one, two = (_root(height, low, high, step) for step in (STEP, STEP / 2))
    if abs(one - two) <= AGREE and low + AGREE < one < high - AGREE:
        return one
    # The law bends sharply here, as where data begin to repeat: heights alone, to half the digits.
    places = np.linspace(low, high, 2001)
    return float(places[int(height(places).argmin())])


def _root(height: Callable[[Floats], Floats], low: float, high: float, step: float) -> float:
    """Return where the slope changes its sign, by bisection."""
    shifts: Floats = step * np.arange(1.0, len(WEIGHTS) + 1)

    def slope(place: float) -> float:
        with np.errstate(invalid="ignore"):  # where a budget pays for nothing, heights are infinite
            return float(WEIGHTS @ np.subtract(height(place + shifts), height(place - shifts)))

    for _ in range(80):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2
