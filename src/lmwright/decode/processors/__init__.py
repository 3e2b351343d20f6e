"""Processors: one file each, listed from this folder, applied in the order of their ORDER.

A file defines `ORDER: int` (unique), `NEEDS_HISTORY: bool` and `process(logits_BV, value, history) -> logits_BV`.
Its name is that of the field of SamplingParams which holds `value`; it is applied where the field differs from its
default. A processor works in fp32, treats each row by itself, removes a token by minus infinity, and keeps at
least one.

The order is that of transformers: repetition_penalty, temperature, top_k, top_p, min_p. (vLLM has min_p before
top_k.) So top_p and min_p measure probabilities after the temperature, renormalised over what top_k kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from lmwright import seams

if TYPE_CHECKING:
    from torch import Tensor


class Processor(Protocol):
    """What a file of this folder provides."""

    ORDER: int
    NEEDS_HISTORY: bool

    def process(self, logits_BV: Tensor, value: Any, history: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits after this processor; the tensor given is left as it is.

        value: the field of SamplingParams, one for all rows. history: the tokens before this one, a row each.
        """
        ...


@cache
def processors() -> dict[str, Processor]:
    """Return the processors by name, in the order in which they are applied."""
    found = {name: cast(Processor, seams.load(__name__, name)) for name in seams.names(__name__)}
    return dict(sorted(found.items(), key=lambda item: item[1].ORDER))
