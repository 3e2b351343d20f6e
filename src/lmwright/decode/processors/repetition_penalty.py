"""Repetition penalty (Keskar et al. 2019, arXiv:1909.05858, section 4.1), in the form of transformers.

Each token of prompt or output, once however often it occurs: a positive logit is divided by the penalty, a
negative one multiplied by it.
"""

# B batch, V vocab

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ORDER = 10
NEEDS_HISTORY = True


def process(logits_BV: Tensor, value: float, history: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits with the tokens of each row's history made less likely (value > 1)."""
    seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
    for row, tokens in enumerate(history):
        seen_BV[row, torch.as_tensor(tokens, dtype=torch.long, device=logits_BV.device)] = True
    penalised_BV = torch.where(logits_BV < 0, logits_BV * value, logits_BV / value)
    return torch.where(seen_BV, penalised_BV, logits_BV)
