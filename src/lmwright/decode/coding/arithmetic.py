"""The arithmetic coder: a sequence of symbols becomes one number, in about as many bits as they are worth.

The interval [low, low + range) starts as [0, 1). A symbol that owns [start, start + size) of `total` keeps that
part of it (Witten, Neal & Cleary 1987, "Arithmetic coding for data compression"). As in Martin 1979, "Range
encoding", it is kept as integers of WIDTH bits: the leading byte is written out once the range has fallen by one,
and a later carry runs back into the bytes that are written.

Bound. A symbol of probability p = size / total costs at most -log2(p) + 2^-30 bits: the range, at least
2^(WIDTH - 8), is divided by `total`, at most LARGEST_TOTAL, and the remainder is lost. The end costs at most 8
bits. So a message of n symbols takes at most the sum of -log2(p) + n 2^-30 + 8 bits; an empty one takes none.

Integers only, so every machine gives the same bytes. Knows nothing of models.
"""

from __future__ import annotations

from lmwright.errors import DataError

WIDTH = 80
LARGEST_TOTAL = 2**40
_LEAST = 1 << (WIDTH - 8)  # of the range, between symbols
_MASK = (1 << WIDTH) - 1
_TOP = WIDTH - 8
_BYTES = WIDTH // 8


class Encoder:
    """Writes symbols; `finish` returns the bytes."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._low = 0
        self._range = 1 << WIDTH

    def encode(self, start: int, size: int, total: int) -> None:
        """Add the symbol that owns [start, start + size) of [0, total); total is LARGEST_TOTAL at most."""
        assert 0 <= start < start + size <= total <= LARGEST_TOTAL, (start, size, total)
        unit = self._range // total
        self._low += start * unit
        self._range = size * unit
        if self._low > _MASK:
            self._carry()
        while self._range < _LEAST:
            self._out.append(self._low >> _TOP)
            self._low = (self._low << 8) & _MASK
            self._range <<= 8

    def finish(self) -> bytes:
        """Return the message: the shortest that means a number in the last interval, whatever zeros follow it."""
        if self._low:
            last = -(-self._low // _LEAST)  # the range holds a multiple of _LEAST, for it is no smaller
            self._low = last * _LEAST
            if self._low > _MASK:
                self._carry()
            if self._low:
                self._out.append(self._low >> _TOP)
        return bytes(self._out)

    def _carry(self) -> None:
        """Add the bit that left the top to the number that is written already; it stays below 1."""
        self._low &= _MASK
        place = len(self._out) - 1
        while self._out[place] == 255:
            self._out[place] = 0
            place -= 1
        self._out[place] += 1


class Decoder:
    """Reads symbols back: `target` says where the next one lies, `consume` takes it, `finish` ends the message.

    It must be told of the same parts that the encoder was. Raises DataError as soon as the bytes cannot be what an
    encoder wrote; other damage gives other symbols, which a checksum has to tell.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = _BYTES
        self._code = int.from_bytes(data[:_BYTES].ljust(_BYTES, b"\0"), "big")  # the number, less the low end
        self._range = 1 << WIDTH
        self._unit = 0

    def target(self, total: int) -> int:
        """Return a place in [0, total) that the next symbol's part holds."""
        self._unit = self._range // total
        place = self._code // self._unit
        if place >= total:
            raise DataError("the coded data is damaged: it names no symbol")
        return place

    def consume(self, start: int, size: int) -> None:
        """Take the symbol that owns [start, start + size) of the total that `target` was asked with."""
        self._code -= start * self._unit
        self._range = size * self._unit
        while self._range < _LEAST:
            following = self._data[self._place] if self._place < len(self._data) else 0
            self._place += 1
            self._code = (self._code << 8) | following
            self._range <<= 8
        if self._place > len(self._data) + _BYTES:
            raise DataError("the coded data is damaged: it ends too early")

    def finish(self) -> None:
        """Raise DataError unless the message ends here too, at most with the one byte that `finish` adds."""
        if len(self._data) not in (self._place - _BYTES, self._place - _BYTES + 1):
            raise DataError("the coded data is damaged: more follows its end")
