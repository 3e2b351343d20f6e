"""Documents packed into one row: altering one changes nothing in another, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel

CONFIGS = {
    "llama": ModelConfig.llama(
        vocab_size=60, hidden_size=32, num_layers=3, num_heads=4, num_kv_heads=2, ffn_size=48, max_positions=600
    ),
    "gpt2": ModelConfig.gpt2(vocab_size=60, hidden_size=32, num_layers=3, num_heads=4, max_positions=600),
}
# Documents 0 and 1, then padding; the second row is all padding but one token.
FIRST, SECOND, PADDED = 37, 41, 18


# Some share a piece of the row, one is beyond what keeps the attention square; the numbers are not in order.
MIXED = {0: 3, 7: 90, 1: 300, 4: 513, 2: 1, 3: 120, -1: 40}


def batch(stretch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    return packed({0: FIRST * stretch, 1: SECOND * stretch, -1: PADDED * stretch})


def packed(lengths: dict[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    segments = torch.cat([torch.full((n,), s) for s, n in lengths.items()])
    positions = torch.cat([torch.arange(n) for n in lengths.values()])
    lonely = torch.full_like(segments, -1)
    lonely[0] = 0
    ids = torch.randint(0, 60, (2, sum(lengths.values())), generator=torch.Generator().manual_seed(0))
    return ids, torch.stack([segments, lonely]), torch.stack([positions, positions])


def model_of(name: str) -> LanguageModel:
    model = LanguageModel(CONFIGS[name])
    model.init_weights(torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


def run(
    model: LanguageModel,
    ids: Tensor,
    segments: Tensor,
    positions: Tensor,
    document: Tensor,
    *,
    train: bool,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, list[Tensor]]:
    """Logits of one document, and the gradients of a loss on it."""
    with torch.set_grad_enabled(train):
        ctx = Context.dense(ids, positions=positions, segments=segments, dtype=dtype)
        logits = model.logits(model(ids, ctx))
    assert torch.isfinite(logits).all()
    if not train:
        return logits[document], []
    model.zero_grad()
    (logits[document].float() * torch.linspace(-1, 1, 60)).square().sum().backward()
    return logits[document].detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("stretch", [1, 6])  # 96 tokens, and 576: beyond what keeps the attention square
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("changed", [0, 1, -1])
@pytest.mark.parametrize("name", CONFIGS)
def test_altering_one_document_leaves_the_others_alone(name, changed, train, stretch):
    model = model_of(name)
    ids, segments, positions = batch(stretch)
    watched = segments == (1 if changed != 1 else 0)
    watched[1] = False
    before = run(model, ids, segments, positions, watched, train=train)
    altered = torch.where((segments == changed), (ids * 7 + 5) % 60, ids)
    assert not torch.equal(altered, ids)
    after = run(model, altered, segments, positions, watched, train=train)
    assert torch.equal(before[0], after[0])
    assert len(before[1]) == (len(list(model.parameters())) if train else 0)
    for left, right in zip(before[1], after[1], strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("changed", "watched"), [(7, 0), (0, 7), (7, 1), (1, 4), (4, 1), (-1, 3), (3, 2)])
def test_altering_one_of_many_documents_leaves_the_others_alone(changed, watched, train, dtype):
    model = model_of("llama")
    ids, segments, positions = packed(MIXED)
    there = segments == watched
    there[1] = False
    altered = torch.where(segments == changed, (ids * 7 + 5) % 60, ids)
    assert not torch.equal(altered, ids)
    before = run(model, ids, segments, positions, there, train=train, dtype=dtype)
    after = run(model, altered, segments, positions, there, train=train, dtype=dtype)
    assert torch.equal(before[0], after[0])
    assert len(before[1]) == (len(list(model.parameters())) if train else 0)
    for left, right in zip(before[1], after[1], strict=True):
        assert torch.equal(left, right)


def test_packed_documents_have_the_loss_and_gradients_of_each_alone():
    model = LanguageModel(CONFIGS["llama"])
    model.init_weights(torch.Generator().manual_seed(1))
    ids, segments, positions = (x[:1] for x in packed(MIXED))
    labels = (ids * 11 + 3) % 60

    def loss(here: slice, ctx: Context) -> Tensor:
        logits = model.logits(model(ids[:, here], ctx))[0]
        scored = (segments[0, here] >= 0).float()
        return (F.cross_entropy(logits, labels[0, here], reduction="none") * scored).sum()

    everything = slice(0, ids.shape[1])
    together = loss(everything, Context.dense(ids, positions=positions, segments=segments))
    together.backward()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    total, start = 0.0, 0
    for name, length in MIXED.items():
        here, start = slice(start, start + length), start + length
        if name >= 0:
            alone = loss(here, Context.dense(ids[:, here]))
            alone.backward()
            total += alone.item()
    assert together.item() == pytest.approx(total, rel=1e-6)
    for packed_grad, parameter in zip(grads, model.parameters(), strict=True):
        assert (packed_grad - parameter.grad).norm() < 1e-5 * parameter.grad.norm()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_packed_document_is_as_if_alone(name):
    model = model_of(name)
    ids, segments, positions = batch()
    with torch.no_grad():
        packed = model(ids, Context.dense(ids, positions=positions, segments=segments))[0]
        for start, end in ((0, FIRST), (FIRST, FIRST + SECOND)):
            alone = model(ids[:1, start:end], Context.dense(ids[:1, start:end]))[0]
            assert torch.allclose(packed[start:end], alone, atol=2e-5)


def test_segments_matter():
    model = model_of("llama")
    ids, segments, positions = batch()
    with torch.no_grad():
        apart = model(ids, Context.dense(ids, positions=positions, segments=segments))
        joined = model(ids, Context.dense(ids, positions=positions))
    assert not torch.allclose(apart[0, FIRST:], joined[0, FIRST:], atol=1e-3)
    assert torch.allclose(apart[0, :FIRST], joined[0, :FIRST], atol=2e-5)


@pytest.mark.parametrize("train", [False, True])
def test_bidirectional_mask(train):
    model = model_of("llama")
    ids, segments, positions = batch()
    with torch.set_grad_enabled(train):
        before = model(ids, Context.dense(ids, mask="bidirectional"))
        late = ids.clone()
        late[:, -1] = (late[:, -1] + 1) % 60
        after = model(late, Context.dense(late, mask="bidirectional"))
        assert not torch.allclose(before[:, 0], after[:, 0], atol=1e-4)
        packed = Context.dense(ids, mask="bidirectional", segments=segments, positions=positions)
        within = model(ids, packed)[0, :FIRST]
        alone = model(ids[:1, :FIRST], Context.dense(ids[:1, :FIRST], mask="bidirectional"))[0]
    assert torch.allclose(within, alone, atol=2e-5)
