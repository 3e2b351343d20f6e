"""Dense feed-forward layers: SwiGLU (Shazeer 2020, eq. 6) and the two-matrix form (Vaswani et al. 2017, eq. 2)."""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.linear import Linear
from lmwright.model.norm import widen
from lmwright.model.rope import Elementwise

# tanh-GELU is x sigmoid(SLOPE x + CUBE x^3), as tanh(u) = 2 sigmoid(2 u) - 1.
SLOPE = 2.0 * math.sqrt(2.0 / math.pi)
CUBE = 0.044715 * SLOPE
LN_2 = math.log(2.0)


def activate(x: Tensor, name: str) -> Tensor:
    """`silu`, `gelu` (exact, by erf) or `gelu_tanh` (Hendrycks and Gimpel 2016, the tanh form)."""
    if name == "silu":
        return F.silu(x)
    if name == "gelu_tanh" and torch.compiler.is_compiling():
        return _GeluTanh.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")


class _GeluTanh(torch.autograd.Function):
    """tanh-GELU by one exponential, for compilation: half the time of torch's, which takes a slow tanh.

    As single operations it would be the slower one. Computed in fp32, and more exact than torch's far below 0,
    where 1 + tanh cancels.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        wide = widen(x)
        return (wide / (1.0 + _other_side(wide))).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        wide = widen(x)
        share = 1.0 / (1.0 + _other_side(wide))
        slope = share + share * (1.0 - share) * (wide * (SLOPE + 3.0 * CUBE * (wide * wide)))
        return (widen(grads[0]) * slope).to(x.dtype)


def _other_side(x: Tensor) -> Tensor:
    """(1 - s)/s of the share s that tanh-GELU lets through. In base 2, which is a little faster."""
    return torch.exp2(-x * (SLOPE / LN_2 + CUBE / LN_2 * (x * x)))


class Activation(nn.Module):
    """act(up), or act(gate) * up: what lies between the matrices. It has no parameters."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activate = partial(activate, name=config.activation)

    def forward(self, up_BTF: Tensor, gate_BTF: Tensor | None, elementwise: Elementwise) -> Tensor:
        """[B, T, F] -> [B, T, F]. elementwise: how the context applies a function."""
        if gate_BTF is None:
            return elementwise(self.activate, up_BTF)
        return elementwise(self.activate, gate_BTF) * up_BTF


class FeedForward(nn.Module):
    """swiglu: down(act(gate(x)) * up(x)); gelu: down(act(up(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.ffn_size, config.ffn_bias
        self.activation = Activation(config)
        self.gate_proj = Linear(width, inner, bias=bias) if config.ffn == "swiglu" else None
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias, residual=True)

    def forward(self, x_BTD: Tensor, ctx: Context) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        gate_BTF = None if self.gate_proj is None else self.gate_proj(x_BTD)
        y_BTD: Tensor = self.down_proj(self.activation(self.up_proj(x_BTD), gate_BTF, ctx.elementwise))
        return y_BTD
