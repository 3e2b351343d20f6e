"""Top-p, nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751): the fewest most likely tokens of mass p.

The token that crosses p is kept. Of equally likely tokens the lower id counts as the more likely, as in argmax.
"""

# B batch, V vocab

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ORDER = 40
NEEDS_HISTORY = False


def process(logits_BV: Tensor, value: float, history: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits with the least likely tokens of total mass at most 1 - value removed."""
    sorted_BV, ids_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    sorted_BV, ids_BV = sorted_BV.flip(-1), ids_BV.flip(-1)
    # Summed from the least likely token up, the small masses that decide are not lost in rounding.
    remove_BV = sorted_BV.softmax(dim=-1).cumsum(dim=-1) <= 1 - value
    remove_BV[:, -1] = False
    return logits_BV.masked_fill(torch.zeros_like(remove_BV).scatter(-1, ids_BV, remove_BV), -torch.inf)
