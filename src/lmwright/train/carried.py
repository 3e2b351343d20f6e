"""What a recurrent model takes along from update to update: the state of each row of the batch.

Truncated backpropagation through time (Williams and Peng 1990; Mikolov et al. 2010): row b of a step goes on where
row b of the step before ended, so the model reads each stream as one long text, and its gradient ends where the
step begins. Now and then all streams begin anew elsewhere (`data.order`), with a state of zeros.

The state that an update makes is held apart until the update is: an update can be left at any moment, and made
again. Each process has its own rows; in a checkpoint they are those of the whole batch, in order, so any number of
processes goes on from it. Knows nothing of what is in the state.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lmwright.data.loader import part
from lmwright.errors import CheckpointError
from lmwright.model.config import ModelConfig
from lmwright.model.state import KVState
from lmwright.train import slices
from lmwright.train.ranks import Ranks

NAME = "carried"


class Carried:
    """The state of this process's rows of the batch."""

    def __init__(
        self, config: ModelConfig, *, batch_size: int, ranks: Ranks, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        """batch_size: rows of a step, over all processes. dtype: precision of the computation."""
        self._own = part(batch_size, ranks.rank, ranks.world_size)
        self._whole, self._ranks, self._device = batch_size, ranks, device
        self._zero = KVState(config, self._own[1] - self._own[0], 1, dtype=dtype, device=device)
        self._kept = self._before = self._zero
        self._after: list[KVState] = []

    def begin(self, continues: bool) -> None:
        """Begin an update whose rows go on where those of the last one ended, or whose streams start anew."""
        self._before, self._after = self._kept if continues else self._zero, []

    def rows(self, start: int, stop: int) -> KVState:
        """Return the state that rows start..stop-1 go on from, for a forward call to extend.

        Micro-batches ask in the order of their rows.
        """
        self._after.append(self._before.rows(start, stop))
        return self._after[-1]

    def keep(self) -> None:
        """Let what the update made be what the next one goes on from, once the update is made."""
        self._kept = KVState.joined(self._after)

    def write(self, directory: Path) -> None:
        """Write this process's file of the checkpoint."""
        slices.write_rows(self._tensors(), directory, NAME, self._ranks)

    def read(self, directory: Path) -> None:
        """Go on from a checkpoint. Raises CheckpointError for what is missing, damaged or of another shape."""
        found = slices.read(directory, NAME, lambda name: None)
        (first, stop), ours = self._own, self._tensors()
        shapes = {name: (self._whole, *tensor.shape[1:]) for name, tensor in ours.items()}
        if {name: tuple(tensor.shape) for name, tensor in found.items()} != shapes:
            raise CheckpointError(
                f"{directory}: the carried state is not that of {self._whole} rows of this model; resume with the "
                "configuration that it was saved with"
            )
        self._kept = self._zero.rows(0, stop - first)
        for name in shapes:
            layer, _, key = name.partition(".")
            self._kept.layers[int(layer)][key] = found[name][first:stop].to(self._device, copy=True)

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{layer}.{name}": tensor
            for layer, kept in enumerate(self._kept.layers)
            for name, tensor in kept.items()
        }
