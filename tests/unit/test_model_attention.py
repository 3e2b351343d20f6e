"""Attention without a T x T mask: each kernel against attention written out, and the tensors that are made."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmwright.model import dense, documents, flex, square
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel

# Short ones that share a piece, one that fills it, one beyond square.LIMIT, one token, padding.
ROWS = ((("0", 3), ("1", 100), ("2", 154), ("3", 255), ("4", 700), ("5", 1), ("-1", 87)), (("0", 600), ("1", 700)))


def segments_of(*rows) -> Tensor:
    """[B, T] from the (number, length) of each document."""
    return torch.stack([torch.cat([torch.full((n,), int(name)) for name, n in row]) for row in rows])


def random_rows(seed: int, batch: int, length: int) -> Tensor:
    chance, rows = random.Random(seed), []
    for _ in range(batch):
        row, left = [], length
        while left:
            row.append((str(len(row)), min(left, max(1, int(chance.lognormvariate(4, 1.5))))))
            left -= row[-1][1]
        rows.append([*row[:-1], ("-1", row[-1][1])] if chance.random() < 0.5 else row)
    return segments_of(*rows)


def parts_of(segments: Tensor, heads: int, groups: int, dtype: torch.dtype, width: int = 4) -> list[Tensor]:
    """q, k, v and a gradient of the result."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(*segments.shape, n, width, generator=generator, dtype=torch.float64).to(dtype)
        for n in (heads, groups, groups, heads)
    ]


def written_out(q: Tensor, k: Tensor, v: Tensor, segments: Tensor, causal: bool) -> Tensor:
    allowed = dense.allowed(segments, segments, causal=causal, start=0)
    parts = (x.transpose(1, 2) for x in (q, k, v))
    return dense.attend(*parts, allowed, lambda shares: shares).transpose(1, 2)


def with_gradients(function, parts: list[Tensor]) -> list[Tensor]:
    *leaves, grad = parts
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad)]


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_covers_each_place_once_and_cuts_no_document(seed):
    segments = random_rows(seed, 3, 1000)
    pieces = documents.plan(segments, causal=True, dtype=torch.float32)
    ends = [0, 0, 0]
    for piece in pieces:
        row, here = piece.row.start, piece.places
        assert piece.row.stop == row + 1
        assert here.start == ends[row] < here.stop
        ends[row] = here.stop
        assert here.start == 0 or segments[row, here.start - 1] != segments[row, here.start]
        inside = segments[row, here]
        assert len(inside) <= documents.GROUP or (inside == inside[0]).all()
        assert (piece.bias_1TT is None) == (len(inside) > square.LIMIT)
    assert ends == [1000] * 3
    assert any(len(segments[piece.row, piece.places].unique()) > 1 for piece in pieces)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)])
