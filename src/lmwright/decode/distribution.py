"""The one definition of the distribution that a token is drawn from, and the draw.

    p(token | logits, params) = softmax(processors in order(logits)), in fp32

Every decoding method takes its probabilities from `distribution`; greedy decoding is the distribution with one
token in it. A row's result does not depend on the other rows. Knows nothing of models and requests.
"""

# B batch, V vocab

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lmwright.decode.params import SamplingParams
from lmwright.decode.processors import processors
from lmwright.errors import CheckpointError, RequestError


def distribution(
    logits_BV: Tensor,
    params: SamplingParams | Sequence[SamplingParams],
    history: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Return probs_BV, fp32: the distribution of each row's next token.

    params: one for all rows, or one a row. history: each row's tokens so far, prompt included; may be left
    out where no processor in use needs it. Raises RequestError if it is needed and missing, CheckpointError if a
    row holds NaN or plus infinity, or minus infinity alone: that comes from damaged weights or an overflow.
    """
    logits_BV = logits_BV.float()
    _refuse_non_finite(logits_BV)
    if isinstance(params, SamplingParams):
        return _process(logits_BV, _settings(params), history)
    groups: dict[tuple[tuple[str, float], ...], list[int]] = {}
    for row, one in enumerate(params):
        groups.setdefault(_settings(one), []).append(row)
    probs_BV = torch.empty_like(logits_BV)
    for settings, rows in groups.items():
        chosen = None if history is None else [history[row] for row in rows]
        probs_BV[rows] = _process(logits_BV[rows], settings, chosen)
    return probs_BV


def sample(probs_BV: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Return ids_B, one token drawn from each row with that row's own generator.

    By inversion: one uniform number u in [0, 1) of 53 bits a row, and the first token at which the cumulative
    probability, in fp64, exceeds u. So the n-th draw of a generator belongs to its request's n-th token, whatever
    else is in the batch, and a token of probability zero is never drawn.
    """
    uniform = [torch.rand((), generator=one, dtype=torch.float64, device=one.device).item() for one in generators]
    uniform_B1 = torch.tensor(uniform, dtype=torch.float64, device=probs_BV.device)[:, None]
    mass_BV = probs_BV.double().cumsum(dim=-1)
    # u is at most 1 - 2^-53, so the product rounds to less than the total: some token's mass always exceeds it.
    return torch.searchsorted(mass_BV, uniform_B1 * mass_BV[:, -1:], right=True)[:, 0]


def _settings(params: SamplingParams) -> tuple[tuple[str, float], ...]:
    """Return (processor, value) of the processors that `params` turns on, in order."""
    off = SamplingParams()
    named = ((name, getattr(params, name)) for name in processors())
    return tuple((name, value) for name, value in named if value != getattr(off, name))


def _process(
    logits_BV: Tensor, settings: tuple[tuple[str, float], ...], history: Sequence[Sequence[int]] | None
) -> Tensor:
    for name, value in settings:
        processor = processors()[name]
        if processor.NEEDS_HISTORY and history is None:
            raise RequestError(f"{name} needs the tokens so far; pass them as history, a list for each row")
        logits_BV = processor.process(logits_BV, value, history or [])
    return logits_BV.softmax(dim=-1)


def _refuse_non_finite(logits_BV: Tensor) -> None:
    """A row's maximum is NaN if any entry is, infinite if it holds plus infinity or minus infinity alone."""
    for row, greatest in enumerate(logits_BV.amax(dim=-1).tolist()):
        if not math.isfinite(greatest):
            raise CheckpointError(
                f"row {row}: the model's logits are not finite (greatest: {greatest}), so there is no next token: "
                f"its weights are damaged or too large for this precision; check the checkpoint, or try fp32"
            )
