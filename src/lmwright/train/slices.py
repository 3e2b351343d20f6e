"""Named tensors of which each process holds some rows, as files: each process writes what it has.

    NAME.safetensors                     tensors that every process has whole: the first one writes them
    NAME-00002-of-00004.safetensors      the rows of the second of four processes; the rows of a tensor follow each
                                         other in the order of files, and what is not cut is in the first file

fully_shard cuts the first dimension of n into ceil(n / processes) rows each, so the last ones may have fewer or
none; other tensors are cut as their owner has it (`write_rows`). Reading takes the rows that are asked for out of
whatever files there are: any number of processes reads what any number wrote, and none ever has more than its own
rows. Knows nothing of optimisers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lmwright.errors import CheckpointError
from lmwright.model import weights
from lmwright.train.ranks import Ranks
from lmwright.train.sharded import is_sharded


def own_part(tensor: Tensor) -> Tensor:
    """Return the rows of `tensor` that this process holds, in their own memory; a whole tensor itself."""
    if not is_sharded(tensor):
        return tensor
    part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def rows(count: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return the first row, and the one after the last, that fully_shard gives to a process."""
    each = math.ceil(count / world_size)
    return min(count, each * rank), min(count, each * (rank + 1))


def own_rows(tensor: Tensor) -> tuple[int, int]:
    """Return the first row, and the one after the last, of `tensor` that this process holds."""
    if not is_sharded(tensor):
        return 0, len(tensor)
    mesh = tensor.device_mesh  # type: ignore[attr-defined]
    first, end = rows(len(tensor), mesh.get_local_rank(), mesh.size())
    assert end - first == len(own_part(tensor)), "torch cuts otherwise"
    return first, end


def write(tensors: Mapping[str, Tensor], directory: Path, name: str, ranks: Ranks) -> None:
    """Write this process's file of the tensors; where they are not cut, only the first process has one."""
    cut = {key for key, tensor in tensors.items() if is_sharded(tensor)}
    own = {key: own_part(tensor).detach() for key, tensor in tensors.items() if key in cut or ranks.first}
    if cut:
        own = {key: tensor.cpu().contiguous() for key, tensor in own.items()}
        write_file(own, directory / _file(name, ranks.rank, ranks.world_size))
    elif ranks.first:
        write_file(own, directory / f"{name}.safetensors")


def write_rows(tensors: Mapping[str, Tensor], directory: Path, name: str, ranks: Ranks) -> None:
    """Write this process's file of tensors of which each process has some rows, in the order of ranks."""
    file = _file(name, ranks.rank, ranks.world_size) if ranks.several else f"{name}.safetensors"
    write_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, directory / file)


def write_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors and force them to disk: the process that completes the directory may be on another machine."""
    weights.write(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _file(name: str, rank: int, size: int) -> str:
    return f"{name}-{rank + 1:05d}-of-{size:05d}.safetensors"


def read(directory: Path, name: str, like: Callable[[str], Tensor | None]) -> dict[str, Tensor]:
    """Return the tensors of `write`, each whole, or cut where `like` gives a cut tensor of the same shape.

    Raises CheckpointError for files that are missing or damaged.
    """
    pieces: dict[str, list[weights.Entry]] = {}
    for path in _files(directory, name):
        for key, entry in weights.read_header(path).items():
            pieces.setdefault(key, []).append(entry)
    return {key: _load(key, entries, like(key)) for key, entries in pieces.items()}


def _files(directory: Path, name: str) -> list[Path]:
    """Return the files of `write` in order. Raises CheckpointError if one is missing."""
    found = sorted(directory.glob(f"{name}-00001-of-?????.safetensors"))
    if not found:
        return [directory / f"{name}.safetensors"]
    size = int(found[0].stem[-5:]) if found[0].stem[-5:].isdigit() else 0
    files = [directory / _file(name, rank, size) for rank in range(size)]
    if missing := [path for path in files if not path.is_file()]:
        raise CheckpointError(f"{missing[0]}: is missing; {name} was written by {size} processes")
    return files


def _load(key: str, entries: Sequence[weights.Entry], twin: Tensor | None) -> Tensor:
    if not entries[0].shape:
        return weights.read_tensor(entries[0], key)
    count = sum(entry.shape[0] for entry in entries)
    if twin is None or not is_sharded(twin) or tuple(twin.shape) != (count, *entries[0].shape[1:]):
        return _rows(key, entries, 0, count)
    from torch.distributed.tensor import DTensor

    assert isinstance(twin, DTensor)
    return DTensor.from_local(
        _rows(key, entries, *own_rows(twin)).to(twin.device),
        twin.device_mesh,
        twin.placements,
        run_check=False,
        shape=twin.shape,
        stride=twin.stride(),
    )


def _rows(key: str, entries: Sequence[weights.Entry], first: int, end: int) -> Tensor:
    """Return rows first..end-1 of a tensor whose rows follow each other in `entries`."""
    from safetensors import SafetensorError, safe_open

    taken, start = [], 0
    for entry in entries:
        low, high = (min(max(place - start, 0), entry.shape[0]) for place in (first, end))
        try:
            with safe_open(str(entry.path), framework="pt") as handle:
                taken.append(handle.get_slice(key)[low:high])
        except (SafetensorError, OSError, RuntimeError, KeyError) as error:
            raise CheckpointError(f"{entry.path}: tensor {key!r} cannot be read ({error})") from None
        start += entry.shape[0]
    return torch.cat(taken) if len(taken) > 1 else taken[0]
