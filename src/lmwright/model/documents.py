"""Attention inside each document of packed rows, on a CPU: no mask, and no tensor of T x T numbers.

Documents packed in a row are runs of equal segment numbers, and a run attends within itself alone, so the work is
the sum of the squares of the documents' lengths. Neighbouring short documents share a piece, with a small mask,
because a product has a price however small it is. A piece of up to `square.LIMIT` tokens keeps its probabilities
(see model.square); a longer document goes to torch's fused kernel (FlashAttention, Dao et al. 2022), which
keeps a number a query. Kept of a layer: q, k and v once, and H n^2 numbers of each piece of n tokens that keeps
its probabilities. Knows nothing of dropout or of state.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmwright.model import square

GROUP = 256  # tokens; shorter documents share a piece up to here
PADDING = -1  # the one segment number that may return in a row: nobody reads what padding sees


@dataclass(frozen=True)
class Piece:
    """Places of one row that attend among themselves.

    bias_1TT: 0 where a query may see a key, -inf elsewhere; None for a document of more than square.LIMIT tokens.
    """

    row: slice
    places: slice
    causal: bool
    bias_1TT: Tensor | None


def plan(segments_BT: Tensor, *, causal: bool, dtype: torch.dtype) -> list[Piece] | None:
    """The pieces of [B, T] segments, which cover every place once; None where a document is not one run.

    dtype: of the attention that is to come, for the biases.
    """
    longest = min(square.LIMIT, segments_BT.shape[1])
    full_TT = torch.zeros(longest, longest, dtype=dtype)
    if causal:
        full_TT.masked_fill_(torch.ones(longest, longest, dtype=torch.bool).triu_(1), -torch.inf)
    pieces = []
    for row, segments_T in enumerate(segments_BT):
        ids, counts = torch.unique_consecutive(segments_T, return_counts=True)
        documents = ids[ids != PADDING]
        if len(documents.unique()) < len(documents):
            return None
        start = 0
        for lengths in _groups(counts.tolist()):
            end = start + sum(lengths)
            bias = None if end - start > longest else _bias(full_TT, lengths)
            pieces.append(Piece(slice(row, row + 1), slice(start, end), causal, bias))
            start = end
    return pieces


def attend(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, pieces: Sequence[Piece]) -> Tensor:
    """softmax(q k^T / sqrt(K)) v inside each document; [B, T, H, K]."""
    return _Attend.apply(q_BTHK, k_BTGK, v_BTGK, pieces)  # type: ignore[no-any-return, no-untyped-call]


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Neighbours joined while their sum stays within GROUP."""
    group: list[int] = []
    for length in lengths:
        if group and sum(group) + length > GROUP:
            yield group
            group = []
        group.append(length)
    yield group


def _bias(full_TT: Tensor, lengths: Sequence[int]) -> Tensor:
    """[1, T, T] for neighbouring documents of these lengths."""
    count = sum(lengths)
    bias_TT = full_TT[:count, :count]
    if len(lengths) > 1:
        number_T = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        bias_TT = bias_TT.masked_fill(number_T[:, None] != number_T, -torch.inf)
    return bias_TT[None]


# Private, but what F.scaled_dot_product_attention and its derivative call on a CPU. Called here because slices of
# an autograd graph would cost a gradient of the full size each.
def _fused(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    # Copies, so that what is kept is this piece and not the whole rows behind a view.
    q_BHTK, k_BGTK, v_BGTK = (x.transpose(1, 2).contiguous() for x in (q, k, v))
    y_BHTK, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q_BHTK, k_BGTK, v_BGTK, 0.0, causal)
    return y_BHTK.transpose(1, 2), (q_BHTK, k_BGTK, v_BGTK, y_BHTK, sums)


def _fused_backward(grad_BTHK: Tensor, kept: tuple[Tensor, ...], causal: bool) -> tuple[Tensor, ...]:
    grad_BHTK = grad_BTHK.transpose(1, 2)
    grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(grad_BHTK, *kept, 0.0, causal)
    return tuple(grad.transpose(1, 2) for grad in grads)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, pieces: Sequence[Piece]) -> Tensor:
        y_BTHK = torch.empty(q.shape, dtype=q.dtype)
        kept, ctx.counts, ctx.pieces, ctx.groups = list[Tensor](), [], pieces, k.shape[2]
        for piece in pieces:
            here = piece.row, piece.places
            parts = q[here], k[here], v[here]
            if piece.bias_1TT is None:
                y_BTHK[here], tensors = _fused(*parts, piece.causal)
            else:
                y_BTHK[here], tensors = square.forward(*parts, piece.bias_1TT)
            kept += tensors
            ctx.counts.append(len(tensors))
        ctx.save_for_backward(*kept)
        return y_BTHK

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        batch, count, heads, width = grads[0].shape
        dq, dk, dv = (grads[0].new_empty(batch, count, n, width) for n in (heads, ctx.groups, ctx.groups))
        kept = iter(ctx.saved_tensors)
        for piece, number in zip(ctx.pieces, ctx.counts, strict=True):
            here, tensors = (piece.row, piece.places), tuple(next(kept) for _ in range(number))
            if piece.bias_1TT is None:
                dq[here], dk[here], dv[here] = _fused_backward(grads[0][here], tensors, piece.causal)
            else:
                dq[here], dk[here], dv[here] = square.backward(grads[0][here], tensors)
        return dq, dk, dv, None
