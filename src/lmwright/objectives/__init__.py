"""Objectives: what a model is trained to do, each a pure function in a file of its own.

A file here, `NAME.py`, defines `loss(model, batch, ctx) -> LossOutput`; the run file names it by the file's name.
It returns a sum and a count, never a mean: sums of micro-batches and of ranks add up, means of ragged ones do not.
It knows nothing of loops, optimisers or precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from lmwright import seams

if TYPE_CHECKING:
    import torch

    from lmwright.data.batch import Batch
    from lmwright.model.context import Context
    from lmwright.model.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """The loss of one micro-batch.

    sum: scalar fp32 tensor with its graph, in nats, summed over the scored targets.
    count: number of scored targets.
    metrics: further sums over the same targets; the log divides them by the count.
    """

    sum: torch.Tensor
    count: int
    metrics: Mapping[str, float] = field(default_factory=dict)


Objective: TypeAlias = "Callable[[LanguageModel, Batch, Context], LossOutput]"


def load(name: str) -> Objective:
    """Return the loss function of the objective `name`. Raises ConfigError, with the nearest, if there is none."""
    loss: Objective = seams.load(__name__, name).loss
    return loss
