"""Exact contexts: a token's logits are the same bits however its sequence is cut into calls."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional as F

from lmwright.errors import RequestError, UnsupportedError
from lmwright.model import exact
from lmwright.model.config import ModelConfig, RopeScaling
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.model.state import BLOCK, KVState

SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=32)
CONFIGS = {
    "gqa": ModelConfig.llama(
        vocab_size=101, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2, ffn_size=100,
        max_positions=256, rope_scaling=SCALING,
    ),
    "mqa-odd": ModelConfig.llama(
        vocab_size=97, hidden_size=30, num_layers=2, num_heads=3, num_kv_heads=1, ffn_size=37, max_positions=256
    ),
    "wide": ModelConfig.llama(
        vocab_size=300, hidden_size=384, num_layers=1, num_heads=6, ffn_size=1024, max_positions=256
    ),
    "gpt2": ModelConfig.gpt2(vocab_size=211, hidden_size=66, num_layers=2, num_heads=6, max_positions=200),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(config: ModelConfig) -> LanguageModel:
    model = LanguageModel(config)
    model.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


def whole(model: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    ctx = Context.dense(ids, exact=True)
    return model.logits(model(ids, ctx), ctx)


def in_pieces(model: LanguageModel, ids: torch.Tensor, pieces: list[int], spare: int = 0) -> torch.Tensor:
    state = KVState(model.config, ids.shape[0], ids.shape[1] + spare)
    out = []
    for part in ids.split(pieces, dim=1):
        ctx = Context.cached(state, part)
        assert ctx.exact
        out.append(model.logits(model(part, ctx), ctx))
    assert state.length == ids.shape[1]
    return torch.cat(out, dim=1)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CONFIGS)
def test_any_cut_gives_the_same_bits(name, threads):
    model = build(CONFIGS[name])
    draw = random.Random(name)
    for _ in range(6):
        count, batch = draw.choice([1, 15, 16, 17, 63, 64, 65, 131]), draw.choice([1, 2, 3])
        ids = torch.randint(0, model.config.vocab_size, (batch, count))
        expected = whole(model, ids)
        for _ in range(3):
            pieces: list[int] = []
            while sum(pieces) < count:
                pieces.append(min(count - sum(pieces), draw.choice([1, 1, 2, 7, 16, 33, 64])))
            assert torch.equal(in_pieces(model, ids, pieces, spare=draw.choice([0, 1, 100])), expected)


def test_neighbours_in_the_batch_change_nothing(threads):
    model = build(CONFIGS["gqa"])
    ids = torch.randint(0, 101, (5, 40))
    together = whole(model, ids)
    for row in range(5):
        assert torch.equal(whole(model, ids[row : row + 1])[0], together[row])


@pytest.mark.parametrize("name", CONFIGS)
def test_exact_is_close_to_plain_cached_and_dense(name):
    model = build(CONFIGS[name])
    ids = torch.randint(0, model.config.vocab_size, (2, 150))
    with torch.no_grad():
        plain = model.logits(model(ids, Context.dense(ids)))
    assert torch.allclose(whole(model, ids), plain, atol=2e-5 * plain.abs().max().item(), rtol=0)
    state = KVState(model.config, 2, 150)
    parts = []
    for part in ids.split([70, 1, 1, 78], dim=1):
        parts.append(model.logits(model(part, Context.cached(state, part, exact=False))))
    assert torch.allclose(torch.cat(parts, 1), plain, atol=2e-5 * plain.abs().max().item(), rtol=0)


def test_truncating_forgets(threads):
    model = build(CONFIGS["gqa"])
    ids, other = torch.randint(0, 101, (1, 80)), torch.randint(0, 101, (1, 80))
    state = KVState(model.config, 1, 200)
    model(ids, Context.cached(state, ids))
    model(other, Context.cached(state, other))
    state.truncate(80)
    ctx = Context.cached(state, other[:, :9])
    again = model.logits(model(other[:, :9], ctx), ctx)
    assert torch.equal(again, whole(model, torch.cat([ids, other[:, :9]], 1))[:, 80:])
    with pytest.raises(RequestError, match="truncate"):
        state.truncate(90)


def test_reordering_rows():
    model = build(CONFIGS["gqa"])
    ids = torch.randint(0, 101, (3, 20))
    state = KVState(model.config, 3, 30)
    model(ids, Context.cached(state, ids))
    state.reorder(torch.tensor([2, 0, 0]))
    step = torch.randint(0, 101, (3, 1))
    ctx = Context.cached(state, step)
    got = model.logits(model(step, ctx), ctx)[:, 0]
    assert torch.equal(got, whole(model, torch.cat([ids[[2, 0, 0]], step], 1))[:, -1])


def test_tile_attention_against_the_fused_one():
    q = torch.randn(6, exact.ROWS, 8)
    keys, values = torch.randn(2, 3, 4 * BLOCK, 8)
    for base in (0, 16, BLOCK - 16, BLOCK, 2 * BLOCK + 32):
        got = exact.attend(q, keys, values, base)
        allowed = torch.arange(4 * BLOCK) <= torch.arange(base, base + exact.ROWS)[:, None]
        expected = F.scaled_dot_product_attention(q[None], keys[None], values[None], allowed, enable_gqa=True)[0]
        assert torch.allclose(got, expected, atol=1e-6)


def test_state_refuses_more_than_it_holds():
    config = CONFIGS["gqa"]
    state = KVState(config, 1, 10)
    with pytest.raises(RequestError, match="capacity is 10"):
        Context.cached(state, torch.zeros(1, 11, dtype=torch.int64))
    with pytest.raises(RequestError, match="2 rows"):
        Context.cached(state, torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(RequestError, match="capacity"):
        KVState(config, 1, 0)


def test_combinations_that_are_refused():
    ids = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(UnsupportedError, match="exact"):
        Context.dense(ids, exact=True, dtype=torch.bfloat16)
    with pytest.raises(UnsupportedError, match="exact"):
        Context.dense(ids, exact=True, segments=ids)
    with pytest.raises(UnsupportedError, match="dtype"):
        Context.dense(ids, dtype=torch.int8)
    state = KVState(CONFIGS["gqa"], 1, 8)
    with pytest.raises(UnsupportedError, match="cached"):
        Context(ids, state=state, mask="bidirectional")
    with pytest.raises(RequestError, match="positions"):
        Context.dense(ids, positions=ids[0])
