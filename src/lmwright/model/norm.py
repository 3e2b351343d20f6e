"""RMSNorm (Zhang and Sennrich 2019, eq. 4) and LayerNorm (Ba et al. 2016, eq. 4).

Statistics are taken in fp32 whatever the activation's dtype; the result has the activation's dtype.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright.model.config import ModelConfig


class RMSNorm(nn.Module):
    """y = w * x / sqrt(mean(x^2) + eps)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[..., D] -> [..., D], same dtype."""
        x = x_BTD.float()
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return (y * self.weight).to(x_BTD.dtype)


class LayerNorm(nn.Module):
    """y = w * (x - mean(x)) / sqrt(var(x) + eps) + b, with the biased variance."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[..., D] -> [..., D], same dtype."""
        weight, bias = self.weight, self.bias
        if x_BTD.device.type != "cpu":  # the CPU kernel mixes bf16 rows with fp32 weights, others do not
            weight, bias = weight.to(x_BTD.dtype), bias.to(x_BTD.dtype)
        return F.layer_norm(x_BTD, weight.shape, weight, bias, self.eps)


def build_norm(config: ModelConfig) -> nn.Module:
    """The norm that the config names, over the model's width."""
    kind = RMSNorm if config.norm == "rmsnorm" else LayerNorm
    return kind(config.hidden_size, config.norm_eps)
