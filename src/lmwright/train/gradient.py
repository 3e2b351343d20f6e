"""The gradient of one global batch, whole or in micro-batches, on one process or many: the same to rounding.

Each micro-batch adds the gradient of its summed loss. Only at the end is the whole divided, once, by the number of
targets of the whole batch, so ragged micro-batches weigh by their tokens; means of means would not. The division
and the clipping are one multiplication.

Every process makes as many micro-batches as the one with most rows, because under fsdp each is a collective call:
one that runs out of rows repeats its first one without labels, which adds nothing.

A recurrent model's micro-batches go on from the state of their rows (`train.carried`), where there is one: rows
packed from documents have none, for there the mixer begins each document anew.
"""

# B batch, T query

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch

from lmwright.data.batch import Batch
from lmwright.data.loader import part
from lmwright.data.pack import IGNORE_INDEX
from lmwright.errors import DataError
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.model.state import KVState
from lmwright.objectives import Objective
from lmwright.train.carried import Carried
from lmwright.train.parallel import Parallel
from lmwright.train.precision import DTYPES
from lmwright.train.sharded import whole


class NoTargetError(DataError):
    """A batch has no label to train on."""


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What a batch gave; the gradient itself lies in the parameters, divided and clipped.

    own_sums: nats of each micro-batch of this process. All else is of the whole batch: loss_sums: of every
    micro-batch. count: targets. norm: of the gradient before clipping.
    """

    own_sums: tuple[float, ...]
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
    parallel: Parallel | None = None,
    batch_size: int | None = None,
    carried: Carried | None = None,
) -> Gradient:
    """Leave the gradient of the batch's mean loss in the parameters.

    dropout: gives the random stream of a micro-batch by the place of its first row in the whole batch, or None for
    no dropout. recompute: blocks are computed again in the backward pass, which takes time and saves memory.
    parallel: how the model is shared, if it is; then `batch` is this process's part, as the loader cuts it, of
    `batch_size` rows. carried: what this process's rows go on from, and what holds, until it is told to keep it,
    what they leave behind. Raises NoTargetError if the whole batch has no target.
    """
    parallel = Parallel(model) if parallel is None else parallel
    ranks, rows = parallel.ranks, batch_size or len(batch.ids_BT)
    first, _ = part(rows, ranks.rank, ranks.world_size)
    most = math.ceil(math.ceil(rows / ranks.world_size) / micro_batch_size)
    for parameter in model.parameters():
        parameter.grad = None
    if carried is not None:
        carried.begin(batch.continues)
    sums, count, metrics = [], 0, dict[str, float]()
    for number in range(most):
        start = number * micro_batch_size
        micro, state = batch.rows(start, start + micro_batch_size), None
        if not len(micro.ids_BT):
            micro = _without_labels(batch.rows(0, 1))
        elif carried is not None:
            state = carried.rows(start, start + len(micro.ids_BT))
        ctx = _context(micro, state, precision, generator=dropout(first + start), recompute=recompute)
        with parallel.accumulating(last=number == most - 1):
            output = objective(parallel.called, micro, ctx)
            output.sum.backward()  # type: ignore[no-untyped-call]
        if state is not None:
            state.detach()
        # A penalty that is no number makes the loss none, too.
        sums.append(output.nats + 0.0 * output.sum.detach())
        count += output.count
        for name, value in output.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + value
    losses = torch.stack(sums).double().tolist()
    norm = gradient_norm(model.parameters())
    told = ranks.gather({"losses": losses, "count": count, "norm": norm, "metrics": metrics})
    count = sum(one["count"] for one in told)
    if count == 0:
        raise NoTargetError("a batch has no label to train on: every position is ignored")
    # The first process's norm, for all: machines may differ in the last bit, and their weights would drift apart.
    norm = scale_and_clip(model.parameters(), 1.0 / count, clip_norm, norm=told[0]["norm"])
    return Gradient(
        own_sums=tuple(losses),
        loss_sums=tuple(value for one in told for value in one["losses"]),
        count=count,
        norm=norm,
        metrics={name: math.fsum(one["metrics"].get(name, 0.0) for one in told) for name in metrics},
    )


def _context(
    batch: Batch, state: KVState | None, precision: str, *, generator: torch.Generator | None, recompute: bool
) -> Context:
    """Return what the forward call of a micro-batch is told; state: what its rows go on from, if they do."""
    dtype = DTYPES[precision]
    if state is not None:
        return Context.cached(
            state, batch.ids_BT, dtype=dtype, gradients=True, generator=generator, recompute=recompute
        )
    return Context.dense(
        batch.ids_BT,
        positions=batch.positions_BT,
        segments=batch.segments_BT,
        dtype=dtype,
        generator=generator,
        recompute=recompute,
    )


def _without_labels(batch: Batch) -> Batch:
    return replace(batch, labels_BT=torch.full_like(batch.labels_BT, IGNORE_INDEX))


def gradient_norm(parameters: Iterable[torch.nn.Parameter]) -> float:
    """Return the norm of all gradients as one vector; of whole ones where processes hold parts of them."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return float(whole(torch.nn.utils.get_total_norm(grads)))


def scale_and_clip(
    parameters: Iterable[torch.nn.Parameter], scale: float, clip_norm: float | None, *, norm: float | None = None
) -> float:
    """Multiply the gradients by `scale`, then by what brings their global norm down to `clip_norm`.

    norm: before that, if it is known. Returns the norm after scaling and before clipping (Pascanu et al. 2013,
    algorithm 1).
    """
    parameters = list(parameters)
    norm = scale * (gradient_norm(parameters) if norm is None else norm)
    if clip_norm is not None and norm > clip_norm:
        scale *= clip_norm / norm
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(scale)
    return norm
