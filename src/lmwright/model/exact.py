"""fp32 arithmetic in which a token's result does not depend on how many tokens are computed beside it.

Matrix libraries pick their kernels, and so the order of their sums, by the number of rows: a token
computed alone and the same token computed among a thousand differ in the last bits, and a greedy choice
near a tie then differs between a cached and an uncached run. Here every product always has one shape:
rows go through the layers in parts of ROWS, filled up with rows that nobody reads, and a part may hold rows
of several sequences, so that a batch of sequences decodes in the time of one. Attention runs on tiles of ROWS
positions aligned to absolute places, position p in row p mod ROWS, which read keys in blocks of BLOCK. The
softmax is the two-pass one over blocks: the maximum first (exact in any order), then sums block by block.

Assumed of a kernel: that, for one shape and thread count, a row's bits do not depend on the other rows nor on
its place among the ROWS. Matrix products keep this (tests/unit/test_model_exact.py tries many shapes on 1 to
4 threads); elementwise functions do not where a vector ends inside a row, which `each_row` sees to. Whole
parts cannot be stacked into one product: on 2 threads MKL cuts long sums by the number of rows.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lmwright.model.state import BLOCK

ROWS = 16  # a divisor of BLOCK, so that all rows of a tile read the same number of blocks
GRAIN = 32768  # elements; torch gives an elementwise call of at most so many to one thread
VECTORS = 32  # elements; the widest step (2 AVX-512 vectors) of torch's elementwise loops


@dataclass(frozen=True)
class Tile:
    """ROWS positions from `base` of one sequence of the batch, of which a call uses `rows`."""

    sequence: int
    base: int
    rows: slice

    @property
    def places(self) -> range:
        """The positions in use."""
        return range(self.base + self.rows.start, self.base + self.rows.stop)


def parts(batch: int, start: int, end: int) -> Iterator[tuple[Tile, ...]]:
    """The tiles of positions start..end-1 of all sequences, as many whole ones of a base as ROWS rows hold."""
    for base in range(start // ROWS * ROWS, end, ROWS):
        rows = slice(max(start - base, 0), min(end - base, ROWS))
        step = ROWS // (rows.stop - rows.start)
        for first in range(0, batch, step):
            yield tuple(Tile(row, base, rows) for row in range(first, min(first + step, batch)))


def by_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a row-wise function to x [..., D] in calls of exactly ROWS rows; the last is filled with zeros."""
    rows_ND = x.reshape(-1, x.shape[-1])
    results = []
    for start in range(0, rows_ND.shape[0], ROWS):
        tile = rows_ND[start : start + ROWS]
        used = tile.shape[0]
        if used < ROWS:
            tile = torch.cat([tile, tile.new_zeros(ROWS - used, tile.shape[1])])
        results.append(function(tile.contiguous())[:used])
    joined = torch.cat(results)
    return joined.reshape(*x.shape[:-1], joined.shape[-1])


def each_row(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """An elementwise function of x [..., F] whose bits do not depend on a row's place.

    Whole vectors and the elements after the last whole one go through different code. One call does where
    it has whole vectors only, on one thread; else each row is a call of its own.
    """
    if x.numel() <= GRAIN and x.numel() % VECTORS == 0:
        return function(x.contiguous())
    rows_NF = x.reshape(-1, x.shape[-1])
    return torch.stack([function(row_F.clone()) for row_F in rows_NF]).view(x.shape)


def attend(q_NHRK: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], base: int) -> Tensor:
    """Causal attention of N tiles of queries, all at positions base..base+ROWS-1; [N, H, R, K].

    keys and values: of each tile [G, S, K], whole blocks, finite everywhere; keys after a query are masked.
    The products are one call a tile, so that their shape is always the same.
    """
    count, heads, rows, width = q_NHRK.shape
    groups = keys[0].shape[0]
    q_NGQK = q_NHRK.reshape(count, groups, heads // groups * rows, width) * width**-0.5
    blocks = (base + rows - 1) // BLOCK + 1
    places = torch.arange(BLOCK, device=q_NHRK.device)
    own = torch.arange(base, base + rows, device=q_NHRK.device).repeat(heads // groups)
    scores = []
    for block in range(blocks):
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        scores_NGQC = torch.stack(
            [torch.bmm(q_GQK, k_GSK[:, part].transpose(1, 2)) for q_GQK, k_GSK in zip(q_NGQK, keys, strict=True)]
        )
        if block == blocks - 1:  # earlier blocks lie wholly in the past
            hidden = places[None, :] + block * BLOCK > own[:, None]
            scores_NGQC.masked_fill_(hidden, -torch.inf)
        scores.append(scores_NGQC)
    top_NGQ1 = torch.stack([part.amax(-1, keepdim=True) for part in scores]).amax(0)
    total_NGQ1 = torch.zeros_like(top_NGQ1)
    sum_NGQK = torch.zeros_like(q_NGQK)
    for block, scores_NGQC in enumerate(scores):
        shares_NGQC = (scores_NGQC - top_NGQ1).exp_()
        total_NGQ1 += shares_NGQC.sum(-1, keepdim=True)
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        for sum_GQK, shares_GQC, v_GSK in zip(sum_NGQK, shares_NGQC, values, strict=True):
            sum_GQK += torch.bmm(shares_GQC, v_GSK[:, part])
    return (sum_NGQK / total_NGQ1).view(q_NHRK.shape)
