"""Activation checkpointing: a block keeps its input alone, and is computed again in the backward pass.

Chen et al. 2016, section 3, with a segment for each layer: memory of activations falls from L layers to one, for a
third more computation (a second forward). Dropout draws from the context's own generator, which torch's
checkpointing does not know: its state before the block is kept, set for the second computation, which so draws the
same numbers, and put back after it. So it is with the state that a block of a recurrent model goes on from, and by
then has moved on. Knows nothing of what a block computes.
"""

# B batch, T query, D model

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(
    block: Callable[..., Tensor],
    x_BTD: Tensor,
    *rest: object,
    generator: torch.Generator | None,
    kept: dict[str, Tensor] | None = None,
) -> Tensor:
    """Return block(x_BTD, *rest), of which the backward pass keeps x_BTD and computes the rest again.

    generator: what the block draws from; None if it draws nothing. kept: what it goes on from, and puts its own
    tensors into; None if it begins anew.
    """
    again = _AsBefore(generator, kept)
    y_BTD: Tensor = checkpoint(
        block,
        x_BTD,
        *rest,
        use_reentrant=False,
        preserve_rng_state=False,  # of the global generator, from which nothing is drawn
        context_fn=lambda: (contextlib.nullcontext(), again),
    )
    return y_BTD


class _AsBefore:
    """Within, generator and state are as they were when this was made; after, as they were when it was entered.

    Can be entered once for each backward pass.
    """

    def __init__(self, generator: torch.Generator | None, kept: dict[str, Tensor] | None) -> None:
        self.generator, self.kept = generator, kept
        self.first, self.before = self._drawn(), dict(kept or {})

    def _drawn(self) -> Tensor | None:
        return None if self.generator is None else self.generator.get_state()

    def __enter__(self) -> None:
        self.now, self.after = self._drawn(), dict(self.kept or {})
        if self.generator is not None and self.first is not None:
            self.generator.set_state(self.first)
        if self.kept is not None:
            self.kept.update(self.before)

    def __exit__(self, *error: object) -> None:
        if self.generator is not None and self.now is not None:
            self.generator.set_state(self.now)
        if self.kept is not None:
            self.kept.update(self.after)
