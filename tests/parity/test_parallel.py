"""Two and four processes against one: the same updates to fp32 rounding, and checkpoints that each can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rank_helpers import program

PROGRAM = Path(__file__).with_name("parallel_programs.py")
# Three updates at a rate of 0.01 on weights below 1: only the order of sums differs. Each process's mistake would
# show in the first digits.
TOLERANCE = 1e-6


@pytest.mark.parametrize("world", [2, 4])
def test_updates_are_those_of_one_process_on_the_joined_batch(world: int) -> None:
    found = [json.loads(line) for line in program(PROGRAM, world).splitlines()]
    assert len(found) == 12
    assert {line["check"]: line["difference"] for line in found if line["difference"] > TOLERANCE} == {}
    # Sums in another order do differ, so the processes really did share the work.
    assert max(line["difference"] for line in found) > 0


def test_a_checkpoint_is_read_bit_by_bit_by_any_number_of_processes() -> None:
    found = [json.loads(line)["check"] for line in program(PROGRAM, "checkpoints").splitlines()]
    whole = ["average.safetensors", "model.safetensors", "optimizer.safetensors"]
    names = ("average", "model", "optimizer")
    cut = {
        size: [f"{name}-0000{n}-of-0000{size}.safetensors" for name in names for n in range(1, size + 1)]
        for size in (2, 4)
    }
    assert found == [
        f"llama 1 ddp {whole}",
        f"llama 2 ddp {whole}",
        f"llama 4 fsdp {cut[4]}",
        f"gpt2 2 fsdp {cut[2]}",
    ]
