"""What a model keeps of the tokens it has read: for each layer the named tensors that its mixer declares.

A mixer declares parts kept of every token (`keeps_per_token`: keys, values) and parts kept of the sequence
as a whole (`keeps_per_sequence`: a recurrence's last state); this allocates them. One tensor a layer, not one
for all layers: an in-place write then never copies the rest. Knows nothing of pages or of requests.
"""

# B batch, T query, S key, D model, H heads, G kv heads, K head dim, F ffn, V vocab

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from lmwright import seams
from lmwright.errors import RequestError, UnsupportedError
from lmwright.model.config import ModelConfig

BLOCK = 64  # capacities are whole blocks of keys, as exact attention reads them (see model.exact)


def declared(config: ModelConfig) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, ...]]]:
    """What the config's mixer keeps of each token, and what of the sequence as a whole: shapes by name."""
    mixer = seams.load("lmwright.model.mixers", config.mixer)
    whole = getattr(mixer, "keeps_per_sequence", None)
    return mixer.keeps_per_token(config), {} if whole is None else whole(config)


class KVState:
    """What is kept of a batch of sequences of one common length.

    layers[layer][name]: a part declared per token as (G, K) is [B, G, capacity, K], of which only the first
    `length` places hold tokens, and is written in place; a part declared per sequence as a shape is [B, *shape],
    and a mixer puts a new tensor there, through which gradients may flow (`Context.cached(gradients=True)`).
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
        self.dtype = dtype
        self.length = 0
        per_token, per_sequence = declared(config)
        self.per_token, self.per_sequence = tuple(per_token), tuple(per_sequence)
        places = -(-capacity // BLOCK) * BLOCK
        shapes: dict[str, tuple[int, ...]]
        shapes = {name: (batch, heads, places, width) for name, (heads, width) in per_token.items()}
        shapes.update({name: (batch, *shape) for name, shape in per_sequence.items()})
        # Zeros, not empty: places beyond `length` are masked, and a masked NaN would still spread.
        self.layers: list[dict[str, Tensor]] = [
            {name: torch.zeros(shape, dtype=dtype, device=device) for name, shape in shapes.items()}
            for _ in range(config.num_layers)
        ]

    @property
    def nbytes(self) -> int:
        """Bytes held, used or not."""
        return sum(part.nbytes for kept in self.layers for part in kept.values())

    def require(self, count: int) -> None:
        """RequestError unless `count` more tokens fit; parts per sequence alone never fill up."""
        if self.per_token and self.length + count > self.capacity:
            raise RequestError(
                f"state: {self.length} tokens are kept and {count} more were given, but the capacity is "
                f"{self.capacity}; make the state larger or send fewer tokens"
            )

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on (a rejected draft, a shared prefix)."""
        if not 0 <= length <= self.length:
            raise RequestError(f"state: cannot truncate to {length}; {self.length} tokens are kept")
        if self.per_sequence and length < self.length:
            raise UnsupportedError(
                f"state: {', '.join(self.per_sequence)} of the whole sequence cannot forget single tokens; "
                "make a new state and read the tokens again"
            )
        self.length = length

    def reorder(self, rows_B: Tensor) -> None:
        """Make row b a copy of what row rows_B[b] held (beam search)."""
        for kept in self.layers:
            for name, part in kept.items():
                chosen = part.index_select(0, rows_B)
                kept[name] = part.copy_(chosen) if name in self.per_token else chosen

    def detach(self) -> None:
        """Let no gradient flow further back than this point (truncated backpropagation through time).

        Copies, so that nothing of the calls before stays in memory for the sake of their last step.
        """
        for kept in self.layers:
            for name in self.per_sequence:
                kept[name] = kept[name].detach().clone()

    def rows(self, start: int, stop: int) -> KVState:
        """Return a state of the sequences start..stop-1 that goes its own way; of parts per sequence alone."""
        if self.per_token:
            raise UnsupportedError(
                f"state: {', '.join(self.per_token)} of single tokens are not taken apart by rows"
            )
        found = copy.copy(self)
        found.layers = [{name: part[start:stop] for name, part in kept.items()} for kept in self.layers]
        found.batch = len(range(self.batch)[start:stop])
        return found

    @staticmethod
    def joined(parts: Sequence[KVState]) -> KVState:
        """Return one state of all sequences of several, in order: what `rows` took apart."""
        found = copy.copy(parts[0])
        found.batch = sum(part.batch for part in parts)
        found.layers = [
            {name: torch.cat([kept[name] for kept in same]) for name in parts[0].per_sequence}
            for same in zip(*(part.layers for part in parts), strict=True)
        ]
        return found
