"""Attention inside each document of packed rows, on a GPU: FlexAttention with a mask of blocks.

A compiled FlexAttention kernel (Dong et al. 2024) skips the blocks of BLOCK x BLOCK scores that no query may see,
applies the mask inside those that need one, and writes no scores down. Which blocks those are follows from the
least and the greatest segment number of each block of tokens, so no tensor of T x T numbers is made for the mask
either. Any segment numbers will do; where they rise along the row no block is visited in vain.

Not run on a GPU yet: tested on a CPU, uncompiled, against torch's own `create_block_mask` and dense attention.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128  # tokens; what FlexAttention's kernels are tuned for

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def plan(segments_BT: Tensor, *, causal: bool) -> BlockMask:
    """The mask of [B, T] segments: a token sees those of its own segment, the later ones not if `causal`."""
    length = segments_BT.shape[1]
    partial_BQS, full_BQS = _blocks(segments_BT, causal=causal)
    return BlockMask.from_kv_blocks(
        *_listed(partial_BQS),
        *_listed(full_BQS),
        BLOCK_SIZE=BLOCK,
        mask_mod=mask_mod(segments_BT, causal=causal),
        seq_lengths=(length, length),
    )


def attend(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: BlockMask) -> Tensor:
    """softmax(q k^T / sqrt(K)) v under the mask; [B, H, T, K]."""
    y_BHTK: Tensor = _compiled()(
        q_BHTK, k_BGTK, v_BGTK, block_mask=mask, enable_gqa=q_BHTK.shape[1] != k_BGTK.shape[1]
    )
    return y_BHTK


def mask_mod(segments_BT: Tensor, *, causal: bool) -> MaskMod:
    """The mask as a function of batch, head, query and key."""

    def same(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return segments_BT[b, query] == segments_BT[b, key]

    def same_and_earlier(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return same(b, h, query, key) & (query >= key)

    return same_and_earlier if causal else same


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """One compiled kernel for the process; without compilation all scores would be written out."""
    return torch.compile(flex_attention)


def _blocks(segments_BT: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Blocks of queries by blocks of keys [B, Q, S]: those that need the mask inside, and those seen whole."""
    batch, length = segments_BT.shape
    count = -(-length // BLOCK)
    missing = count * BLOCK - length
    filled = torch.cat([segments_BT, segments_BT[:, -1:].expand(batch, missing)], 1).view(batch, count, BLOCK)
    least, most = filled.amin(2), filled.amax(2)
    some_BQS = (least[:, :, None] <= most[:, None]) & (least[:, None] <= most[:, :, None])
    all_BQS = some_BQS & (least == most)[:, :, None] & (least == most)[:, None]
    if missing:  # a block that goes beyond the end is never whole
        all_BQS[:, -1] = all_BQS[:, :, -1] = False
    if causal:
        some_BQS, all_BQS = some_BQS.tril(), all_BQS.tril(-1)
    return some_BQS & ~all_BQS, all_BQS


def _listed(chosen_BQS: Tensor) -> tuple[Tensor, Tensor]:
    """How many key blocks each query block reads [B, 1, Q], and their numbers, those read first [B, 1, Q, S]."""
    numbers = chosen_BQS.int().argsort(dim=-1, descending=True, stable=True)
    return chosen_BQS.sum(-1, dtype=torch.int32)[:, None], numbers.int()[:, None]
