"""Activation checkpointing: a block keeps its input alone, and is computed again in the backward pass.

Chen et al. 2016, section 3, with a segment for each layer: memory of activations falls from L layers to one, for a
third more computation (a second forward). Dropout draws from the context's own generator, which torch's
checkpointing does not know: its state before the block is kept, set for the second computation, which so draws the
same numbers, and put back after it. Knows nothing of what a block computes.
"""

# B batch, T query, D model

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(
    block: Callable[..., Tensor], x_BTD: Tensor, *rest: object, generator: torch.Generator | None
) -> Tensor:
    """Return block(x_BTD, *rest), of which the backward pass keeps x_BTD and computes the rest again.

    generator: what the block draws from; None if it draws nothing.
    """
    again = contextlib.nullcontext() if generator is None else _DrawingAgain(generator)
    y_BTD: Tensor = checkpoint(
        block,
        x_BTD,
        *rest,
        use_reentrant=False,
        preserve_rng_state=False,  # of the global generator, from which nothing is drawn
        context_fn=lambda: (contextlib.nullcontext(), again),
    )
    return y_BTD


class _DrawingAgain:
    """Within, the generator draws what it drew when this was made; after, it goes on from where it was.

    Can be entered once for each backward pass.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator, self.first = generator, generator.get_state()

    def __enter__(self) -> None:
        self.now = self.generator.get_state()
        self.generator.set_state(self.first)

    def __exit__(self, *error: object) -> None:
        self.generator.set_state(self.now)
