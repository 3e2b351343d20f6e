"""Dense feed-forward layers: SwiGLU (Shazeer 2020, eq. 6) and the two-matrix form (Vaswani et al. 2017, eq. 2)."""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.linear import Linear


def activate(x: Tensor, name: str) -> Tensor:
    """`silu`, `gelu` (exact, by erf) or `gelu_tanh` (Hendrycks and Gimpel 2016, the tanh form)."""
    if name == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")


class FeedForward(nn.Module):
    """swiglu: down(act(gate(x)) * up(x)); gelu: down(act(up(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.ffn_size, config.ffn_bias
        self.activate = partial(activate, name=config.activation)
        self.gate_proj = Linear(width, inner, bias=bias) if config.ffn == "swiglu" else None
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias, residual=True)

    def forward(self, x_BTD: Tensor, ctx: Context) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        if self.gate_proj is None:
            inner_BTF = ctx.elementwise(self.activate, self.up_proj(x_BTD))
        else:
            inner_BTF = ctx.elementwise(self.activate, self.gate_proj(x_BTD)) * self.up_proj(x_BTD)
        y_BTD: Tensor = self.down_proj(inner_BTF)
        return y_BTD
