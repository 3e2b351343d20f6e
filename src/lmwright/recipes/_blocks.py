"""Bytes <-> segments: what the language model is to code, as tokens, and what is coded as plain bytes.

The bytes are cut into blocks of about BLOCK, after a line's end where one is near, else between characters. A
block is text, and becomes tokens, unless

- it is no text: more than one in eight of its bytes is a control character or no UTF-8;
- it says next to nothing: its bytes have less than one bit of entropy (a run of one character, zeros);
- the tokenizer does not give back the very bytes, or needs more tokens than there are bytes.

The rest is raw. No block is lost or altered: whatever the tokenizer does, a block that does not come back is raw.
A byte-level vocabulary has a token for each byte, so stray bytes that are no UTF-8 do not make a block raw.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lmwright.errors import DataError
from lmwright.text.tokenizer import Tokenizer

BLOCK = 16_384
NEAR = 1_024  # how far before a block's end its last line may end
CONTROLS = np.array([byte for byte in (*range(32), 127) if byte not in b"\t\n\v\f\r"])
_STRAY = re.compile("([\udc80-\udcff])")  # how surrogateescape writes a byte that is no UTF-8


@dataclass(frozen=True)
class Segment:
    """raw: plain bytes. count: of its bytes if it is raw, else of its tokens."""

    raw: bool
    count: int


class Codec:
    """One tokenizer's way of turning bytes into tokens and back, to the byte.

    vocab_size: ids from it on, which a tokenizer may have and its model not, are never made.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._id_of: dict[int, int] = {}
        if tokenizer.is_byte_level:
            ids = (one for one in range(tokenizer.vocab_size) if one not in tokenizer.special_ids)
            self._id_of = {found[0]: one for one in ids if len(found := tokenizer.token_bytes(one)) == 1}

    def split(self, data: bytes) -> tuple[list[Segment], list[int], bytes]:
        """Return the segments of `data`, the tokens of all text ones and the bytes of all raw ones."""
        segments, ids, raw = list[Segment](), list[int](), bytearray()
        for block in _blocks(data):
            found = self._encode(block) if _is_text(block) else None
            if found is None:
                raw += block
                segments.append(Segment(True, len(block)))
            else:
                ids += found
                segments.append(Segment(False, len(found)))
        return self._joined(segments), ids, bytes(raw)

    def join(self, segments: Iterable[Segment], ids: Sequence[int], raw: bytes) -> bytes:
        """Return what `split` split."""
        out, at_id, at_raw = bytearray(), 0, 0
        for segment in segments:
            if segment.raw:
                out += raw[at_raw : at_raw + segment.count]
                at_raw += segment.count
            else:
                out += self._decode(ids[at_id : at_id + segment.count])
                at_id += segment.count
        return bytes(out)

    def _joined(self, segments: Iterable[Segment]) -> list[Segment]:
        """Make one of neighbours of a kind; text only where tokens are decoded one by one."""
        joined: list[Segment] = []
        for segment in segments:
            single = segment.raw or self._tokenizer.is_byte_level
            if joined and single and joined[-1].raw == segment.raw:
                joined[-1] = Segment(segment.raw, joined[-1].count + segment.count)
            else:
                joined.append(segment)
        return joined

    def _encode(self, block: bytes) -> list[int] | None:
        """The tokens of a block, or None if they would not give it back."""
        pieces = _STRAY.split(block.decode("utf-8", "surrogateescape"))
        strays = [ord(stray) & 0xFF for stray in pieces[1::2]]
        if any(stray not in self._id_of for stray in strays):
            return None
        try:
            batch = self._tokenizer.encode_batch(pieces[::2])
        except DataError:  # a text that the tokenizer gives up on
            return None
        ids = list(batch[0])
        for stray, following in zip(strays, batch[1:], strict=True):
            ids += [self._id_of[stray], *following]
        fits = len(ids) <= len(block) and max(ids, default=0) < self._vocab_size
        return ids if fits and self._decode(ids) == block else None

    def _decode(self, ids: Sequence[int]) -> bytes:
        if self._tokenizer.is_byte_level:
            return b"".join(self._tokenizer.token_bytes(token) for token in ids)
        return self._tokenizer.decode(ids, skip_special=False).encode()


def _blocks(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        stop = min(start + BLOCK, len(data))
        if stop < len(data):
            line = data.rfind(b"\n", stop - NEAR, stop)
            stop = _character(data, stop) if line < 0 else line + 1
        yield data[start:stop]
        start = stop


def _character(data: bytes, stop: int) -> int:
    """The start of the character that `stop` may lie in; `stop` where there is none."""
    for place in range(stop, stop - 4, -1):
        if data[place] & 0xC0 != 0x80:
            return place
    return stop


def _is_text(block: bytes) -> bool:
    counts = np.bincount(np.frombuffer(block, dtype=np.uint8), minlength=256)
    strange = int(counts[CONTROLS].sum()) + len(_STRAY.findall(block.decode("utf-8", "surrogateescape")))
    shares = counts[counts > 0] / len(block)
    return strange * 8 <= len(block) and float(-(shares * np.log2(shares)).sum()) >= 1.0
