"""RMSNorm (Zhang and Sennrich 2019, eq. 4) and LayerNorm (Ba et al. 2016, eq. 4).

Computed in fp32 whatever the activation's dtype; the result has the activation's dtype. On a CPU both have a
gradient of their own. It calls torch's kernel on fp32 copies of the rows; where the norm is compiled
(`train.compile`) it is written out, and becomes one pass over the rows as they are.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.config import ModelConfig

BLOCK = 64  # rows whose part of a gain's gradient is summed while they are in the processor's cache


def widen(x: Tensor) -> Tensor:
    """x in fp32, or as it is where it is wider."""
    return x if x.dtype == torch.float64 else x.float()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """w * x / sqrt(mean(x^2) + eps) over the last dimension; fp32 inside, x's dtype out."""
    weight = _as_wide(weight, x)
    if x.device.type == "cpu" and torch.is_grad_enabled():
        return _RMSNorm.apply(x, weight, eps)  # type: ignore[no-any-return, no-untyped-call]
    return _normalise(widen(x), weight, eps)[0].to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """w * (x - mean(x)) / sqrt(var(x) + eps) + b over the last dimension; fp32 inside, x's dtype out."""
    weight, bias = _as_wide(weight, x), _as_wide(bias, x)
    if x.device.type == "cpu" and torch.is_grad_enabled():
        return _LayerNorm.apply(x, weight, bias, eps)  # type: ignore[no-any-return, no-untyped-call]
    return F.layer_norm(widen(x), weight.shape, weight, bias, eps).to(x.dtype)


def _as_wide(gain: Tensor, x: Tensor) -> Tensor:
    return gain.to(torch.promote_types(x.dtype, torch.float32))


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
        wide = widen(x)
        y, scale = _normalise(wide, weight, eps)
        # Compiled, the rows are widened again on the way back at no cost; else the wide copy is worth its memory.
        ctx.save_for_backward(x if torch.compiler.is_compiling() else wide, weight, scale)
        ctx.dtype = x.dtype
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        grad, wide, width = widen(grads[0]).contiguous(), widen(x), weight.shape[0]
        if torch.compiler.is_compiling():
            unit, inner = wide * scale, grad * weight
            dx = scale * (inner - unit * (inner * unit).mean(-1, keepdim=True))
            dweight = _summed(grad * unit)
        else:
            # Private, but what the derivative of F.layer_norm calls, with these arguments since torch 1.8.
            none = torch.zeros_like(scale)
            dx, dweight, _ = torch.ops.aten.native_layer_norm_backward(
                grad, wide, [width], none, scale, weight, torch.zeros_like(weight), [True, True, False]
            )
            means = torch.mv(grad.view(-1, width), weight).view(scale.shape) / width
            dx.addcmul_(means, scale)
        return dx.to(ctx.dtype), dweight, None


class _LayerNorm(torch.autograd.Function):
    """LayerNorm that keeps its rows as they came, in bf16 say, and its gains' gradients in fp32.

    torch's kernel takes such rows with fp32 gains, and computes in fp32; but backward it would sum the gains'
    gradients in bf16, and they come out wrong by several percent. So backward it is given fp32 copies.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, mean, scale = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, bias, mean, scale = ctx.saved_tensors
        grad, wide = widen(grads[0]).contiguous(), widen(x)
        if torch.compiler.is_compiling():
            unit, inner = (wide - mean) * scale, grad * weight
            centred = inner - inner.mean(-1, keepdim=True)
            dx = scale * (centred - unit * (inner * unit).mean(-1, keepdim=True))
            dweight, dbias = _summed(grad * unit), _summed(grad)
        else:
            dx, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
                grad, wide, weight.shape, mean, scale, weight, bias, [True, True, True]
            )
        return dx.to(x.dtype), dweight, dbias, None


def _summed(x: Tensor) -> Tensor:
    """x [..., D] summed to [D], in blocks: compiled, a sum over all rows would walk down one column at a time."""
    rows = x.flatten(0, -2)
    if rows.shape[0] % BLOCK == 0:
        rows = rows.view(-1, BLOCK, rows.shape[1]).sum(1)
    return rows.sum(0)


class Norm(nn.Module):
    """A norm of rows of one width, with a gain for each column."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[..., D] -> [..., D], same dtype."""
        return self._normed(x_BTD)

    def of_sum(self, x_BTD: Tensor, added_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """x + added, and the norm of that: compiled, both in one pass."""
        x_BTD = x_BTD + added_BTD
        return x_BTD, self._normed(x_BTD)

    def _normed(self, x_BTD: Tensor) -> Tensor:
        raise NotImplementedError


class RMSNorm(Norm):
    """y = w * x / sqrt(mean(x^2) + eps)."""

    def _normed(self, x_BTD: Tensor) -> Tensor:
        return rms_norm(x_BTD, self.weight, self.eps)


class LayerNorm(Norm):
    """y = w * (x - mean(x)) / sqrt(var(x) + eps) + b, with the biased variance."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)
        self.bias = nn.Parameter(torch.zeros(width))

    def _normed(self, x_BTD: Tensor) -> Tensor:
        return layer_norm(x_BTD, self.weight, self.bias, self.eps)


def build_norm(config: ModelConfig) -> Norm:
    """The norm that the config names, over the model's width."""
    kind: type[Norm] = RMSNorm if config.norm == "rmsnorm" else LayerNorm
    return kind(config.hidden_size, config.norm_eps)
