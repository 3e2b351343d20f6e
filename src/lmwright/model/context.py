"""The surroundings of one forward call: positions, documents, mask, cache, dropout and compute precision.

A context is an argument, never a global, and serves one call. A dense context sees only the tokens of the
call (training, scoring); a cached one also sees, and extends, a `KVState`. Mixers ask it to attend, so one
forward serves both. Knows nothing of layers' weights.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lmwright.errors import RequestError, UnsupportedError
from lmwright.model import dense, documents, flex, square
from lmwright.model import exact as exact_math
from lmwright.model.precision import PRECISIONS
from lmwright.model.state import KVState

Value = TypeVar("Value")
Mask = Literal["causal", "bidirectional"]
DTYPES = (*(one.torch_dtype for one in PRECISIONS.values()), torch.float64)


class Context:
    """What a forward call is told. Make one with `Context.dense` or `Context.cached`."""

    def __init__(
        self,
        positions_BT: Tensor,
        *,
        segments_BT: Tensor | None = None,
        mask: Mask = "causal",
        state: KVState | None = None,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
        exact: bool = False,
        gradients: bool = True,
        recompute: bool = False,
    ) -> None:
        self.positions_BT = positions_BT
        self.segments_BT = segments_BT
        self.mask: Mask = mask
        self.state = state
        self.dtype = dtype
        self.generator = generator
        self.exact = exact
        self.gradients = gradients and not exact
        self.recompute = recompute
        self.part: tuple[exact_math.Tile, ...] = ()
        self._once: dict[str, object] = {}
        self._check()

    @classmethod
    def dense(
        cls,
        ids_BT: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        mask: Mask = "causal",
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
        exact: bool = False,
        recompute: bool = False,
    ) -> Context:
        """A call that sees its own tokens only.

        positions: [B, T] or [1, T] int64; None counts from 0.
        segments: [B, T] int64, the document of each token (-1: padding); attention never leaves a document.
        dtype: the precision of activations and matrix products (parameters keep theirs).
        generator: where dropout draws from; None means no dropout.
        exact: compute as `Context.cached(exact=True)` does, so that the two agree to the bit (see model.exact).
        recompute: blocks are recomputed in the backward pass (see LanguageModel).
        """
        if positions is None:
            positions = torch.arange(ids_BT.shape[1], device=ids_BT.device)[None]
        return cls(
            positions,
            segments_BT=segments,
            mask=mask,
            dtype=dtype,
            generator=generator,
            exact=exact,
            recompute=recompute,
        )

    @classmethod
    def cached(
        cls,
        state: KVState,
        ids_BT: Tensor,
        *,
        dtype: torch.dtype | None = None,
        exact: bool | None = None,
        gradients: bool = False,
        generator: torch.Generator | None = None,
        recompute: bool = False,
    ) -> Context:
        """A call that continues the sequences in `state` with `ids_BT`; the forward then extends the state.

        dtype: None takes the state's. exact: None means True for fp32 on the CPU, where a token's logits
        then do not depend, to the bit, on how the sequence was cut into calls; False with `gradients` and
        where a mixer keeps parts per sequence.
        gradients: let them flow, through this call and what is kept per sequence, until `state.detach()`; what is
        kept per token is constant to later calls. False: none are computed.
        generator: where dropout draws from, with `gradients` only; None means no dropout.
        recompute: as for `Context.dense`, where all is kept per sequence: what is kept per token is overwritten.
        """
        batch, count = ids_BT.shape
        if batch != state.batch:
            raise RequestError(f"context: {batch} rows were given to a state of {state.batch}")
        state.require(count)
        dtype = state.dtype if dtype is None else dtype
        if exact is None:
            exact = dtype == torch.float32 and ids_BT.device.type == "cpu"
            exact = exact and not gradients and not state.per_sequence
        positions = torch.arange(state.length, state.length + count, device=ids_BT.device)[None]
        return cls(
            positions,
            state=state,
            dtype=dtype,
            exact=exact,
            gradients=gradients,
            generator=generator,
            recompute=recompute,
        )

    def _check(self) -> None:
        if self.dtype not in DTYPES:
            raise UnsupportedError(f"context: compute dtype {self.dtype}; allowed: {DTYPES}")
        if self.positions_BT.dim() != 2:
            raise RequestError(f"context: positions must be [B, T], not {list(self.positions_BT.shape)}")
        plain, drops = self.segments_BT is None and self.mask == "causal", self.generator is not None
        if self.state is not None and (not plain or (drops and not self.gradients)):
            raise UnsupportedError(
                "context: a cached call is causal, without segments, and dropout is for training"
            )
        if self.recompute and self.state is not None and self.state.per_token:
            raise UnsupportedError(
                "context: blocks are not computed again where keys and values are kept per token"
            )
        if self.exact and (not plain or drops or self.dtype != torch.float32):
            raise UnsupportedError("context: exact needs fp32, causal, without segments and dropout")
        if self.exact and self.state is not None and self.state.per_sequence:
            raise UnsupportedError("context: exact needs a mixer that keeps nothing per sequence")

    def once(self, key: str, build: Callable[[], Value]) -> Value:
        """`build()`, computed at the first call under `key` and shared by all layers of this forward."""
        if key not in self._once:
            self._once[key] = build()
        return self._once[key]  # type: ignore[return-value]

    def kept(self, layer: int) -> dict[str, Tensor] | None:
        """What the state holds of the layer, by the names that its mixer declares; None without a state."""
        return None if self.state is None else self.state.layers[layer]

    def elementwise(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """function(x), in an exact call so that a row's bits do not depend on its place (see model.exact).

        For functions that no processor rounds exactly (silu, exp); sums and products need no care.
        """
        return exact_math.each_row(function, x) if self.exact else function(x)

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Zero each element with probability `rate` and scale the rest by 1/(1 - rate); x without a generator."""
        if self.generator is None or rate == 0.0:
            return x
        kept = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        kept.bernoulli_(1.0 - rate, generator=self.generator).div_(1.0 - rate)
        return x * kept

    def attend(
        self, layer: int, q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, *, dropout: float = 0.0
    ) -> Tensor:
        """softmax(q k^T / sqrt(K)) v over the keys each query may see; keeps k and v where there is a state.

        Returns [B, T, H, K]. `layer` is the place in the state. Beyond square.LIMIT tokens no tensor of T x T
        numbers is made on a CPU or a CUDA GPU, in either pass, except for dropout (see model.dense) and, on a
        CPU, where a segment number comes back after another one.
        """
        dropped = self.generator is not None and dropout > 0.0
        if not dropped:
            if (pieces := self.once("pieces", self._pieces)) is not None:
                return documents.attend(q_BTHK, k_BTGK, v_BTGK, pieces)
            if self._keeps_square(q_BTHK):
                return square.attend(q_BTHK, k_BTGK, v_BTGK, self.once("bias", self._bias))
        q_BHTK, k_BGTK, v_BGTK = (x.transpose(1, 2) for x in (q_BTHK, k_BTGK, v_BTGK))
        if self.state is not None:
            if self.exact:
                return self._attend_part(self.state, layer, q_BHTK, k_BGTK, v_BGTK)
            k_BGTK, v_BGTK = self._extend(self.state, layer, k_BGTK, v_BGTK)
        if dropped:
            allowed = self.once("allowed", self._allowed)
            y_BHTK = dense.attend(q_BHTK, k_BGTK, v_BGTK, allowed, lambda shares: self.dropout(shares, dropout))
        elif (segments_BT := self.segments_BT) is not None and q_BHTK.is_cuda:
            blocks = self.once("blocks", lambda: flex.plan(segments_BT, causal=self.mask == "causal"))
            y_BHTK = flex.attend(q_BHTK, k_BGTK, v_BGTK, blocks)
        else:
            y_BHTK = self._attend_fused(q_BHTK, k_BGTK, v_BGTK)
        return y_BHTK.transpose(1, 2)

    def _attend_fused(self, q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor) -> Tensor:
        """torch's fused kernel, with a mask only where causal order does not say all."""
        count, keys = q_BHTK.shape[2], k_BGSK.shape[2]
        simple = self.segments_BT is None and (keys == count or count == 1)
        return F.scaled_dot_product_attention(
            q_BHTK,
            k_BGSK,
            v_BGSK,
            attn_mask=None if simple else self.once("allowed", self._allowed),
            is_causal=simple and self.mask == "causal" and count > 1,
            enable_gqa=q_BHTK.shape[1] != k_BGSK.shape[1],
        )

    def _pieces(self) -> list[documents.Piece] | None:
        """The documents of long rows on a CPU; None where they are not that, or not contiguous."""
        segments_BT = self.segments_BT
        if segments_BT is None or segments_BT.device.type != "cpu" or segments_BT.shape[1] <= documents.GROUP:
            return None
        return documents.plan(segments_BT, causal=self.mask == "causal", dtype=self.dtype)

    def _allowed(self) -> Tensor | None:
        """[1 or B, 1, T, S] True where a query may see a key; None where it may see all."""
        start = 0 if self.state is None else self.state.length
        return dense.allowed(self.positions_BT, self.segments_BT, causal=self.mask == "causal", start=start)

    def _keeps_square(self, q_BTHK: Tensor) -> bool:
        """Whether this is a short training call on the CPU (see model.square)."""
        trains = torch.is_grad_enabled() and q_BTHK.requires_grad and self.state is None
        return trains and q_BTHK.device.type == "cpu" and q_BTHK.shape[1] <= square.LIMIT

    def _bias(self) -> Tensor:
        """[1 or B, T, T]: 0 where a query may see a key, -inf elsewhere, in the compute dtype."""
        allowed, count = self.once("allowed", self._allowed), self.positions_BT.shape[1]
        bias = torch.zeros(1, count, count, dtype=self.dtype, device=self.positions_BT.device)
        return bias if allowed is None else bias.masked_fill(~allowed[:, 0], -torch.inf)

    def _extend(self, state: KVState, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write this call's keys and values; return all that are now kept of this layer."""
        start, kept = state.length, state.layers[layer]
        end = start + k.shape[2]
        kept["keys"][:, :, start:end] = k.detach()
        kept["values"][:, :, start:end] = v.detach()
        if torch.is_grad_enabled():  # a copy: the graph must not hold what the next call writes into
            return tuple(
                torch.cat([kept[name][:, :, :start].to(new.dtype), new], 2)
                for name, new in (("keys", k), ("values", v))
            )  # type: ignore[return-value]
        return kept["keys"][:, :, :end].to(k.dtype), kept["values"][:, :, :end].to(k.dtype)

    def advance(self) -> None:
        """Count this call's tokens as kept; the model calls it once, after the last layer."""
        if self.state is not None:
            self.state.length += self.positions_BT.shape[1]

    def parts(self, ids_BT: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Context]]:
        """Cut an exact call into parts of ROWS rows.

        Each: the N sequences and columns of ids_BT that its first N rows hold, its ids [1, R] and its context.
        """
        assert self.state is not None
        start, device = self.state.length, ids_BT.device
        for part in exact_math.parts(ids_BT.shape[0], start, start + ids_BT.shape[1]):
            pairs = [(tile.sequence, place) for tile in part for place in tile.places]
            rows_N, places_N = torch.tensor(pairs, device=device).unbind(1)
            ids_1R = ids_BT.new_zeros(1, exact_math.ROWS)
            ids_1R[0, : len(pairs)] = ids_BT[rows_N, places_N - start]
            # Rows that nobody reads have the first one's position: always a valid one.
            places_1R = places_N[:1].repeat(1, exact_math.ROWS)
            places_1R[0, : len(pairs)] = places_N
            ctx = Context(places_1R, state=self.state, dtype=self.dtype, exact=True)
            ctx.part = part
            yield rows_N, places_N - start, ids_1R, ctx

    def _attend_part(self, state: KVState, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend for the tiles of one part; only rows in use enter the state."""
        kept, rows, base = state.layers[layer], self.part[0].rows, self.part[0].base
        used = rows.stop - rows.start
        q_NHRK = q.new_zeros(len(self.part), q.shape[1], exact_math.ROWS, q.shape[3])
        keys, values = ([kept[name][tile.sequence] for tile in self.part] for name in ("keys", "values"))
        places = slice(base + rows.start, base + rows.stop)
        for number in range(len(self.part)):
            here = slice(number * used, (number + 1) * used)
            keys[number][:, places] = k[0, :, here]
            values[number][:, places] = v[0, :, here]
            q_NHRK[number, :, rows] = q[0, :, here]
        y_NHRK = exact_math.attend(q_NHRK, keys, values, base)
        y_1RHK = q.new_zeros(1, exact_math.ROWS, q.shape[1], q.shape[3])
        y_1RHK[0, : len(self.part) * used] = y_NHRK[:, :, rows].transpose(1, 2).flatten(0, 1)
        return y_1RHK
