"""What a model keeps of the tokens it has read: one preallocated tensor for each layer and side.

The mixers declare what they keep; this allocates it. One tensor a layer, not one for all layers: an
in-place write then never copies the rest. Knows nothing of pages or of requests.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

import torch
from torch import Tensor

from lmwright import seams
from lmwright.errors import RequestError
from lmwright.model.config import ModelConfig

BLOCK = 64  # capacities are whole blocks of keys, as exact attention reads them (see model.exact)


class KVState:
    """Keys and values of a batch of sequences of one common length.

    keys[layer], values[layer]: [B, G, capacity, K]; only the first `length` places hold tokens.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        if batch < 1 or capacity < 1:
            raise RequestError(f"state: batch {batch} and capacity {capacity}; both must be at least 1")
        self.batch = batch
        self.capacity = capacity
        self.length = 0
        declared = seams.load("lmwright.model.mixers", config.mixer).keeps_per_token(config)
        places = -(-capacity // BLOCK) * BLOCK

        # Zeros, not empty: places beyond `length` are masked, and a masked NaN would still spread.
        def rooms(part: tuple[int, int]) -> list[Tensor]:
            shape = (batch, part[0], places, part[1])
            return [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]

        self.keys = rooms(declared["keys"])
        self.values = rooms(declared["values"])

    @property
    def nbytes(self) -> int:
        """Bytes held, used or not."""
        return sum(room.nbytes for room in (*self.keys, *self.values))

    def require(self, count: int) -> None:
        """RequestError unless `count` more tokens fit."""
        if self.length + count > self.capacity:
            raise RequestError(
                f"state: {self.length} tokens are kept and {count} more were given, but the capacity is "
                f"{self.capacity}; make the state larger or send fewer tokens"
            )

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on (a rejected draft, a shared prefix)."""
        if not 0 <= length <= self.length:
            raise RequestError(f"state: cannot truncate to {length}; {self.length} tokens are kept")
        self.length = length

    def reorder(self, rows_B: Tensor) -> None:
        """Make row b a copy of what row rows_B[b] held (beam search)."""
        for room in (*self.keys, *self.values):
            room.copy_(room.index_select(0, rows_B))
