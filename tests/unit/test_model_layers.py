"""Each layer against a plain twin or a closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from lmwright.errors import RequestError
from lmwright.model import rope, square
from lmwright.model.config import ModelConfig, RopeScaling
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.model.linear import Linear
from lmwright.model.norm import LayerNorm, RMSNorm, rms_norm

LLAMA = {
    "vocab_size": 50, "hidden_size": 32, "num_layers": 4, "num_heads": 4, "ffn_size": 48, "max_positions": 64
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_rope_turns_pairs_by_position_times_frequency():
    config = ModelConfig.llama(**LLAMA, rope_theta=100.0)
    positions = torch.tensor([[0, 1, 5], [7, 8, 12]])
    x = torch.randn(2, 3, 4, 8)
    turned = rope.rotate(x, *rope.tables(config, positions))
    for b, t, i in ((0, 0, 0), (0, 2, 1), (1, 1, 3), (1, 2, 0)):
        angle = positions[b, t].item() * 100.0 ** (-2 * i / 8)
        pair = torch.complex(x[b, t, :, i], x[b, t, :, i + 4]) * complex(math.cos(angle), math.sin(angle))
        assert torch.allclose(turned[b, t, :, i], pair.real, atol=1e-5)
        assert torch.allclose(turned[b, t, :, i + 4], pair.imag, atol=1e-5)


def test_rope_scores_depend_on_distance_alone():
    config = ModelConfig.llama(**LLAMA)
    q, k = torch.randn(2, 1, 1, 1, 8)
    scores = []
    for offset in (0, 3, 900):
        cos, sin = rope.tables(config, torch.tensor([[5 + offset]]))
        cos2, sin2 = rope.tables(config, torch.tensor([[2 + offset]]))
        scores.append((rope.rotate(q, cos, sin) * rope.rotate(k, cos2, sin2)).sum())
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    assert torch.allclose(scores[0], scores[2], atol=1e-4)


def test_rope_scaling_slows_long_waves_and_leaves_short_ones():
    scaling = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=32)
    plain = rope.frequencies(ModelConfig.llama(**LLAMA))
    scaled = rope.frequencies(ModelConfig.llama(**LLAMA, rope_scaling=scaling))
    for before, after in zip(plain.tolist(), scaled.tolist(), strict=True):
        wavelength = 2 * math.pi / before
        if wavelength < 32 / 4:
            assert after == pytest.approx(before, rel=1e-6)
        elif wavelength > 32 / 1:
            assert after == pytest.approx(before / 8, rel=1e-6)
        else:
            smooth = (32 / wavelength - 1) / 3
            assert after == pytest.approx((1 - smooth) * before / 8 + smooth * before, rel=1e-6)
    assert not torch.equal(plain, scaled)


def test_rotation_gradient():
    config = ModelConfig.llama(**LLAMA)
    cos, sin = (table.double() for table in rope.tables(config, torch.tensor([[0, 3, 9]])))
    x = torch.randn(2, 3, 2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rope.rotate(x, cos, sin), (x,))


def test_rms_norm_and_its_gradient():
    x = (torch.randn(3, 5, 8, dtype=torch.float64) + 0.5).requires_grad_()
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    expected = weight * x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    assert torch.allclose(rms_norm(x, weight, 1e-3), expected, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-3), (x, weight))
    with torch.no_grad():
        assert torch.equal(rms_norm(x, weight, 1e-3), rms_norm(x.clone(), weight, 1e-3))


@pytest.mark.parametrize("kind", [RMSNorm, LayerNorm])
def test_norms_of_bf16_rows_have_fp32_gradients(kind):
    norm = kind(64, 1e-5)
    x, grad = torch.randn(2, 4000, 64).bfloat16()
    norm(x).backward(grad)
    half = [parameter.grad.clone() for parameter in norm.parameters()]
    assert norm(x).dtype == torch.bfloat16
    norm.zero_grad()
    norm(x.float()).backward(grad.float())
    for got, parameter in zip(half, norm.parameters(), strict=True):
        assert (got - parameter.grad).norm() < 0.01 * parameter.grad.norm()


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)])
def test_square_attention_and_its_gradient(heads, groups):
    q = torch.randn(2, 5, heads, 4, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, 5, groups, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    allowed = torch.rand(2, 5, 5) < 0.5
    allowed |= torch.eye(5, dtype=torch.bool)
    bias = torch.zeros(2, 5, 5, dtype=torch.float64).masked_fill(~allowed, -torch.inf)
    parts = (x.transpose(1, 2) for x in (q, k, v))
    expected = F.scaled_dot_product_attention(*parts, allowed[:, None], enable_gqa=True).transpose(1, 2)
    assert torch.allclose(square.attend(q, k, v, bias), expected, atol=1e-10)
    assert torch.autograd.gradcheck(lambda q, k, v: square.attend(q, k, v, bias), (q, k, v))


def test_linear_computes_in_the_activations_dtype_and_keeps_fp32_gradients():
    linear = Linear(8, 3, bias=True)
    torch.nn.init.normal_(linear.weight)
    y = linear(torch.randn(2, 8).bfloat16())
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert linear.weight.grad.dtype == linear.bias.grad.dtype == torch.float32


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width_in", "width_out"), [(48, 16), (16, 48), (32, 32)])
def test_bf16_linear_and_its_gradients_are_as_near_float64_as_torchs(width_in, width_out, bias):
    linear = Linear(width_in, width_out, bias=bias)
    for parameter in linear.parameters():
        torch.nn.init.normal_(parameter)
    x, grad = torch.randn(7, 30, width_in).bfloat16(), torch.randn(7, 30, width_out).bfloat16()

    def results(product, dtype):
        leaves = [t.detach().to(torch.bfloat16).to(dtype).requires_grad_() for t in (x, *linear.parameters())]
        y = product(*leaves)
        y.backward(grad.to(dtype))
        return [y.detach(), *(leaf.grad for leaf in leaves)]

    def ours(x, weight, bias=None):
        return torch.func.functional_call(linear, {"weight": weight} | ({} if bias is None else {"bias": bias}), x)

    exact = results(F.linear, torch.float64)
    found = zip(results(ours, torch.bfloat16), results(F.linear, torch.bfloat16), exact, strict=True)
    for got, theirs, true in found:
        assert got.dtype == torch.bfloat16
        assert (got.double() - true).norm() <= (theirs.double() - true).norm() + 1e-6 * true.norm()


def test_linear_gives_no_gradient_to_what_is_frozen():
    linear = Linear(8, 4, bias=True)
    linear.weight.requires_grad_(False)
    linear(torch.randn(8).bfloat16()).sum().backward()
    assert linear.weight.grad is None
    assert torch.equal(linear.bias.grad, torch.ones(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compute_dtype_is_the_contexts(dtype):
    model = LanguageModel(ModelConfig.llama(**LLAMA))
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.randint(0, 50, (2, 10))
    hidden = model(ids, Context.dense(ids, dtype=dtype))
    assert hidden.dtype == dtype
    assert model.logits(hidden).dtype == dtype
    model.logits(hidden).float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_bf16_is_near_fp32():
    model = LanguageModel(ModelConfig.llama(**LLAMA))
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.randint(0, 50, (4, 30))

    def gradient(dtype: torch.dtype) -> torch.Tensor:
        model.zero_grad()
        logits = model.logits(model(ids, Context.dense(ids, dtype=dtype))).float()
        F.cross_entropy(logits[:, :-1].reshape(-1, 50), ids[:, 1:].reshape(-1)).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    full, half = gradient(torch.float32), gradient(torch.bfloat16)
    assert 0 < (full - half).norm() < 0.02 * full.norm()


def test_initialisation_is_gpt2s_and_deterministic():
    config = ModelConfig.gpt2(vocab_size=500, hidden_size=128, num_layers=4, num_heads=4, max_positions=400)
    model, again = LanguageModel(config), LanguageModel(config)
    model.init_weights(torch.Generator().manual_seed(3))
    torch.rand(7)  # the global generator plays no part
    again.init_weights(torch.Generator().manual_seed(3))
    for (name, left), right in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right)
        if left.dim() == 2:
            last = name.endswith(("o_proj.weight", "down_proj.weight"))
            spread = config.initializer_range / (math.sqrt(8) if last else 1)
            assert left.std().item() == pytest.approx(spread, rel=0.03), name
        else:
            assert (left == (1.0 if name.endswith("weight") else 0.0)).all(), name
    again.init_weights(torch.Generator().manual_seed(4))
    assert not torch.equal(model.model.embed_tokens.weight, again.model.embed_tokens.weight)


def test_dropout_draws_from_the_contexts_generator_alone():
    rates = {"embedding_dropout": 0.1, "attention_dropout": 0.2, "residual_dropout": 0.3}
    model = LanguageModel(ModelConfig.llama(**LLAMA, **rates))
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.randint(0, 50, (2, 20))

    def hidden(seed: int | None) -> torch.Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        before = torch.get_rng_state()
        result = model(ids, Context.dense(ids, generator=generator))
        assert torch.equal(torch.get_rng_state(), before)
        return result

    assert torch.equal(hidden(1), hidden(1))
    assert not torch.allclose(hidden(1), hidden(2))
    assert torch.equal(hidden(None), hidden(None))
    assert not torch.allclose(hidden(None), hidden(1))


@pytest.mark.parametrize("rate", ["embedding_dropout", "attention_dropout", "residual_dropout"])
def test_each_dropout_acts_and_is_right_on_average(rate):
    model = LanguageModel(ModelConfig.llama(**LLAMA, **{rate: 0.25}))
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.randint(0, 50, (1, 12))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        still = model(ids, Context.dense(ids))
        assert not torch.allclose(model(ids, Context.dense(ids, generator=generator)), still, atol=1e-4)


def test_dropout_keeps_the_mean():
    ctx = Context.dense(torch.zeros(1, 1, dtype=torch.int64), generator=torch.Generator().manual_seed(0))
    dropped = ctx.dropout(torch.ones(200_000), 0.3)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert sorted(set(dropped.tolist())) == pytest.approx([0.0, 1 / 0.7])


@pytest.mark.parametrize("segmented", [False, True])
def test_attention_with_vanishing_dropout_is_attention(segmented):
    ids = torch.zeros(2, 9, dtype=torch.int64)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2, -1]]).expand(2, -1) if segmented else None
    q, k, v = torch.randn(2, 9, 4, 8), torch.randn(2, 9, 2, 8), torch.randn(2, 9, 2, 8)
    plain = Context.dense(ids, segments=segments).attend(0, q, k, v)
    generator = torch.Generator().manual_seed(0)
    drops = Context.dense(ids, segments=segments, generator=generator).attend(0, q, k, v, dropout=1e-12)
    assert torch.allclose(plain, drops, atol=1e-6)


def test_wrong_calls_are_refused():
    model = LanguageModel(ModelConfig.gpt2(**{**LLAMA, "ffn_size": 128}))
    ids = torch.zeros(2, 64, dtype=torch.int64)
    model(ids, Context.dense(ids))
    longer = torch.zeros(2, 65, dtype=torch.int64)
    with pytest.raises(RequestError, match="position 64"):
        model(longer, Context.dense(longer))
    with pytest.raises(RequestError, match="context"):
        model(ids, Context.dense(longer))
    with pytest.raises(RequestError, match="at least one token"):
        model(ids[:, :0], Context.dense(ids[:, :0]))
