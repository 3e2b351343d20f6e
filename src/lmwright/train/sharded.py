"""Tensors that several processes hold in parts (DTensor, of FSDP2), where an update needs the whole of one.

What works element by element takes parts as they are and needs nothing from here. Both functions leave an ordinary
tensor alone, and `whole` is a collective call: every process must make it, in the same order.
"""

from __future__ import annotations

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this process holds a part of `tensor`. By its method: importing DTensor takes a second."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor, gathered from all processes if they hold parts of it."""
    if not is_sharded(tensor):
        return tensor
    full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full


def shard_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Return this process's part of a whole tensor that every process has, cut as `parameter` is."""
    if not is_sharded(parameter) or is_sharded(tensor):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    # No source rank: each process cuts its part out of its own copy, and nothing is sent.
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
