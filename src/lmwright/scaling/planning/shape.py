"""From a number of parameters to a model: width, layers, heads, feed-forward size. Deterministic.

Loss depends on the number of parameters far more than on their arrangement: within a factor of two around the best
ratio of width to layers it moves by about 1% (Kaplan et al. 2020, arXiv:2001.08361, section 3.1, figure 5). So the
ratio is a choice: 64, as GPT-2 small has it, within half and twice that. Widths are multiples that matrix units
take whole. The count is that of `scaling.flops`, exact. Knows nothing of losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lmwright import seams
from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.scaling.flops import Convention, count_parameters

ASPECT = 64.0  # width by layers
FARTHEST = 2.0  # times the ratio, and parts of it, that are still chosen
FEWEST_LAYERS = 2  # one layer cannot look up what followed a token before
HEAD, SMALL_HEAD = 64, 32  # width of a head; the small one below SMALL, where 64 leaves no choice
SMALL = 256
COARSE, COARSE_FROM = 128, 1024  # multiples of the width of large models
MOST_WIDTH = 2**15
SIZE_WEIGHT = 16.0  # of ln(size)^2 beside ln(ratio)^2: 5% of size weigh as 20% of ratio

Make = Callable[[int, int], ModelConfig]


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """A model for an asked size. asked: by `convention`; parameters: what it has, so counted."""

    config: ModelConfig
    asked: float
    parameters: int
    convention: Convention
    reason: str


def counted(config: ModelConfig, convention: Convention) -> int:
    """Return N by a convention. kaplan: without embeddings and head. chinchilla: all."""
    count = count_parameters(config)
    return count.non_embedding if convention == "kaplan" else count.total


def shape(
    parameters: float,
    *,
    vocab_size: int,
    length: int,
    convention: Convention,
    family: str = "llama",
    aspect: float = ASPECT,
    **fixed: Any,
) -> Shaped:
    """Return the model nearest to a size whose ratio of width to layers is near `aspect`.

    length: positions. fixed: other fields of ModelConfig, such as tie_embeddings. The nearest has the least
    16 ln(N / asked)^2 + ln(ratio / aspect)^2; of two as near, the narrower. Raises ConfigError where none has
    between half and twice the size, as below the smallest, whose embeddings alone may be larger.
    """
    if not (math.isfinite(parameters) and parameters > 0 and math.isfinite(aspect) and aspect > 0):
        raise ConfigError(f"shape: {parameters} parameters, ratio {aspect}; both must be positive and finite")

    usual = seams.load("lmwright.model.families", family).defaults()

    def make(width: int, layers: int) -> ModelConfig:
        heads = width // (SMALL_HEAD if width < SMALL else HEAD)
        sizes = {"hidden_size": width, "num_layers": layers, "num_heads": usual.get("num_heads", heads)}
        return ModelConfig.of_family(family, **{**sizes, **fixed}, vocab_size=vocab_size, max_positions=length)

    def distance(model: ModelConfig) -> float:
        size, ratio = counted(model, convention) / parameters, model.hidden_size / model.num_layers / aspect
        return SIZE_WEIGHT * math.log(size) ** 2 + math.log(ratio) ** 2

    best = min(_candidates(make, parameters, convention, aspect), key=distance)
    number = counted(best, convention)
    if not 0.5 <= number / parameters <= 2:
        raise ConfigError(
            f"shape: no {family} of {parameters:.3g} parameters ({convention}) with a vocabulary of "
            f"{vocab_size:,}; the nearest has {number:,}; change the size or the vocabulary"
        )
    reason = _reason(best, number, parameters, aspect)
    return Shaped(config=best, asked=parameters, parameters=number, convention=convention, reason=reason)


def widths() -> Iterator[int]:
    """Yield the widths that are tried, rising: multiples of 32 below 256, of 64 below 1,024, of 128 above."""
    width = SMALL_HEAD
    while width <= MOST_WIDTH:
        yield width
        width += SMALL_HEAD if width < SMALL else HEAD if width < COARSE_FROM else COARSE


def _candidates(make: Make, parameters: float, convention: Convention, aspect: float) -> Iterator[ModelConfig]:
    """Yield the smallest model, and for each width that is not too large those on both sides of the size."""
    for width in widths():
        low = max(FEWEST_LAYERS, math.ceil(width / (aspect * FARTHEST)))
        high = max(low, math.floor(width * FARTHEST / aspect))
        fewest = make(width, low)
        yield fewest
        least = counted(fewest, convention)
        if least > 2 * parameters:
            return
        a_layer = counted(make(width, low + 1), convention) - least
        wanted = low + (parameters - least) / a_layer
        for layers in {math.floor(wanted), math.ceil(wanted)}:
            yield make(width, min(max(layers, low), high))


def _reason(model: ModelConfig, number: int, asked: float, aspect: float) -> str:
    heads = f"; {model.num_heads} heads of {model.dim_per_head}, feed-forward of {model.ffn_size}"
    return (
        f"{number:,} parameters ({number / asked - 1:+.1%} of {asked:.3g}): width {model.hidden_size} by "
        f"{model.num_layers} layers, ratio {model.hidden_size / model.num_layers:.0f} for {aspect:.0f}, on which "
        f"loss hardly depends (Kaplan et al. 2020){'' if model.recurrent else heads}"
    )
