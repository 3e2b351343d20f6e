"""Tensors in parts as files: the rows of any number of processes are read by any number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmwright.errors import CheckpointError
from lmwright.model import weights
from lmwright.train import slices
from lmwright.train.ranks import SINGLE, Ranks

TENSORS = {"a": torch.arange(21.0).reshape(7, 3), "b": torch.arange(2.0), "step": torch.tensor(4.0)}


@given(count=st.integers(0, 40), world=st.integers(1, 9))
def test_rows_are_cut_as_torch_cuts_chunks(count: int, world: int) -> None:
    cuts = [slices.rows(count, rank, world) for rank in range(world)]
    expected = [len(chunk) for chunk in torch.arange(count).chunk(world)] if count else []
    assert [end - first for first, end in cuts if end > first] == expected
    assert [*[first for first, _ in cuts][1:], count] == [end for _, end in cuts]


def write_parts(place: Path, world: int) -> None:
    """What `write` would leave of tensors that are held in parts."""
    for rank in range(world):
        own = {name: one[slice(*slices.rows(len(one), rank, world))] for name, one in TENSORS.items() if one.dim()}
        if rank == 0:
            own["step"] = TENSORS["step"]
        weights.write(own, place / f"optimizer-{rank + 1:05d}-of-{world:05d}.safetensors")


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_parts_are_joined(world: int, tmp_path: Path) -> None:
    write_parts(tmp_path, world)
    found = slices.read(tmp_path, "optimizer", lambda name: None)
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)


def test_one_process_writes_one_file_that_reads_back(tmp_path: Path) -> None:
    slices.write(TENSORS, tmp_path, "average", SINGLE)
    slices.write(TENSORS, tmp_path, "average", Ranks(1, 2, 1, 2))  # the second of two that have the same: nothing
    assert [path.name for path in tmp_path.iterdir()] == ["average.safetensors"]
    found = slices.read(tmp_path, "average", TENSORS.get)
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("first", [0, 1, 3, 7])
@pytest.mark.parametrize("end", [0, 2, 3, 7])
def test_any_rows_are_read_from_any_files(first: int, end: int, tmp_path: Path) -> None:
    write_parts(tmp_path, 3)
    files = sorted(tmp_path.glob("*.safetensors"))
    entries = [weights.read_header(path)["a"] for path in files]
    assert torch.equal(slices._rows("a", entries, first, max(first, end)), TENSORS["a"][first : max(first, end)])


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    write_parts(tmp_path, 3)
    (tmp_path / "optimizer-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"optimizer-00002-of-00003\.safetensors: is missing; .* 3 processes"
    ):
        slices.read(tmp_path, "optimizer", lambda name: None)
    with pytest.raises(CheckpointError, match="average"):
        slices.read(tmp_path, "average", lambda name: None)
