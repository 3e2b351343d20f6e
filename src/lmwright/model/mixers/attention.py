"""Causal self-attention with grouped heads (Vaswani et al. 2017, eq. 1; Ainslie et al. 2023 for groups).

Projects, turns by position and asks the context to attend; which keys a query sees, where they are kept
and how the softmax is computed are the context's affair.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

from torch import Tensor, nn

from lmwright.model import rope
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.linear import Linear


def keeps_per_token(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """What a cache holds of each token: a key and a value, each [G, K]."""
    part = (config.kv_heads, config.dim_per_head)
    return {"keys": part, "values": part}


class Mixer(nn.Module):
    """Multi-head (G = H), grouped-query (1 < G < H) or multi-query (G = 1) attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, bias = config.hidden_size, config.attention_bias
        heads, groups, head = config.num_heads, config.kv_heads, config.dim_per_head
        self.q_proj = Linear(width, heads * head, bias=bias)
        self.k_proj = Linear(width, groups * head, bias=bias)
        self.v_proj = Linear(width, groups * head, bias=bias)
        self.o_proj = Linear(heads * head, width, bias=bias, residual=True)

    def forward(self, x_BTD: Tensor, ctx: Context, layer: int) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        config = self.config
        split = (*x_BTD.shape[:2], -1, config.dim_per_head)
        q_BTHK = self.q_proj(x_BTD).view(split)
        k_BTGK = self.k_proj(x_BTD).view(split)
        v_BTGK = self.v_proj(x_BTD).view(split)
        if config.position == "rope":
            cos, sin = ctx.once("rope", lambda: rope.tables(config, ctx.positions_BT, ctx.elementwise))
            q_BTHK, k_BTGK = rope.rotate(q_BTHK, cos, sin), rope.rotate(k_BTGK, cos, sin)
        y_BTHK = ctx.attend(layer, q_BTHK, k_BTGK, v_BTGK, dropout=config.attention_dropout)
        y_BTD: Tensor = self.o_proj(y_BTHK.reshape(*x_BTD.shape[:2], -1))
        return y_BTD
