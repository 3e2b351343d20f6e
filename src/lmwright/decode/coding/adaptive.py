"""Bytes without a language model: an adaptive order-0 model, for what is no text.

    p(b) = (n_b + 1) / (n + 256)      n_b: how often b was seen, n: all bytes seen

(Laplace's rule). The counts are brought up to date after 16 bytes, then 32, 64 and so on, and from STEP on after
each STEP: between two such moments the distribution stands, so that a byte costs a look-up and no sum.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator

import numpy as np

from lmwright.decode.coding.arithmetic import Decoder, Encoder

FIRST, STEP = 16, 1024
Progress = Callable[[int], object]


def encode_bytes(data: bytes, progress: Progress) -> tuple[bytes, float]:
    """Return the coded bytes and their code length, -sum log2 p, in bits. progress: is told of bytes done."""
    encoder, counts, bits = Encoder(), np.zeros(256, dtype=np.int64), 0.0
    for start, stop in _spans(len(data)):
        sizes, ends = _table(counts)
        total = ends[-1]
        for byte in data[start:stop]:
            encoder.encode(ends[byte] - sizes[byte], sizes[byte], total)
            bits -= math.log2(sizes[byte] / total)
        _count(counts, data[start:stop])
        progress(stop - start)
    return encoder.finish(), bits


def decode_bytes(coded: bytes, length: int, progress: Progress) -> bytes:
    """Return the `length` bytes that `encode_bytes` coded. Raises DataError if they cannot be."""
    decoder, counts, found = Decoder(coded), np.zeros(256, dtype=np.int64), bytearray()
    for start, stop in _spans(length):
        sizes, ends = _table(counts)
        total = ends[-1]
        for _ in range(start, stop):
            byte = bisect_right(ends, decoder.target(total))
            decoder.consume(ends[byte] - sizes[byte], sizes[byte])
            found.append(byte)
        _count(counts, bytes(found[start:stop]))
        progress(stop - start)
    decoder.finish()
    return bytes(found)


def _spans(length: int) -> Iterator[tuple[int, int]]:
    """The runs of bytes that share one distribution."""
    start, step = 0, FIRST
    while start < length:
        yield start, min(start + step, length)
        start, step = start + step, min(2 * step, STEP)


def _table(counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[list[int], list[int]]:
    """Frequencies of the bytes, and their running sums."""
    sizes: list[int] = (counts + 1).tolist()
    return sizes, list(itertools.accumulate(sizes))


def _count(counts: np.ndarray[tuple[int], np.dtype[np.int64]], data: bytes) -> None:
    counts += np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
