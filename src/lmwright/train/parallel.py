"""How the processes of a run share the work of one model: each a copy of it, or each a part.

- `ddp`: every process has the whole model. Gradients are summed once an update, while the last micro-batch's
  backward pass still runs (Li et al. 2020, PyTorch Distributed; torch's DistributedDataParallel).
- `fsdp`: every process keeps a part of each parameter, gradient and optimiser state, and has a block's whole
  weights only while it computes the block (Rajbhandari et al. 2020, ZeRO stage 3; torch's fully_shard). Gradients
  are summed and cut after each micro-batch, so none is ever whole. Embeddings, last norm and head stay gathered
  from the forward to the backward pass, since a loss takes the logits in between. Weights travel in fp32, in which
  they are kept: gathered in bf16, gains and embeddings would be rounded, and the result would depend on how many
  processes there are.

Gradients are sums over all processes, never means: dividing by the count of targets comes after (`gradient`).
The paths for GPUs (NCCL) are those of torch; they could not be run where this was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from lmwright.model.language_model import LanguageModel
from lmwright.train.ranks import SINGLE, Ranks


class Parallel:
    """A model as the processes share it; this one: by one process, so not at all.

    model: with the names and parameters of this process (parts of them under fsdp). called: what an objective is
    given as the model.
    """

    def __init__(self, model: LanguageModel, ranks: Ranks = SINGLE) -> None:
        self.model = model
        self.called = model
        self.ranks = ranks

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Surround forward and backward of a micro-batch; last: the update's last one on this process."""
        return nullcontext()

    def settle(self) -> None:
        """Let the parameters be read and written after forward calls that no backward pass followed."""


class Copies(Parallel):
    """A whole model in each process."""

    def __init__(self, model: LanguageModel, ranks: Ranks) -> None:
        super().__init__(model, ranks)
        self._wrapped = _Copy(model, gradient_as_bucket_view=True)
        # Torch's own rule would take the mean. It looks at a hook's annotations, and cannot read ours.
        self._wrapped.register_comm_hook(None, lambda _, bucket: _summed(bucket))
        self.called = cast(LanguageModel, self._wrapped)

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Sum gradients over the processes in the last micro-batch alone."""
        return nullcontext() if last else self._wrapped.no_sync()


class Parts(Parallel):
    """A part of the model in each process: rows of every parameter."""

    def __init__(self, model: LanguageModel, ranks: Ranks, device: str) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        super().__init__(model, ranks)
        mesh = init_device_mesh(device, (ranks.world_size,))
        for block in model.model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for module in self._sharded():
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    def settle(self) -> None:
        """Give up the root's gathered parameters, which a forward call alone leaves behind."""
        for module in self._sharded():
            module.reshard()

    def _sharded(self) -> Iterator[Any]:
        from torch.distributed.fsdp import FSDPModule

        return (module for module in self.model.modules() if isinstance(module, FSDPModule))


def distribute(model: LanguageModel, mode: Literal["ddp", "fsdp"], ranks: Ranks, device: str) -> Parallel:
    """Share a model that every process has made alike among them, and put it on `device`; one process keeps it.

    Under fsdp its parameters are replaced, so what holds on to them (optimiser, average) is built afterwards. Each
    process holds the whole model up to here, in the CPU's memory.
    """
    if mode == "fsdp" and ranks.several:
        return Parts(model, ranks, device)
    model.to(device)
    return Copies(model, ranks) if ranks.several else Parallel(model, ranks)


class _Copy(DistributedDataParallel):
    """Torch's wrapper, through which the model's own attributes are seen: `config`, `logits`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def _summed(bucket: Any) -> torch.futures.Future[torch.Tensor]:
    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None

    def first(done: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
        return done.value()[0]

    future: torch.futures.Future[torch.Tensor] = work.get_future().then(first)
    return future
