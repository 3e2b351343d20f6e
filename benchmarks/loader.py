"""Claim: the loader delivers at least 20 million tokens a second on one core."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import alternate, row, write
from lmwright.data.loader import Loader
from lmwright.data.pack import PackPlan, plan_blocks, plan_documents
from lmwright.data.shards import Shard, ShardWriter
from lmwright.data.split import TokenSplit

TOKENS = 50_000_000
MEAN_DOCUMENT = 700  # tokens; lengths are geometric, as in a corpus of many short and few long texts
VOCABULARY = 8192
BATCH = 16
CONTEXTS = (256, 1024)
ROUNDS = 7
SECONDS = 0.5


def make_split(directory: Path) -> TokenSplit:
    """Write a shard of random documents and open it, as training does."""
    generator = np.random.default_rng(0)
    path = directory / "train-00000.lmw"
    with ShardWriter(path, vocab_size=VOCABULARY, tokenizer_hash="00" * 32, eos_id=0) as writer:
        while writer.num_tokens < TOKENS:
            length = int(generator.geometric(1 / MEAN_DOCUMENT))
            writer.add(generator.integers(1, VOCABULARY, size=length), 3 * length)
    return TokenSplit("train", [Shard.open(path)])


def throughput(plan: PackPlan) -> Callable[[], float]:
    """Return a measurement: million tokens a second, in finished Batches of torch tensors."""
    loader = Loader(plan, batch_size=BATCH, seed=0)
    loader.next_batch()

    def measure() -> float:
        start, tokens = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            tokens += loader.next_batch().ids_BT.numel()
        return tokens / (time.perf_counter() - start) / 1e6

    return measure


def main() -> None:
    """Measure both ways of packing at both context lengths, in turn, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    with tempfile.TemporaryDirectory() as directory:
        split = make_split(Path(directory))
        candidates = {}
        for length in CONTEXTS:
            for name, make in (("blocks", plan_blocks), ("documents", plan_documents)):
                candidates[f"loader, {name}, context {length}, batch {BATCH}"] = throughput(make(split, length))
        rates = alternate(candidates, ROUNDS)
    rows = [
        row(name, values, "M tokens/s", target=">= 20", headline="context 256" in name)
        for name, values in rates.items()
    ]
    write("loader", rows, tokens_in_shard=TOKENS, cores=1)


if __name__ == "__main__":
    main()
