"""Linear map and embedding table with fp32 masters and an explicit compute precision.

The parameters keep the precision they were made or loaded in (fp32 for training); the weight is cast to
the activation's dtype at use, so the context's dtype decides in what precision a model computes and no
autocast is needed. Gradients arrive in the parameters' own dtype.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """y = x W^T + b, with W of shape [out, in].

    residual: the output is added to the residual stream, so `init_weights` scales it down.
    The parameters start at zero: `LanguageModel.init_weights` or a checkpoint fills them.
    """

    def __init__(self, width_in: int, width_out: int, *, bias: bool, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.weight = nn.Parameter(torch.zeros(width_out, width_in))
        self.bias = nn.Parameter(torch.zeros(width_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out] in x's dtype."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Embedding(nn.Module):
    """A table of rows, [count, D]; looked up in the table's dtype."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, width))

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] int64 -> [..., D]."""
        return F.embedding(ids, self.weight)