def test_documents_are_as_attention_written_out(heads, groups, causal):
    segments = segments_of(*ROWS)
    parts = parts_of(segments, heads, groups, torch.float32)
    pieces = documents.plan(segments, causal=causal, dtype=torch.float32)
    assert {piece.bias_1TT is None for piece in pieces} == {True, False}
    got = with_gradients(lambda q, k, v: documents.attend(q, k, v, pieces), parts)
    expected = with_gradients(lambda q, k, v: written_out(q, k, v, segments, causal), parts)
    for left, right in zip(got, expected, strict=True):
        assert torch.allclose(left, right, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_documents_of_any_lengths(seed, causal):
    segments = random_rows(seed, 2, 700)
    parts = parts_of(segments, 2, 1, torch.float32)
    pieces = documents.plan(segments, causal=causal, dtype=torch.float32)
    got = with_gradients(lambda q, k, v: documents.attend(q, k, v, pieces), parts)
    expected = with_gradients(lambda q, k, v: written_out(q, k, v, segments, causal), parts)
    for left, right in zip(got, expected, strict=True):
        assert torch.allclose(left, right, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_gradient_of_documents(causal, monkeypatch):
    monkeypatch.setattr(documents, "GROUP", 5)
    monkeypatch.setattr(square, "LIMIT", 6)
    segments = segments_of((("0", 2), ("1", 3), ("2", 6), ("3", 8), ("-1", 1)), (("0", 20),))
    pieces = documents.plan(segments, causal=causal, dtype=torch.float64)
    assert [piece.bias_1TT is None for piece in pieces] == [False, False, True, False, True]
    q, k, v, _ = (x.requires_grad_() for x in parts_of(segments, 2, 1, torch.float64, width=2))
    assert torch.autograd.gradcheck(lambda q, k, v: documents.attend(q, k, v, pieces), (q, k, v))


def test_half_precision_documents_are_near_full_precision():
    segments = segments_of(*ROWS)
    half = parts_of(segments, 4, 2, torch.bfloat16, width=16)

    def run(parts: list[Tensor]) -> list[Tensor]:
        pieces = documents.plan(segments, causal=True, dtype=parts[0].dtype)
        return with_gradients(lambda q, k, v: documents.attend(q, k, v, pieces), parts)

    for left, right in zip(run(half), run([x.float() for x in half]), strict=True):
        assert left.dtype == torch.bfloat16
        assert (left.float() - right).norm() < 0.01 * right.norm()


@pytest.mark.parametrize("train", [False, True])
def test_a_segment_that_comes_back_is_one_document_still(train):
    segments = segments_of((("0", 200), ("1", 150), ("0", 250)))
    assert documents.plan(segments, causal=True, dtype=torch.float32) is None
    q, k, v, _ = parts_of(segments, 2, 2, torch.float32)
    y = Context.dense(segments, segments=segments).attend(0, q.requires_grad_(train), k, v)
    assert torch.allclose(y, written_out(q, k, v, segments, True), atol=1e-5)
    padded = segments_of((("-1", 200), ("1", 150), ("-1", 250)))
    assert documents.plan(padded, causal=True, dtype=torch.float32) is not None


@pytest.mark.parametrize("mask", ["causal", "bidirectional"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("length", [documents.GROUP, documents.GROUP + 1, square.LIMIT, square.LIMIT + 1])
def test_a_context_attends_within_documents_at_any_length(length, train, mask):
    segments = segments_of((("0", 100), ("1", length - 130), ("-1", 30)))
    q, k, v, _ = parts_of(segments, 2, 1, torch.float32)
    y = Context.dense(segments, segments=segments, mask=mask).attend(0, q.requires_grad_(train), k, v)
    assert torch.allclose(y, written_out(q, k, v, segments, mask == "causal"), atol=1e-5)


def test_vanishing_dropout_within_documents():
    segments = segments_of(*ROWS)
    q, k, v, _ = parts_of(segments, 2, 1, torch.float32)
    ctx = Context.dense(segments, segments=segments, generator=torch.Generator().manual_seed(0))
    pieces = documents.plan(segments, causal=True, dtype=torch.float32)
    assert torch.allclose(ctx.attend(0, q, k, v, dropout=1e-12), documents.attend(q, k, v, pieces), atol=1e-5)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.names = 0, set[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        self.names.add(func.__name__.split(".")[0])
        return result


LENGTH = 2048
LONG = segments_of((("0", 300), ("1", 512), ("2", 700), ("3", 5), ("4", 400), ("-1", 131)))
SEVERAL = segments_of((("0", 1000), ("1", 48), ("0", 1000)))  # no runs: the mask is written out


def largest(segments: Tensor | None, mask: str, dtype: torch.dtype) -> Largest:
    """Of a forward and a backward pass over one row of LENGTH tokens."""
    config = ModelConfig.llama(
        vocab_size=16, hidden_size=16, num_layers=2, num_heads=4, num_kv_heads=2, ffn_size=16, max_positions=LENGTH
    )
    model = LanguageModel(config)
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.randint(0, 16, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    with Largest() as made:
        ctx = Context.dense(ids, segments=segments, mask=mask, dtype=dtype)
        F.cross_entropy(model.logits(model(ids, ctx)).float()[0], ids[0]).backward()
    assert {"mm", "native_layer_norm_backward"} <= made.names  # both passes were seen
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", ["causal", "bidirectional"])
@pytest.mark.parametrize("packed", [False, True])
def test_no_tensor_has_the_square_of_the_length(packed, mask, dtype):
    assert largest(LONG if packed else None, mask, dtype).elements < LENGTH * LENGTH


def test_a_square_would_be_seen():
    assert largest(SEVERAL, "causal", torch.float32).elements >= LENGTH * LENGTH


FLEX_ROWS = {
    "short": ((("0", 5), ("1", 20), ("-1", 12)),),
    "one block": ((("0", 100), ("1", 28)), (("0", 128),)),
    "blocks": (
        (("0", 300), ("1", 84), ("2", 128), ("-1", 128)),
        (("0", 640),),
        (("0", 1), ("1", 255), ("2", 256), ("3", 128)),
    ),
    "ragged": ((("0", 130), ("1", 270)), (("0", 128), ("1", 1), ("2", 271)), (("0", 400),)),
    "returning": ((("0", 128), ("1", 128), ("0", 144)),),
}


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rows", FLEX_ROWS.values(), ids=FLEX_ROWS)
def test_blocks_are_those_of_the_whole_mask(rows, causal):
    segments = segments_of(*rows)
    batch, length = segments.shape
    mask_mod = flex.mask_mod(segments, causal=causal)
    b, query, key = (torch.arange(n) for n in (batch, length, length))
    table = mask_mod(b[:, None, None], torch.tensor(0), query[None, :, None], key[None, None])
    assert torch.equal(table, dense.allowed(segments, segments, causal=causal, start=0)[:, 0])

    ours = flex.plan(segments, causal=causal)
    theirs = create_block_mask(mask_mod, batch, 1, length, length, device="cpu", BLOCK_SIZE=flex.BLOCK)
    assert ours.shape == theirs.shape
    rising = bool((segments.diff() >= 0).all())
    for kind in ("kv", "full_kv"):
        counts, wanted = getattr(ours, f"{kind}_num_blocks"), getattr(theirs, f"{kind}_num_blocks")
        numbers, wanted_numbers = getattr(ours, f"{kind}_indices"), getattr(theirs, f"{kind}_indices")
        assert counts.dtype == wanted.dtype
        assert numbers.shape == wanted_numbers.shape
        if rising or kind == "full_kv":  # else a block may be visited in vain, but none is left out
            assert torch.equal(counts, wanted)
            assert torch.equal(numbers, wanted_numbers)
    assert (ours.to_dense() >= theirs.to_dense()).all()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("causal", [True, False])
def test_flex_attention_is_as_attention_written_out(causal, monkeypatch):
    segments = segments_of(*FLEX_ROWS["ragged"])
    q, k, v, _ = parts_of(segments, 4, 2, torch.float32, width=8)
    monkeypatch.setattr(flex, "_compiled", lambda: flex_attention)
    parts = (x.transpose(1, 2) for x in (q, k, v))
    y = flex.attend(*parts, flex.plan(segments, causal=causal)).transpose(1, 2)
    assert torch.allclose(y, written_out(q, k, v, segments, causal), atol=1e-5)
