"""Plain text: every file that no other source claims, also with .gz or .zst after its name.

A file is one document, byte for byte; one longer than `piece_bytes` is cut at a blank line into documents named
by their first line. A NUL byte makes a file binary; a piece that is no UTF-8 is rejected with the line of the
first bad byte. Knows nothing of markup.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmwright.data.documents import Document, Found, Limits, Reject, shown
from lmwright.data.reading import Damage, Line, read_lines

SUFFIXES = ("",)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(slots=True)
class _Piece:
    """Lines that follow each other, from line `first`; too_long: one line over the limit, not kept."""

    first: int
    data: bytearray
    too_long: bool = False


def read(path: Path, limits: Limits) -> Found:
    """Yield the documents of a text file."""
    name = shown(path)
    after = None  # the line after what was read whole
    try:
        for piece in _pieces(read_lines(path, limits), limits):
            after = piece.first + piece.data.count(b"\n") + piece.too_long
            result = _document(piece, name, limits)
            yield result
            if isinstance(result, Reject) and result.kind == "binary":
                return
        if after is None:
            yield Reject(name, None, "is empty", "empty")
    except Damage as damage:
        yield Reject(name, after, damage.reason, damage.kind)


def _pieces(lines: Iterator[Line], limits: Limits) -> Iterator[_Piece]:
    """Group lines into pieces: a new one after a blank line past piece_bytes, or after twice that anyhow."""
    piece = _Piece(1, bytearray())
    for line in lines:
        if line.data is None:
            if piece.data:
                yield piece
            yield _Piece(line.number, bytearray(), too_long=True)
            piece = _Piece(line.number + 1, bytearray())
            continue
        piece.data += line.data
        size = len(piece.data)
        if size >= limits.piece_bytes and (not line.data.strip() or size >= 2 * limits.piece_bytes):
            yield piece
            piece = _Piece(line.number + 1, bytearray())
    if piece.data:
        yield piece


def _document(piece: _Piece, name: str, limits: Limits) -> Document | Reject:
    if piece.too_long:
        reason = f"line is longer than {limits.max_line_bytes} bytes; cut it into lines"
        return Reject(name, piece.first, reason, "too-large")
    data = bytes(piece.data)
    if piece.first == 1:
        if data.startswith(UTF16):
            return Reject(name, None, "is UTF-16 text; convert it to UTF-8", "encoding")
        data = data.removeprefix(codecs.BOM_UTF8)
    if (position := data.find(b"\0")) >= 0:
        number = piece.first + data.count(b"\n", 0, position)
        return Reject(name, number, "holds a NUL byte: a binary file, not text", "binary")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        number = piece.first + data.count(b"\n", 0, error.start)
        return Reject(name, number, f"is not UTF-8 (byte 0x{data[error.start]:02x})", "encoding")
    if not text.strip():
        return Reject(name, None if piece.first == 1 else piece.first, "holds only blanks", "empty")
    return Document(text, name, piece.first)
