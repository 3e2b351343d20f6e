"""Min-p (Nguyen et al. 2024, arXiv:2407.01082): tokens at least min_p times as likely as the most likely one."""

# B batch, V vocab

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ORDER = 50
NEEDS_HISTORY = False


def process(logits_BV: Tensor, value: float, history: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits with every token below value times the greatest probability removed."""
    probs_BV = logits_BV.softmax(dim=-1)
    least_B1 = value * probs_BV.amax(dim=-1, keepdim=True)
    return logits_BV.masked_fill(probs_BV < least_B1, -torch.inf)
