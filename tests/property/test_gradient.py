"""The gradient of a batch does not depend on how it is cut into micro-batches, ragged ones included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmwright.data.batch import Batch
from lmwright.data.pack import IGNORE_INDEX
from lmwright.errors import DataError
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import causal
from lmwright.train import gradient
from lmwright.train.optimizers import adamw

CONFIG = ModelConfig.llama(
    vocab_size=23, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24, max_positions=12, initializer_range=0.2
)


def make_model() -> LanguageModel:
    model = LanguageModel(CONFIG)
    model.init_weights(torch.Generator().manual_seed(2))
    return model


def ragged_batch(seed: int, rows: int = 8, length: int = 12) -> Batch:
    """Rows of documents with padding, as packing makes them: each row has another number of targets."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, CONFIG.vocab_size, (rows, length))
    labels = random.integers(0, CONFIG.vocab_size, (rows, length))
    segments, positions = np.zeros_like(ids), np.tile(np.arange(length), (rows, 1))
    for row in range(rows):
        cut, end = sorted(random.integers(1, length + 1, 2))
        segments[row, cut:] = 1
        positions[row, cut:] -= cut
        segments[row, end:], labels[row, end:], positions[row, end:] = -1, IGNORE_INDEX, 0
    tensors = [torch.from_numpy(array) for array in (ids, labels, positions, segments)]
    return Batch(ids_BT=tensors[0], labels_BT=tensors[1], positions_BT=tensors[2], segments_BT=tensors[3])


def compute(model: LanguageModel, batch: Batch, size: int, clip: float | None = None) -> gradient.Gradient:
    return gradient.compute(
        model,
        causal.loss,
        batch,
        micro_batch_size=size,
        precision="fp32",
        clip_norm=clip,
        dropout=lambda number: None,
    )


@given(seed=st.integers(0, 50), size=st.integers(1, 9))
def test_the_gradient_is_that_of_the_mean_over_all_targets(seed: int, size: int) -> None:
    model, batch = make_model(), ragged_batch(seed)
    found = compute(model, batch, size)
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    ctx = Context.dense(batch.ids_BT, positions=batch.positions_BT, segments=batch.segments_BT)
    logits = model.logits(model(batch.ids_BT, ctx))
    mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels_BT.flatten(), ignore_index=-100)
    mean.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-4, atol=1e-7)
    assert found.loss_sum / found.count == pytest.approx(mean.item(), rel=1e-6)
    expected = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert found.norm == pytest.approx(float(expected), rel=1e-5)


def train(size: int, clip: float | None) -> tuple[list[float], dict[str, torch.Tensor]]:
    model = make_model()
    optimizer = adamw.build(dict(model.named_parameters()), adamw.Settings())
    losses = []
    for step in range(6):
        found = compute(model, ragged_batch(step), size, clip)
        optimizer.step(1.0)
        losses.append(found.loss_sum / found.count)
    return losses, {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("clip", [None, 0.5])
def test_1x8_2x4_4x2_8x1_and_ragged_3_train_the_same_model(clip: float | None) -> None:
    losses, weights = train(8, clip)
    for size in (1, 2, 3, 4):
        other_losses, other = train(size, clip)
        assert other_losses == pytest.approx(losses, rel=1e-6)
        for name, weight in weights.items():
            torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-6)


def test_clipping_scales_to_the_norm_and_reports_what_it_was() -> None:
    batch, free, clipped = ragged_batch(0), make_model(), make_model()
    norm = compute(free, batch, 8).norm
    assert compute(clipped, batch, 8, clip=norm / 4).norm == pytest.approx(norm)
    for loose, tight in zip(free.parameters(), clipped.parameters(), strict=True):
        torch.testing.assert_close(tight.grad, loose.grad / 4)
    compute(clipped, batch, 8, clip=norm * 4)
    for loose, same in zip(free.parameters(), clipped.parameters(), strict=True):
        assert torch.equal(same.grad, loose.grad)


def test_metrics_are_summed_over_micro_batches() -> None:
    def loss(model: LanguageModel, batch: Batch, ctx: Context) -> causal.LossOutput:
        output = causal.loss(model, batch, ctx)
        return replace(output, metrics={"rows": float(len(batch.ids_BT))})

    found = gradient.compute(
        make_model(),
        loss,
        ragged_batch(0),
        micro_batch_size=3,
        precision="fp32",
        clip_norm=None,
        dropout=lambda number: None,
    )
    assert found.metrics == {"rows": 8.0}
    assert len(found.loss_sums) == 3


def test_bf16_computes_in_bf16_and_leaves_fp32_gradients() -> None:
    model, batch, seen = make_model(), ragged_batch(0), []
    model.model.norm.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    for precision in ("fp32", "bf16"):
        gradient.compute(
            model,
            causal.loss,
            batch,
            micro_batch_size=8,
            precision=precision,
            clip_norm=None,
            dropout=lambda number: None,
        )
        assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}
    assert seen == [torch.float32, torch.bfloat16]


def test_a_batch_without_a_label_is_refused() -> None:
    batch = ragged_batch(0)
    batch.labels_BT.fill_(IGNORE_INDEX)
    with pytest.raises(DataError, match="no label to train on"):
        compute(make_model(), batch, 4)
