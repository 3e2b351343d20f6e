"""Tokens under a language model: streams of tokens <-> coded bytes.

The tokens of a file are cut into streams of equal length (by one token), each coded by itself, so that several are
decoded side by side as one batch. A stream is read in windows:

    window 0   the start token, then tokens, until `context` tokens are read
    window n   the last context // 2 tokens before its first, read anew, then tokens until `context` are read

so a token is predicted from `context` // 2 to `context` tokens before it (fewer at the beginning of a stream), and
the last token of a window is predicted from all `context` of them.

All is computed in exact fp32 on the CPU (`lmwright.model.exact`): encoding reads a window at once and decoding
token by token, and both find the same bits, whatever else is in the batch. Other threads, another processor or
another version of torch may find others: see `arithmetic`. Knows nothing of files and text.
"""

# B batch, T query, D model, V vocab

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmwright.decode.coding.arithmetic import Decoder, Encoder
from lmwright.decode.coding.frequencies import TOTAL, Frequencies, frequencies
from lmwright.model.context import Context
from lmwright.model.exact import ROWS
from lmwright.model.language_model import LanguageModel
from lmwright.model.state import KVState

Ids = NDArray[np.int64]
Progress = Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """How streams are conditioned. context: most tokens read, at least 2; start: the token before the first."""

    context: int
    start: int

    def plan(self, length: int) -> Iterator[tuple[int, int]]:
        """Yield (first, stop) of the tokens that each window predicts, of a stream of `length`."""
        first, read = 0, 1
        while first < length:
            stop = min(first + self.context - read + 1, length)
            yield first, stop
            first, read = stop, self.context // 2

    def prefix(self, first: int) -> slice | None:
        """The tokens that are read before token `first`, the first of a window; None: the start token."""
        return slice(first - self.context // 2, first) if first else None


@contextlib.contextmanager
def arithmetic(threads: int) -> Iterator[None]:
    """Compute as the coder does: this number of threads, products in full fp32; then as before."""
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(precision)


def cut(length: int, streams: int) -> list[int]:
    """Return the lengths of `streams` streams of `length` tokens: equal, but for the first ones' one more."""
    each, more = divmod(length, max(streams, 1))
    return [each + (number < more) for number in range(streams)]


def encode_tokens(
    model: LanguageModel, ids: Ids, windows: Windows, *, streams: int, batch_size: int, progress: Progress
) -> tuple[list[bytes], float]:
    """Return each stream's coded bytes, and the code length of all tokens, -sum log2 p(token), in bits.

    The model is on the CPU and has all ids. batch_size: streams at a time, which changes speed and memory alone.
    progress: is told of tokens done.
    """
    lengths = cut(len(ids), streams)
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    coded, bits = list[bytes](), 0.0
    for at in range(0, streams, batch_size):
        batch = parts[at : at + batch_size]
        ids_BT = _zeros(lengths[at : at + batch_size])
        for row, part in enumerate(batch):
            ids_BT[row, : len(part)] = part
        encoders, costs = [Encoder() for _ in batch], [0.0] * len(batch)
        for first, stop in windows.plan(lengths[at]):
            for row, place, found in _read_window(model, ids_BT, lengths[at:], windows, first, stop):
                token = int(ids_BT[row, place])
                encoders[row].encode(*found.part(token), TOTAL)
                costs[row] += found.bits(token)
                progress(1)
        coded += [encoder.finish() for encoder in encoders]
        for cost in costs:  # stream by stream: the sum, too, is one number for all batch sizes
            bits += cost
    return coded, bits


def decode_tokens(
    model: LanguageModel,
    coded: Sequence[bytes],
    length: int,
    windows: Windows,
    *,
    batch_size: int,
    progress: Progress,
) -> Ids:
    """Return the `length` tokens that `encode_tokens` coded. Raises DataError if they cannot be."""
    lengths = cut(length, len(coded))
    found: list[Ids] = []
    for at in range(0, len(coded), batch_size):
        decoders = [Decoder(part) for part in coded[at : at + batch_size]]
        ids_BT = _zeros(lengths[at : at + batch_size])
        for first, stop in windows.plan(lengths[at]):
            _decode_window(model, decoders, ids_BT, lengths[at:], windows, first, stop, progress)
        for decoder in decoders:
            decoder.finish()
        found += [row[:count] for row, count in zip(ids_BT, lengths[at:], strict=False)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *found])


@torch.no_grad()
def _read_window(
    model: LanguageModel, ids_BT: Ids, lengths: Sequence[int], windows: Windows, first: int, stop: int
) -> Iterator[tuple[int, int, Frequencies]]:
    """Yield (row, place, distribution) of every token that a window predicts, places in order within each row."""
    read_BT = torch.from_numpy(np.concatenate([_prefix(ids_BT, windows, first), ids_BT[:, first : stop - 1]], 1))
    ctx = Context.dense(read_BT, exact=True)
    hidden_BTD = model(read_BT, ctx)[:, first - stop :]
    for row in range(len(ids_BT)):
        end = min(stop, lengths[row])
        for at in range(first, end, ROWS):
            logits_TV = model.logits(hidden_BTD[row, at - first : at - first + ROWS], ctx).numpy()
            for place in range(at, min(at + ROWS, end)):
                yield row, place, frequencies(logits_TV[place - at])


@torch.no_grad()
def _decode_window(
    model: LanguageModel,
    decoders: Sequence[Decoder],
    ids_BT: Ids,
    lengths: Sequence[int],
    windows: Windows,
    first: int,
    stop: int,
    progress: Progress,
) -> None:
    """Decode the tokens first..stop-1 of every row of ids_BT in place."""
    state = KVState(model.config, len(decoders), windows.context)
    next_BT = torch.from_numpy(_prefix(ids_BT, windows, first))
    for place in range(first, stop):
        logits_BV = _next_logits(model, state, next_BT)
        for row, decoder in enumerate(decoders):
            if place < lengths[row]:
                found = frequencies(logits_BV[row].numpy())
                token = found.symbol(decoder.target(TOTAL))
                decoder.consume(*found.part(token))
                ids_BT[row, place] = token
                progress(1)
        next_BT = torch.from_numpy(ids_BT[:, place : place + 1])


def _next_logits(model: LanguageModel, state: KVState, ids_BT: Tensor) -> Tensor:
    """logits_BV of the token after all that the state keeps and ids_BT."""
    ctx = Context.cached(state, ids_BT, exact=True)
    return model.logits(model(ids_BT, ctx)[:, -1:], ctx)[:, 0]


def _prefix(ids_BT: Ids, windows: Windows, first: int) -> Ids:
    """What a window reads before its first token: [B, 1] start tokens or [B, context // 2] carried over."""
    carried = windows.prefix(first)
    return ids_BT[:, carried].copy() if carried else np.full((len(ids_BT), 1), windows.start, dtype=np.int64)


def _zeros(lengths: Sequence[int]) -> Ids:
    """Rows as long as the first and longest; those shorter by one end in a zero that nobody reads."""
    return np.zeros((len(lengths), lengths[0]), dtype=np.int64)
