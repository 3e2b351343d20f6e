"""Claim: Muon reaches the loss that tuned AdamW ends with in fewer tokens, on the standard library's source.

A Llama of 1.8M parameters without embeddings (4 layers, 192 wide, context 128, vocabulary 2,048), batch 16, at a
constant rate after a tenth of warm-up, so that every point of a curve is one that a shorter run could have ended
at. Both optimisers are tuned over four rates, each twice the last, on a seed that is not used again; all other
settings are their defaults (betas 0.9 and 0.95, decay 0.1), and the gradient is clipped at 1. Then three seeds
each at the best rate: a seed decides the first weights and the order of the text, the same for both. The loss is
that of 8,192 held-out tokens, smoothed over three evaluations. Tokens do not depend on the machine; the time of a
step, which does, is measured by turns.

python -m benchmarks.optimizers [--steps N]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import alternate, row, write
from lmwright import seeds
from lmwright.data.batch import Batch
from lmwright.data.build import Corpus, build_corpus
from lmwright.data.corpus import list_corpus, read_corpus
from lmwright.data.loader import Loader
from lmwright.data.pack import plan_blocks
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import causal
from lmwright.text.tokenizer import train_bpe
from lmwright.train.gradient import scale_and_clip
from lmwright.train.heap import keep_memory
from lmwright.train.optimizers import Optimizer, adamw, muon
from lmwright.train.precision import DTYPES, resolve

LAYERS, WIDTH, CONTEXT, VOCABULARY, BATCH = 4, 192, 128, 2048, 16
GRIDS = {"AdamW": (1e-3, 2e-3, 4e-3, 8e-3), "Muon": (2e-3, 4e-3, 8e-3, 1.6e-2)}
TUNING_SEED, SEEDS = 0, (1, 2, 3)
EVERY, ROWS, SMOOTHED = 10, 64, 3
TURN, ROUNDS = 10, 9
DTYPE = DTYPES[resolve("auto", "cpu")]
OPTIMIZERS: dict[str, Callable[[Any, float], Optimizer]] = {
    "AdamW": lambda parameters, lr: adamw.build(parameters, adamw.Settings(lr=lr)),
    "Muon": lambda parameters, lr: muon.build(parameters, muon.Settings(lr=lr)),
}


class Run:
    """One training run: a model, an optimiser, and the text in an order of its own."""

    def __init__(self, corpus: Corpus, name: str, lr: float, seed: int, steps: int) -> None:
        config = ModelConfig.llama(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_layers=LAYERS,
            num_heads=WIDTH // 64,
            max_positions=CONTEXT,
            tie_embeddings=True,
            initializer_range=0.02,  # as the rates below were tuned with
        )
        self.model = LanguageModel(config)
        self.model.init_weights(seeds.torch_generator(seed, "weights"))
        self.optimizer = OPTIMIZERS[name](dict(self.model.named_parameters()), lr)
        self.loader = Loader(plan_blocks(corpus.split("train"), CONTEXT), batch_size=BATCH, seed=seed)
        self.held_out = plan_blocks(corpus.split("validation"), CONTEXT)
        self.step, self.steps = 0, steps

    def train(self, steps: int) -> None:
        """Make some updates."""
        for _ in range(steps):
            self.model.zero_grad()
            batch = self.loader.next_batch()
            output = causal.loss(self.model, batch, Context.dense(batch.ids_BT, dtype=DTYPE))
            output.sum.backward()
            scale_and_clip(self.model.parameters(), 1.0 / output.count, 1.0)
            self.step += 1
            self.optimizer.step(min(1.0, 10 * self.step / self.steps))

    @torch.no_grad()
    def loss(self) -> float:
        """Return nats per token of rows spread over the held-out text."""
        nats, count = 0.0, 0
        for indices in np.linspace(0, self.held_out.num_sequences - 1, ROWS, dtype=np.int64).reshape(-1, BATCH):
            batch = Batch.of(self.held_out.fetch(indices))
            output = causal.loss(self.model, batch, Context.dense(batch.ids_BT, dtype=DTYPE))
            nats, count = nats + float(output.sum), count + output.count
        return nats / count

    def curve(self) -> list[float]:
        """Train to the end; return the smoothed loss after every EVERY steps, infinity where it is no number."""
        found = list[float]()
        while self.step < self.steps:
            self.train(EVERY)
            loss = self.loss()
            found.append(loss if math.isfinite(loss) else math.inf)
        return [sum(found[max(0, end - SMOOTHED) : end]) / min(end, SMOOTHED) for end in range(1, len(found) + 1)]

    def turn(self) -> float:
        """Return the milliseconds of a step, over a few."""
        start = time.perf_counter()
        self.train(TURN)
        return 1000 * (time.perf_counter() - start) / TURN


def build(directory: Path) -> Corpus:
    """Train the tokenizer on the standard library, and encode it."""
    listing = list_corpus("stdlib")
    tokenizer = train_bpe((document.text for document in read_corpus(listing)), VOCABULARY, name="stdlib")
    build_corpus("stdlib", tokenizer, directory)
    return Corpus.open(directory)


def tokens_to(curve: list[float], loss: float) -> float:
    """Return the tokens after which a curve is down at `loss`, between evaluations by a line, or infinity."""
    for number, after in enumerate(curve):
        if after <= loss:
            before = curve[number - 1] if number else math.inf
            part = (before - loss) / (before - after) if before < math.inf else 1.0
            return (number + part) * EVERY * BATCH * CONTEXT
    return math.inf


def report(name: str, lr: float, seed: int, curve: list[float]) -> None:
    """Say on stderr how a run ended."""
    print(f"{name} lr {lr:g} seed {seed}: {curve[-1]:.4f} nats/token", file=sys.stderr, flush=True)


def main() -> None:
    """Tune both, run the seeds, count tokens, time a step, and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    keep_memory()  # as every run of the package does
    with tempfile.TemporaryDirectory() as directory:
        corpus = build(Path(directory) / "corpus")
        grids = dict[str, dict[float, float]]()
        curves = dict[str, list[list[float]]]()
        best = dict[str, float]()

        def run(name: str, lr: float, seed: int) -> list[float]:
            curve = Run(corpus, name, lr, seed, steps).curve()
            report(name, lr, seed, curve)
            return curve

        for name in OPTIMIZERS:
            grids[name] = {lr: run(name, lr, TUNING_SEED)[-1] for lr in GRIDS[name]}
            best[name] = min(grids[name], key=lambda lr: grids[name][lr])
        for name in OPTIMIZERS:
            curves[name] = [run(name, best[name], seed) for seed in SEEDS]
        runs = {name: Run(corpus, name, best[name], SEEDS[0], steps) for name in OPTIMIZERS}
        for candidate in runs.values():
            candidate.turn()
        milliseconds = alternate({name: candidate.turn for name, candidate in runs.items()}, ROUNDS)
    goals = [curve[-1] for curve in curves["AdamW"]]
    needed = {
        name: [tokens_to(curve, goal) for curve, goal in zip(curves[name], goals, strict=True)]
        for name in OPTIMIZERS
    }
    ends = {name: [curve[-1] for curve in curves[name]] for name in OPTIMIZERS}
    tuned = "tuned AdamW"
    write(
        "optimizers",
        [
            row(
                "tokens to the loss that AdamW ends with, Muon",
                needed["Muon"],
                "tokens",
                peer=tuned,
                peer_values=needed["AdamW"],
                target="< 1x",
            ),
            row(
                "loss after the same tokens, Muon",
                ends["Muon"],
                "nats/token",
                peer=tuned,
                peer_values=ends["AdamW"],
            ),
            row(
                f"time of a step, Muon, {BATCH * CONTEXT:,} tokens",
                milliseconds["Muon"],
                "ms",
                peer="AdamW",
                peer_values=milliseconds["AdamW"],
            ),
        ],
        steps=steps,
        tokens=steps * BATCH * CONTEXT,
        threads=torch.get_num_threads(),
        products=str(DTYPE),
        grids={name: {f"{lr:g}": loss for lr, loss in grid.items()} for name, grid in grids.items()},
        tuned_rates=best,
        tuning_seed=TUNING_SEED,
        seeds=SEEDS,
        tokens_needed=needed,
        final_losses=ends,
        evaluated_every_tokens=EVERY * BATCH * CONTEXT,
        curves=curves,
    )


if __name__ == "__main__":
    main()
