"""fp32 arithmetic in which a token's result does not depend on how many tokens are computed beside it.

Matrix libraries pick their kernels, and so the order of their sums, by the number of rows: a token
computed alone and the same token computed among a thousand differ in the last bits, and a greedy choice
near a tie then differs between a cached and an uncached run. Here every operation always has one shape:
the sequence is cut into tiles of ROWS rows aligned to absolute positions, so that position p is row
p mod ROWS of its tile whatever the call, and queries read keys in blocks of BLOCK. The only assumption is
that a kernel gives the same bits for the same shape, place and thread count. The softmax is the two-pass
one over blocks: the maximum first (exact in any order), then sums block by block in order.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lmwright.model.state import BLOCK

ROWS = 16  # a divisor of BLOCK, so that all rows of a tile read the same number of blocks


@dataclass(frozen=True)
class Tile:
    """ROWS positions from `base` of one sequence of the batch, of which a call uses `rows`."""

    sequence: int
    base: int
    rows: slice


def tiles(sequence: int, start: int, end: int) -> Iterator[Tile]:
    """The tiles that hold the positions start..end-1."""
    for base in range(start // ROWS * ROWS, end, ROWS):
        yield Tile(sequence, base, slice(max(start - base, 0), min(end - base, ROWS)))


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


def attend(q_HRK: Tensor, keys_GSK: Tensor, values_GSK: Tensor, base: int) -> Tensor:
    """Causal attention of one tile of queries at positions base..base+ROWS-1; [H, R, K].

    keys_GSK and values_GSK hold whole blocks, finite everywhere; keys after a query are masked.
    """
    heads, rows, width = q_HRK.shape
    groups = keys_GSK.shape[0]
    q_GQK = q_HRK.reshape(groups, heads // groups * rows, width) * width**-0.5
    blocks = (base + rows - 1) // BLOCK + 1
    places = torch.arange(BLOCK, device=q_HRK.device)
    own = torch.arange(base, base + rows, device=q_HRK.device).repeat(heads // groups)
    scores = []
    for block in range(blocks):
        part_GCK = keys_GSK[:, block * BLOCK : (block + 1) * BLOCK]
        scores_GQC = torch.bmm(q_GQK, part_GCK.transpose(1, 2))
        if block == blocks - 1:  # earlier blocks lie wholly in the past
            hidden = places[None, :] + block * BLOCK > own[:, None]
            scores_GQC = scores_GQC.masked_fill(hidden, -torch.inf)
        scores.append(scores_GQC)
    top_GQ1 = torch.stack([part.amax(-1, keepdim=True) for part in scores]).amax(0)
    total_GQ1 = torch.zeros_like(top_GQ1)
    sum_GQK = torch.zeros_like(q_GQK)
    for block, scores_GQC in enumerate(scores):
        shares_GQC = (scores_GQC - top_GQ1).exp()
        total_GQ1 += shares_GQC.sum(-1, keepdim=True)
        sum_GQK += torch.bmm(shares_GQC, values_GSK[:, block * BLOCK : (block + 1) * BLOCK])
    return (sum_GQK / total_GQ1).view(heads, rows, width)
