"""Facts of a corpus, and the two reference points that a model's bits per byte are read against.

- byte unigram: p(b) = (n_b + 1) / (n + 256) from the training text (Laplace's add-one), and
  bits/byte = -(1/m) sum over the m validation bytes of log2 p(b). What a model knows without any context.
- xz: 8 * compressed bytes / bytes of the validation text (LZMA, preset 6). What repetition alone is worth.
- bytes/token = bytes of text / tokens without the ends of text.

Both see documents one after the other with nothing between. Knows nothing of files.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FORMAT = 2
XZ_PRESET = 6
XZ_LIMIT = 2**26  # xz reads 2 MB/s: this much of the validation text is enough for two digits


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """Counts of one split. tokens: length of its stream, ends of text included."""

    documents: int
    tokens: int
    bytes: int
    bytes_per_token: float
    shards: int


@dataclass(frozen=True, kw_only=True)
class CorpusFacts:
    """What corpus.json holds.

    source: the specification as it was given. cut_characters: size of the pieces that documents were cut into
    because the corpus had too few to hold any out, None if they were left whole. rejects: number by kind.
    xz_bytes: how much of the validation text xz was run on.
    """

    format: int
    source: str
    tokenizer_hash: str
    vocab_size: int
    validation_fraction: float
    cut_characters: int | None
    train: SplitFacts
    validation: SplitFacts
    rejects: dict[str, int]
    byte_unigram_bits_per_byte: float
    xz_bits_per_byte: float
    xz_bytes: int


class References:
    """Gathers both reference points while documents go by; holds two histograms and the compressor."""

    def __init__(self) -> None:
        self._train = np.zeros(256, dtype=np.int64)
        self._validation = np.zeros(256, dtype=np.int64)
        self._xz = lzma.LZMACompressor(preset=XZ_PRESET)
        self._xz_size = 0
        self.xz_bytes = 0

    def add(self, text: bytes, *, validation: bool) -> None:
        """Take in a document."""
        histogram = np.bincount(np.frombuffer(text, dtype=np.uint8), minlength=256)
        if not validation:
            self._train += histogram
            return
        self._validation += histogram
        if self.xz_bytes < XZ_LIMIT:
            self._xz_size += len(self._xz.compress(text))
            self.xz_bytes += len(text)

    def finish(self) -> tuple[float, float]:
        """Return (byte unigram, xz), in bits per byte of validation text. To be called once."""
        self._xz_size += len(self._xz.flush())
        return byte_unigram(self._train, self._validation), 8 * self._xz_size / self.xz_bytes


def byte_unigram(train: NDArray[np.int64], validation: NDArray[np.int64]) -> float:
    """Return bits/byte of an add-one byte unigram. train, validation: 256 counts each; validation not all 0."""
    probabilities = (train + 1) / (train.sum() + 256)
    return float(-(validation * np.log2(probabilities)).sum() / validation.sum())
