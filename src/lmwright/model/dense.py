"""Attention with its mask written out: which key each query may see, and dropout of the probabilities.

The plain twin of the kernels that write no square (model.documents, model.flex, torch's fused one), and what
serves where they do not: dropout, whose draws must come from the caller's generator, short rows, and segments that
come back later in a row. Costs T x S numbers and more. Knows nothing of state.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def allowed(positions_BT: Tensor, segments_BT: Tensor | None, *, causal: bool, start: int) -> Tensor | None:
    """[1 or B, 1, T, S] True where a query may see a key; None where it may see all.

    The keys are `start` earlier tokens and the T of the call; segments are for calls without earlier ones.
    """
    seen = _causal(positions_BT.shape[1], start, positions_BT.device) if causal else None
    if segments_BT is None:
        return seen
    # Padding (-1) equals padding, so no row is without a key and the softmax stays finite.
    same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
    return same_BTS[:, None] if seen is None else same_BTS[:, None] & seen


def _causal(count: int, start: int, device: torch.device) -> Tensor:
    rows = torch.arange(start, start + count, device=device)
    keys = torch.arange(start + count, device=device)
    return (keys[None, :] <= rows[:, None])[None, None]


def attend(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, allowed: Tensor | None, dropout: Callable[[Tensor], Tensor]
) -> Tensor:
    """softmax(q k^T / sqrt(K)) v with the probabilities written out and handed to `dropout`; [B, H, T, K].

    allowed: [1 or B, 1, T, S]; None lets every query see every key.
    """
    copies = q_BHTK.shape[1] // k_BGSK.shape[1]
    k_BHSK, v_BHSK = (x.repeat_interleave(copies, dim=1) for x in (k_BGSK, v_BGSK))
    scores_BHTS = (q_BHTK @ k_BHSK.transpose(2, 3)).float() * q_BHTK.shape[3] ** -0.5
    if allowed is not None:
        scores_BHTS = scores_BHTS.masked_fill(~allowed, -torch.inf)
    return dropout(scores_BHTS.softmax(-1)).to(v_BHSK.dtype) @ v_BHSK
