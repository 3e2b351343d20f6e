"""SamplingParams: how one request is to be continued; frozen, validated, torch-free.

The names are those of `transformers.generate` and vLLM. The defaults are vLLM's: every processor off, temperature
1 (plain sampling from the model's distribution), 16 new tokens. Two differences to transformers, both on purpose:
top_k is off by default (there: 50), and sampling is the default (there: greedy; here temperature=0).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmwright.errors import RequestError


@dataclass(frozen=True)
class Limits:
    """The values that a numeric field may take: low to high, both included, or `off`."""

    low: float
    high: float
    off: float | None = None
    above_low: bool = False

    def allows(self, value: float) -> bool:
        """Whether `value` is within the limits."""
        if self.off is not None and value == self.off:
            return True
        return (value > self.low if self.above_low else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        between = f"{'above' if self.above_low else 'from'} {self.low:g} to {self.high:g}"
        return between if self.off is None else f"{self.off:g} or {between}"


def _limited(default: Any, low: float, high: float, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"limits": Limits(low, high, **more)})


_INT64 = 2**63 - 1
_INT32 = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How one request is continued. Raises RequestError that names field, value given and values allowed.

    max_new_tokens: most tokens to generate; the model's context may end a request earlier.
    temperature: logits are divided by it; 0 = greedy (the most likely token, the lowest id of equals).
    top_k: keep the k most likely tokens, with all that equal the k-th; 0 = off.
    top_p: keep the most likely tokens until their mass reaches p, the token that crosses p included; 1 = off.
    min_p: keep tokens with at least min_p times the probability of the most likely; 0 = off.
    repetition_penalty: logits of tokens in the prompt or the output are divided by it where positive, multiplied
        where negative (Keskar et al. 2019, arXiv:1909.05858); 1 = off.
    seed: of this request's random stream, so that its tokens depend on no other request; None = a fresh one.
    stop: strings that end the output; the text is cut before the earliest one. A single string is taken as one.
    stop_token_ids: token ids that end the output, beside the model's end-of-text ids.
    ignore_eos: go on after the model's end-of-text ids.
    num_return_sequences: independent samples for each prompt.
    """

    max_new_tokens: int = _limited(16, 1, _INT32)
    temperature: float = _limited(1.0, 1e-5, 1e5, off=0)
    top_k: int = _limited(0, 0, _INT32)
    top_p: float = _limited(1.0, 0, 1, above_low=True)
    min_p: float = _limited(0.0, 0, 1)
    repetition_penalty: float = _limited(1.0, 1e-3, 1e3)
    seed: int | None = _limited(None, -_INT64 - 1, _INT64)
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    num_return_sequences: int = _limited(1, 1, 1024)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if "limits" in field.metadata:
                self._check_number(field)
        object.__setattr__(self, "stop", self._stop_strings())
        object.__setattr__(self, "stop_token_ids", self._stop_ids())
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos = {self.ignore_eos!r}: must be True or False")
        if self.greedy and self.num_return_sequences > 1:
            raise RequestError(
                f"num_return_sequences = {self.num_return_sequences} with temperature = 0: greedy decoding gives "
                f"one output; use a temperature above 0, or num_return_sequences = 1"
            )

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken, without chance."""
        return self.temperature == 0

    def _check_number(self, field: dataclasses.Field[Any]) -> None:
        value = getattr(self, field.name)
        limits: Limits = field.metadata["limits"]
        if value is None and field.default is None:
            return
        wants_float = isinstance(field.default, float)
        if isinstance(value, bool) or not isinstance(value, (int, float) if wants_float else int):
            kind = "a number" if wants_float else "a whole number"
            raise RequestError(f"{field.name} = {value!r}: must be {kind}; allowed: {limits}")
        if not math.isfinite(value) or not limits.allows(value):
            raise RequestError(f"{field.name} = {value!r}: is out of range; allowed: {limits}")
        if wants_float:
            object.__setattr__(self, field.name, float(value))

    def _stop_strings(self) -> tuple[str, ...]:
        given: Any = (self.stop,) if isinstance(self.stop, str) else self.stop
        if not isinstance(given, Sequence) or not all(isinstance(text, str) and text for text in given):
            raise RequestError(f"stop = {self.stop!r}: must be a string or a list of strings, none of them empty")
        return tuple(given)

    def _stop_ids(self) -> tuple[int, ...]:
        given: Any = self.stop_token_ids
        whole = isinstance(given, Sequence) and all(
            isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in given
        )
        if not whole or isinstance(given, str | bytes):
            raise RequestError(f"stop_token_ids = {given!r}: must be a list of token ids, each 0 or more")
        return tuple(given)
