"""What is asked of a generator and what it answers: Request -> Events. Torch-free.

The reference loop implements it, and whatever else generates is to: so what evaluates or prompts can take any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lmwright.decode.params import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt, as token ids, and how it is to be continued."""

    prompt_ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)


@dataclass(frozen=True, kw_only=True)
class Token:
    """One more token. Its text may be empty: half a character, or what may yet become a stop string, is held back.

    request: place of the request in the list given. sequence: 0 to num_return_sequences - 1.
    """

    request: int
    sequence: int
    token_id: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The end of one sequence.

    text: the text still held back. reason: 'stop' for an end-of-text id, a stop id or a stop string, 'length' for
    max_new_tokens or the end of the model's context. stop: the id or string that ended it, if one did. seed: gives
    the same tokens again; None if greedy.
    """

    request: int
    sequence: int
    text: str
    reason: Literal["stop", "length"]
    stop: int | str | None
    seed: int | None


Event = Token | Finished


class Generator(Protocol):
    """Whatever continues prompts."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Return the events of all requests as they come; those of one sequence are in order.

        Raises RequestError at once if a request cannot be served; then none is.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One finished sequence.

    text: what was generated, without prompt and special tokens, cut before the stop string. token_ids: every id
    that was drawn, the end-of-text id and those of the stop string included. finish_reason, stop, seed: as in
    `Finished`.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    stop: int | str | None
    seed: int | None

    def __str__(self) -> str:
        return self.text


def collect(requests: Sequence[Request], events: Iterable[Event]) -> list[list[Generation]]:
    """Return the generations of each request, in the order of their sequence numbers."""
    texts: dict[tuple[int, int], list[str]] = {}
    token_ids: dict[tuple[int, int], list[int]] = {}
    done: dict[tuple[int, int], Generation] = {}
    for event in events:
        key = (event.request, event.sequence)
        texts.setdefault(key, []).append(event.text)
        if isinstance(event, Token):
            token_ids.setdefault(key, []).append(event.token_id)
            continue
        done[key] = Generation(
            text="".join(texts[key]),
            token_ids=tuple(token_ids.get(key, ())),
            prompt_ids=tuple(requests[event.request].prompt_ids),
            finish_reason=event.reason,
            stop=event.stop,
            seed=event.seed,
        )
    return [
        [done[index, sequence] for sequence in range(request.params.num_return_sequences)]
        for index, request in enumerate(requests)
    ]
