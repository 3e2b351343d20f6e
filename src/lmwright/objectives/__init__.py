"""Objectives: what a model is trained to do, each a pure function in a file of its own.

A file here, `NAME.py`, defines `loss(model, batch, ctx, *, z_loss=0.0) -> LossOutput`; the run file names it by
the file's name. It returns a sum and a count, never a mean: sums of micro-batches and of ranks add up, means of
ragged ones do not. It knows nothing of loops, optimisers or precision.
"""

from __future__ import annotations

import functools
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

    sum: scalar fp32 tensor with its graph, summed over the scored targets: what is minimised.
    nats: what is reported, detached: `sum` without penalties such as the z-loss, in nats.
    count: number of scored targets.
    metrics: further sums over the same targets; the log divides them by the count.
    """

    sum: torch.Tensor
    nats: torch.Tensor
    count: int
    metrics: Mapping[str, float] = field(default_factory=dict)


Objective: TypeAlias = "Callable[[LanguageModel, Batch, Context], LossOutput]"


def load(name: str, *, z_loss: float = 0.0) -> Objective:
    """Return the loss function of the objective `name`. Raises ConfigError, with the nearest, if there is none.

    z_loss: weight of the squared logarithm of the softmax's denominator (see `_cross_entropy`).
    """
    loss: Objective = functools.partial(seams.load(__name__, name).loss, z_loss=z_loss)
    return loss
