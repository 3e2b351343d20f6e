"""RMSNorm (Zhang and Sennrich 2019, eq. 4) and LayerNorm (Ba et al. 2016, eq. 4).

Computed in fp32 whatever the activation's dtype; the result has the activation's dtype.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.config import ModelConfig


def widen(x: Tensor) -> Tensor:
    """x in fp32, or as it is where it is wider."""
    return x if x.dtype == torch.float64 else x.float()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """w * x / sqrt(mean(x^2) + eps) over the last dimension; fp32 inside, x's dtype out."""
    wide = widen(x)
    weight = weight.to(wide.dtype)
    if x.device.type == "cpu" and torch.is_grad_enabled():
        return _RMSNorm.apply(wide, weight, eps).to(x.dtype)  # type: ignore[no-any-return, no-untyped-call]
    return _normalise(wide, weight, eps)[0].to(x.dtype)


def _normalise(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    scale = x.pow(2).mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (x * scale).mul_(weight), scale


class _RMSNorm(torch.autograd.Function):
    """RMSNorm with LayerNorm's backward kernel, which the CPU has in one pass.

    With mean 0 and 1/std = scale that kernel gives scale * (g w - mean(g w) - x^ mean(g w x^)); RMSNorm's
    gradient lacks the middle term, so it is added back. Three times faster than the written-out formula.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, scale = _normalise(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        grad, width = grads[0].contiguous(), weight.shape[0]
        # Private, but what the derivative of F.layer_norm calls, with these arguments since torch 1.8.
        dx, dweight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, [width], torch.zeros_like(scale), scale, weight, torch.zeros_like(weight), [True, True, False]
        )
        means = torch.mv(grad.view(-1, width), weight).view(scale.shape) / width
        return dx.addcmul_(means, scale), dweight, None


class RMSNorm(nn.Module):
    """y = w * x / sqrt(mean(x^2) + eps)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[..., D] -> [..., D], same dtype."""
        return rms_norm(x_BTD, self.weight, self.eps)


class LayerNorm(nn.Module):
    """y = w * (x - mean(x)) / sqrt(var(x) + eps) + b, with the biased variance."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[..., D] -> [..., D], same dtype."""
        # In fp32 throughout: given bf16, torch's CPU kernel sums the weight's and bias's gradients in bf16,
        # and they come out wrong by several percent.
        wide = widen(x_BTD)
        weight, bias = self.weight.to(wide.dtype), self.bias.to(wide.dtype)
        return F.layer_norm(wide, weight.shape, weight, bias, self.eps).to(x_BTD.dtype)


def build_norm(config: ModelConfig) -> nn.Module:
    """The norm that the config names, over the model's width."""
    kind = RMSNorm if config.norm == "rmsnorm" else LayerNorm
    return kind(config.hidden_size, config.norm_eps)
