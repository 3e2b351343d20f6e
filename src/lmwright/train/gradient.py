"""The gradient of one global batch, whole or in micro-batches: the same to rounding.

Each micro-batch adds the gradient of its summed loss. Only at the end is the whole divided, once, by the number of
targets of the whole batch, so ragged micro-batches weigh by their tokens; means of means would not. The division
and the clipping are one multiplication.
"""

# B batch, T query

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from lmwright.data.batch import Batch
from lmwright.errors import DataError
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import Objective
from lmwright.train.precision import DTYPES


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What a batch gave; the gradient itself lies in the parameters, divided and clipped.

    loss_sums: nats of each micro-batch. count: targets of the batch. norm: global, before clipping.
    """

    loss_sums: tuple[float, ...]
    count: int
    norm: float
    metrics: dict[str, float]

    @property
    def loss_sum(self) -> float:
        """Nats of the batch."""
        return math.fsum(self.loss_sums)

    @property
    def finite(self) -> bool:
        """Whether loss and norm are numbers to go on with."""
        return math.isfinite(self.norm) and all(math.isfinite(value) for value in self.loss_sums)


def compute(
    model: LanguageModel,
    objective: Objective,
    batch: Batch,
    *,
    micro_batch_size: int,
    precision: str,
    clip_norm: float | None,
    dropout: Callable[[int], torch.Generator | None],
    recompute: bool = False,
) -> Gradient:
    """Leave the gradient of the batch's mean loss in the parameters.

    dropout: gives the random stream of a micro-batch by its number, or None for no dropout. recompute: blocks are
    computed again in the backward pass, which takes time and saves memory.
    Raises DataError if the batch has no target.
    """
    for parameter in model.parameters():
        parameter.grad = None
    sums, count, metrics = [], 0, dict[str, float]()
    for number, start in enumerate(range(0, len(batch.ids_BT), micro_batch_size)):
        micro = batch.rows(start, start + micro_batch_size)
        ctx = Context.dense(
            micro.ids_BT,
            positions=micro.positions_BT,
            segments=micro.segments_BT,
            dtype=DTYPES[precision],
            generator=dropout(number),
            recompute=recompute,
        )
        output = objective(model, micro, ctx)
        output.sum.backward()  # type: ignore[no-untyped-call]
        # A penalty that is no number makes the loss none, too.
        sums.append(output.nats + 0.0 * output.sum.detach())
        count += output.count
        for name, value in output.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + value
    if count == 0:
        raise DataError("a batch has no label to train on: every position is ignored")
    norm = scale_and_clip(model.parameters(), 1.0 / count, clip_norm)
    losses = tuple(torch.stack(sums).double().tolist())
    return Gradient(loss_sums=losses, count=count, norm=norm, metrics=metrics)


def scale_and_clip(parameters: Iterable[torch.nn.Parameter], scale: float, clip_norm: float | None) -> float:
    """Multiply the gradients by `scale`, then by what brings their global norm down to `clip_norm`.

    Returns the norm after scaling and before clipping (Pascanu et al. 2013, algorithm 1).
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = scale * float(torch.nn.utils.get_total_norm(grads))
    if clip_norm is not None and norm > clip_norm:
        scale *= clip_norm / norm
    for grad in grads:
        grad.mul_(scale)
    return norm
