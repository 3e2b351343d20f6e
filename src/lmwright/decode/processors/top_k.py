"""Top-k (Fan et al. 2018, arXiv:1805.04833): the k most likely tokens, with all that equal the k-th."""

# B batch, V vocab

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ORDER = 30
NEEDS_HISTORY = False


def process(logits_BV: Tensor, value: int, history: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits with everything below the value-th largest removed."""
    kth_B1 = logits_BV.topk(min(value, logits_BV.shape[-1]), dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)
