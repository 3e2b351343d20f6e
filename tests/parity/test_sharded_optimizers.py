"""Optimisers and the average over parameters that two processes hold in parts, against the same in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from lmwright import seams
from lmwright.train.average import WeightAverage
from lmwright.train.optimizers import Optimizer

PACKAGE = "lmwright.train.optimizers"
SHAPES = {"layer.weight": (7, 5), "other.weight": (7, 5), "layer.bias": (5,), "embedding.weight": (11, 4)}
RANKS, STEPS, SAVED = 2, 4, 2


def drawn(number: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(number)
    return {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}


def build(name: str, parameters: dict[str, torch.nn.Parameter]) -> Optimizer:
    part = seams.load(PACKAGE, name)
    made: Optimizer = part.build(parameters, part.Settings(lr=1e-2))
    return made


def trained(name: str, cut: Any) -> dict[str, torch.Tensor]:
    """Take some steps, with all state saved and loaded on the way; return weights, averages and state, whole."""
    from lmwright.train.sharded import whole

    parameters = {key: torch.nn.Parameter(cut(tensor)) for key, tensor in drawn(0).items()}
    optimizer, average = build(name, parameters), WeightAverage(parameters, 0.9)
    for step in range(STEPS):
        if step == SAVED:
            state = {key: whole(tensor).clone() for key, tensor in optimizer.tensors().items()}
            averages = {key: whole(tensor).clone() for key, tensor in average.tensors().items()}
            optimizer, average = build(name, parameters), WeightAverage(parameters, 0.9)
            optimizer.load(state)
            average.load(averages, step)
        for key, gradient in drawn(100 + step).items():
            parameters[key].grad = cut(gradient)
        optimizer.step(1 / (step + 1))
        average.update()
    with average.applied():
        found = {f"average {key}": whole(tensor.detach()).clone() for key, tensor in parameters.items()}
    found |= {f"weight {key}": whole(tensor.detach()) for key, tensor in parameters.items()}
    return found | {f"state {key}": whole(tensor) for key, tensor in optimizer.tensors().items()}


def be_one_of_two(rank: int, store: str) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    try:
        mesh = init_device_mesh("cpu", (RANKS,))

        def cut(tensor: torch.Tensor) -> torch.Tensor:
            return distribute_tensor(tensor, mesh, [Shard(0)])

        assert isinstance(cut(torch.ones(7, 5)), DTensor)
        for name in seams.names(PACKAGE):
            found, expected = trained(name, cut), trained(name, lambda tensor: tensor.clone())
            assert found.keys() == expected.keys()
            for key, tensor in expected.items():
                torch.testing.assert_close(found[key], tensor, rtol=1e-6, atol=1e-6, msg=f"{name} {key}")
    finally:
        dist.destroy_process_group()


def test_parts_of_a_model_are_updated_as_the_whole_would_be(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(be_one_of_two, args=(str(tmp_path / "store"),), nprocs=RANKS)
