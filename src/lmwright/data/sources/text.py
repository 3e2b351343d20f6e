"""Plain text: every file that no other source claims, also with .gz or .zst after its name.

A file is one document, byte for byte; one longer than `piece_bytes` is cut at a blank line into documents named
by their first line. A NUL byte makes a file binary; a piece that is no UTF-8 is rejected with the line of the
first bad byte. Knows nothing of markup.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from lmwright.data.documents import Document, Found, Limits, Reject, shown
from lmwright.data.reading import Damage, Line, read_lines

SUFFIXES = ("",)
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read(path: Path, limits: Limits) -> Found:
    """Yield the documents of a text file."""
    name = shown(path)
    last = 0
    try:
        for lines in _pieces(read_lines(path, limits), limits):
            last = lines[-1].number
            result = _document(lines, name)
            yield result
            if isinstance(result, Reject) and result.kind == "binary":
                return
        if not last:
            yield Reject(name, None, "is empty", "empty")
    except Damage as damage:
        yield Reject(name, last + 1 if last else None, damage.reason, damage.kind)


def _pieces(lines: Iterator[Line], limits: Limits) -> Iterator[list[Line]]:
    """Group lines into pieces: a new one after a blank line past piece_bytes, or after twice that anyhow."""
    piece: list[Line] = []
    size = 0
    for line in lines:
        if line.data is None:
            if piece:
                yield piece
            yield [line]
            piece, size = [], 0
            continue
        piece.append(line)
        size += len(line.data)
        if size >= limits.piece_bytes and (not line.data.strip() or size >= 2 * limits.piece_bytes):
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _document(lines: list[Line], name: str) -> Document | Reject:
    first = lines[0]
    if first.data is None:
        return Reject(name, first.number, "line is longer than the limit; cut it into lines", "too-large")
    data = b"".join(line.data or b"" for line in lines)
    if first.number == 1:
        if data.startswith(UTF16):
            return Reject(name, None, "is UTF-16 text; convert it to UTF-8", "encoding")
        data = data.removeprefix(codecs.BOM_UTF8)
    if (position := data.find(b"\0")) >= 0:
        number = first.number + data.count(b"\n", 0, position)
        return Reject(name, number, "holds a NUL byte: a binary file, not text", "binary")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        number = first.number + data.count(b"\n", 0, error.start)
        return Reject(name, number, f"is not UTF-8 (byte 0x{data[error.start]:02x})", "encoding")
    if not text.strip():
        return Reject(name, None if first.number == 1 else first.number, "holds only blanks", "empty")
    return Document(text, name, first.number)
