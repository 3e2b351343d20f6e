"""Temperature: logits divided by it; at 0 only the most likely token is left.

Of equal most likely tokens the lowest id is kept, as argmax does, so greedy decoding is the limit of sampling and
goes the same way through every later processor.
"""

# B batch, V vocab

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ORDER = 20
NEEDS_HISTORY = False


def process(logits_BV: Tensor, value: float, history: Sequence[Sequence[int]]) -> Tensor:
    """Return logits / value, or for value = 0 the logits with all but the first maximum removed."""
    if value > 0:
        return logits_BV / value
    best_B1 = logits_BV.argmax(dim=-1, keepdim=True)
    only_BV = torch.full_like(logits_BV, -torch.inf)
    return only_BV.scatter(-1, best_B1, logits_BV.gather(-1, best_B1))
