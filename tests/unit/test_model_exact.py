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


@pytest.mark.parametrize("name", CONFIGS)
def test_neighbours_in_the_batch_change_nothing(name, threads):
    """Each row of a batch that is read in random pieces, against the row alone in one call."""
    model, draw = build(CONFIGS[name]), random.Random(name)
    for batch in (2, 5, 19):
        ids = torch.randint(0, model.config.vocab_size, (batch, 40))
        pieces = [draw.choice([1, 2, 3, 5]) for _ in range(40)]
        pieces = [size for end, size in enumerate(pieces) if sum(pieces[: end + 1]) <= 40]
        together = in_pieces(model, ids, [*pieces, 40 - sum(pieces)] if sum(pieces) < 40 else pieces)
        for row in draw.sample(range(batch), 2):
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
    q = torch.randn(3, 6, exact.ROWS, 8)
    keys, values = torch.randn(2, 3, 3, 4 * BLOCK, 8)
    for base in (0, 16, BLOCK - 16, BLOCK, 2 * BLOCK + 32):
        got = exact.attend(q, list(keys), list(values), base)
        allowed = torch.arange(4 * BLOCK) <= torch.arange(base, base + exact.ROWS)[:, None]
        expected = F.scaled_dot_product_attention(q, keys, values, allowed, enable_gqa=True)
        assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(("batch", "start", "end"), [(1, 0, 1), (3, 5, 7), (2, 15, 50), (40, 31, 32), (5, 16, 32)])
def test_parts_hold_every_position_once_and_never_too_many_rows(batch, start, end):
    seen = []
    for part in exact.parts(batch, start, end):
        assert 0 < sum(len(tile.places) for tile in part) <= exact.ROWS
        assert len({(tile.base, tile.rows.start, tile.rows.stop) for tile in part}) == 1
        seen += [(tile.sequence, place) for tile in part for place in tile.places]
    assert sorted(seen) == [(row, place) for row in range(batch) for place in range(start, end)]
    if end - start == 1:
        assert len(list(exact.parts(batch, start, end))) == -(-batch // exact.ROWS)


PRODUCTS = [(64, 100), (30, 37), (384, 1024), (1024, 384), (3072, 768), (17, 1), (66, 211)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_row_has_the_same_bits_in_any_place_of_a_product(count):
    """The assumption on which exact calls stand, over shapes small and large, odd and even."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        for width_in, width_out in PRODUCTS:
            weight, bias = torch.randn(width_out, width_in), torch.randn(width_out)
            x = torch.randn(exact.ROWS, width_in)
            whole_RF, alone = F.linear(x, weight, bias), torch.randn(exact.ROWS, width_in)
            for _ in range(3):
                order = torch.randperm(exact.ROWS)
                assert torch.equal(F.linear(x[order], weight, bias), whole_RF[order])
                place = int(order[0])
                alone[place] = x[0]
                assert torch.equal(F.linear(alone, weight, bias)[place], whole_RF[0])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("width", [37, 64, 2050, 2730])
def test_an_elementwise_row_has_the_same_bits_in_any_place(width):
    for function in (F.silu, F.gelu, torch.cos):
        x = torch.randn(1, exact.ROWS, width)
        order = torch.randperm(exact.ROWS)
        assert torch.equal(exact.each_row(function, x[:, order]), exact.each_row(function, x)[:, order])
        assert torch.allclose(exact.each_row(function, x), function(x), atol=1e-6)


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
