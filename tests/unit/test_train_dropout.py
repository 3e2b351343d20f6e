"""Dropout in the loop: another mask at every step and in every micro-batch, the same ones in a run done again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lmwright.data.batch import Batch
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import LossOutput, causal
from lmwright.runs import RunDirectory
from lmwright.train.checkpoint import State
from lmwright.train.config import TrainConfig
from lmwright.train.loop import Job, train
from lmwright.train.optimizers import adamw

CONFIG = ModelConfig.llama(
    vocab_size=11, hidden_size=8, num_layers=1, num_heads=1, ffn_size=8, max_positions=6, initializer_range=0.5
)
STEPS, MICRO_BATCHES = 3, 2


class OneRow:
    """The same row over and over, so that only the masks can tell two losses apart."""

    def next_batch(self) -> Batch:
        ids_BT = torch.arange(6).expand(2 * MICRO_BATCHES, 6)
        return Batch(ids_BT=ids_BT, labels_BT=ids_BT + 1, sample_ids=tuple(range(2 * MICRO_BATCHES)))

    def state_dict(self) -> dict[str, int]:
        return {}

    def documents_of(self, sample_ids: tuple[int, ...]) -> list[str]:
        return []


def losses(place: Path, *, start: int = 0, seed: int = 0, **dropout: float) -> list[float]:
    """Return the loss of each micro-batch of a run whose weights stay as they are."""
    found: list[float] = []

    def loss(model: LanguageModel, batch: Batch, ctx: Context) -> LossOutput:
        output = causal.loss(model, batch, ctx)
        found.append(output.sum.item())
        return output

    model = LanguageModel(replace(CONFIG, **dropout))
    model.init_weights(torch.Generator().manual_seed(0))
    config = TrainConfig(
        steps=STEPS, batch_size=2 * MICRO_BATCHES, micro_batch_size=2, precision="fp32", device="cpu", threads=1,
        seed=seed, optimizer={"name": "adamw", "lr": 1e-30, "weight_decay": 0.0},
    )  # fmt: skip
    with RunDirectory.create(place, config={}) as run:
        job = Job(
            config=config,
            model=model,
            objective=loss,
            optimizer=adamw.build(dict(model.named_parameters()), adamw.Settings(lr=1e-30, weight_decay=0.0)),
            loader=OneRow(),
            run=run,
            save=lambda state: place / f"step-{state.step}",
            flops_per_token=1.0,
            peak_flops=1.0,
            go_on="try again",
        )
        train(job, State(step=start))
    return found


@pytest.mark.parametrize("where", ["residual_dropout", "embedding_dropout", "attention_dropout"])
def test_masks_differ_between_steps_and_between_micro_batches(tmp_path: Path, where: str) -> None:
    found = losses(tmp_path / "run", **{where: 0.5})
    assert len(found) == len(set(found)) == STEPS * MICRO_BATCHES


def test_without_dropout_every_loss_is_the_same(tmp_path: Path) -> None:
    assert len(set(losses(tmp_path / "run"))) == 1


def test_masks_are_those_of_the_seed_and_the_step(tmp_path: Path) -> None:
    whole = losses(tmp_path / "whole", residual_dropout=0.5)
    assert losses(tmp_path / "again", residual_dropout=0.5) == whole
    assert losses(tmp_path / "resumed", residual_dropout=0.5, start=1) == whole[MICRO_BATCHES:]
    assert not set(losses(tmp_path / "other", residual_dropout=0.5, seed=1)) & set(whole)
