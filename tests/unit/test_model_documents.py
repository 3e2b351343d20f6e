"""Documents packed into one row: altering one changes nothing in another, to the bit in fp32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

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


def batch(stretch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    lengths = (FIRST * stretch, SECOND * stretch, PADDED * stretch)
    segments = torch.cat([torch.full((n,), s) for n, s in zip(lengths, (0, 1, -1), strict=True)])
    positions = torch.cat([torch.arange(n) for n in lengths])
    lonely = torch.full_like(segments, -1)
    lonely[0] = 0
    ids = torch.randint(0, 60, (2, sum(lengths)), generator=torch.Generator().manual_seed(0))
    return ids, torch.stack([segments, lonely]), torch.stack([positions, positions])


def model_of(name: str) -> LanguageModel:
    model = LanguageModel(CONFIGS[name])
    model.init_weights(torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


def run(
    model: LanguageModel, ids: Tensor, segments: Tensor, positions: Tensor, document: Tensor, *, train: bool
) -> tuple[Tensor, list[Tensor]]:
    """Logits of one document, and the gradients of a loss on it."""
    with torch.set_grad_enabled(train):
        ctx = Context.dense(ids, positions=positions, segments=segments)
        logits = model.logits(model(ids, ctx))
    assert torch.isfinite(logits).all()
    if not train:
        return logits[document], []
    model.zero_grad()
    (logits[document] * torch.linspace(-1, 1, 60)).square().sum().backward()
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
