"""The language model: one decoder built from a `ModelConfig`.

Parameter names are those of Hugging Face's Llama, so a family file maps only configuration and renames.
Initialisation follows GPT-2 (Radford et al. 2019, section 2.3): normal(0, initializer_range), the
projections that write to the residual stream scaled by 1/sqrt(2 * num_layers), norms 1, biases 0. A mixer with an
`init_weights` of its own starts as that says.
Knows nothing of losses, optimisers or sampling.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwright import seams
from lmwright.errors import RequestError, UnsupportedError
from lmwright.model import exact as exact_math
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.linear import Embedding, Linear
from lmwright.model.norm import build_norm
from lmwright.model.recompute import recomputed
from lmwright.model.state import KVState


class Block(nn.Module):
    """x + mixer(norm(x)), then x + ffn(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.residual_dropout = config.residual_dropout
        self.input_layernorm = build_norm(config)
        self.self_attn = seams.load("lmwright.model.mixers", config.mixer).Mixer(config)
        self.post_attention_layernorm = build_norm(config)
        self.mlp = seams.load("lmwright.model.ffn", config.feed_forward).FeedForward(config)

    def forward(self, x_BTD: Tensor, ctx: Context, layer: int) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        mixed_BTD = self.self_attn(self.input_layernorm(x_BTD), ctx, layer)
        x_BTD, y_BTD = self.post_attention_layernorm.of_sum(x_BTD, ctx.dropout(mixed_BTD, self.residual_dropout))
        fed_BTD = self.mlp(y_BTD, ctx)
        return x_BTD + ctx.dropout(fed_BTD, self.residual_dropout)


class PlainBlock(nn.Module):
    """mixer(x) alone, as a recurrent model is stacked; dropout on what goes up (Zaremba et al. 2014)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.residual_dropout = config.residual_dropout
        self.mixer = seams.load("lmwright.model.mixers", config.mixer).Mixer(config)

    def forward(self, x_BTD: Tensor, ctx: Context, layer: int) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return ctx.dropout(self.mixer(x_BTD, ctx, layer), self.residual_dropout)


class Decoder(nn.Module):
    """Embeddings, the layers and, where they have norms, the last one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        learned = config.position == "learned"
        self.embed_positions = Embedding(config.max_positions, config.hidden_size) if learned else None
        plain = config.layout == "plain"
        block = PlainBlock if plain else Block
        self.layers = nn.ModuleList(block(config) for _ in range(config.num_layers))
        self.norm = nn.Identity() if plain else build_norm(config)

    def forward(self, ids_BT: Tensor, ctx: Context) -> Tensor:
        """[B, T] int64 -> [B, T, D] in the context's dtype."""
        x_BTD = self.embed_tokens(ids_BT)
        if self.embed_positions is not None:
            x_BTD = x_BTD + self.embed_positions(ctx.positions_BT)
        x_BTD = ctx.dropout(x_BTD.to(ctx.dtype), self.config.embedding_dropout)
        for layer, block in enumerate(self.layers):
            if ctx.recompute and torch.is_grad_enabled():
                x_BTD = recomputed(block, x_BTD, ctx, layer, generator=ctx.generator, kept=ctx.kept(layer))
            else:
                x_BTD = block(x_BTD, ctx, layer)
        y_BTD: Tensor = self.norm(x_BTD)
        return y_BTD


class LanguageModel(nn.Module):
    """`forward(ids, ctx) -> hidden`, `logits(hidden)`; training and cached generation share the one forward.

    The parameters start as zeros (norm weights as ones): call `init_weights`, or load them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = None if config.tie_embeddings else Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, ids_BT: Tensor, ctx: Context) -> Tensor:
        """Hidden states [B, T, D] in ctx.dtype, of the last layer, normed. Extends ctx.state where there is one.

        Raises RequestError where positions or lengths exceed what the model has.
        """
        self._check(ids_BT, ctx)
        with torch.set_grad_enabled(torch.is_grad_enabled() and ctx.gradients):
            hidden_BTD: Tensor = self._forward_parts(ids_BT, ctx) if ctx.exact else self.model(ids_BT, ctx)
        ctx.advance()
        return hidden_BTD

    def logits(self, hidden_BTD: Tensor, ctx: Context | None = None) -> Tensor:
        """Scores of the next token, [B, T, V] in the hidden's dtype (upcast before a softmax).

        With an exact context the rows are computed in parts of one size, so that they too do not depend, to
        the bit, on how many are asked for at once; pass `ctx` wherever cached and uncached logits are to be equal.
        """
        if ctx is not None and ctx.exact:
            with torch.no_grad():
                return exact_math.by_rows(self._head, hidden_BTD)
        return self._head(hidden_BTD)

    @property
    def head_weight(self) -> nn.Parameter:
        """[V, D]: what maps hidden states to logits; the embeddings themselves where they are tied."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def _head(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.head_weight.to(hidden.dtype))

    def _forward_parts(self, ids_BT: Tensor, ctx: Context) -> Tensor:
        batch, count = ids_BT.shape
        if ctx.state is None:
            ctx.state = KVState(self.config, batch, count, dtype=ctx.dtype, device=ids_BT.device)
            if ctx.state.per_sequence:
                raise UnsupportedError(f"model: exact calls are not there for mixer {self.config.mixer!r}")
        hidden_BTD = torch.empty(batch, count, self.config.hidden_size, dtype=ctx.dtype, device=ids_BT.device)
        for rows_N, columns_N, ids_1R, part_ctx in ctx.parts(ids_BT):
            hidden_BTD[rows_N, columns_N] = self.model(ids_1R, part_ctx)[0, : len(rows_N)]
        return hidden_BTD

    def _check(self, ids_BT: Tensor, ctx: Context) -> None:
        if ids_BT.dim() != 2 or 0 in ids_BT.shape:
            raise RequestError(f"model: ids must be [B, T] with at least one token, not {list(ids_BT.shape)}")
        batch, count = ids_BT.shape
        if ctx.positions_BT.shape[1] != count or ctx.positions_BT.shape[0] not in (1, batch):
            raise RequestError(
                f"model: ids are {list(ids_BT.shape)} but the context was made for positions "
                f"{list(ctx.positions_BT.shape)}; make a context for each call"
            )
        if self.config.position != "learned":
            return
        last = int(ctx.positions_BT.max())
        if last >= self.config.max_positions or int(ctx.positions_BT.min()) < 0:
            raise RequestError(
                f"model: position {last} was asked for; this model has learned positions "
                f"0 to {self.config.max_positions - 1}"
            )

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Fill all parameters from `generator`, in the order of their names' definition."""
        spread = self.config.initializer_range
        for module in self.modules():
            if isinstance(module, Linear):
                scale = 1.0 / math.sqrt(2 * self.config.num_layers) if module.residual else 1.0
                module.weight.normal_(0.0, spread * scale, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, Embedding):
                module.weight.normal_(0.0, spread, generator=generator)
            elif module is not self and (own := getattr(module, "init_weights", None)) is not None:
                own(generator)

    def num_parameters(self) -> int:
        """Elements of all parameters; a tied head is counted once."""
        return sum(parameter.numel() for parameter in self.parameters())
