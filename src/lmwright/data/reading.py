"""Reading lines of hostile files in bounded memory: plain, gzip and zstd.

`read_lines` never holds more than one line of at most `max_line_bytes`, whatever the file holds: longer lines are
skipped unread, decompression bombs are stopped, truncated streams end in a `Damage`. Knows nothing of formats.
"""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from lmwright.data.documents import Limits

CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Line:
    """One line, its end included. data is None if the line was longer than allowed. number counts from 1."""

    number: int
    data: bytes | None


class Damage(Exception):
    """The file cannot be read on. kind and reason as in `Reject`."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class _Counted(io.RawIOBase):
    """A raw file that reports what is consumed of it."""

    def __init__(self, raw: IO[bytes], limits: Limits) -> None:
        self._raw = raw
        self._limits = limits
        self.total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = cast("io.FileIO", self._raw).readinto(buffer) or 0
        self.total += count
        self._limits.consumed(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def read_chunks(path: Path, limits: Limits) -> Iterator[bytes]:
    """Yield the file's content in chunks, decompressed if its name ends in .gz or .zst.

    Raises Damage if the file cannot be opened, is no regular file, or its compression is broken or a bomb.
    """
    compression = path.suffix.lower() if path.suffix.lower() in (".gz", ".zst") else ""
    counted = _Counted(_open(path), limits)
    produced = 0
    try:
        with counted, _decompressed(counted, compression) as stream:
            while chunk := stream.read(CHUNK):
                produced += len(chunk)
                if compression and produced > max(limits.ratio_free_bytes, limits.max_ratio * counted.total):
                    raise Damage(
                        "too-large",
                        f"decompression bomb: {counted.total} bytes gave {produced} and more "
                        f"(limit: {limits.max_ratio} times); unpack it yourself if it is meant",
                    )
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Damage("damaged", f"gzip data is truncated or broken ({error})") from None
    except OSError as error:
        if compression == ".zst":
            raise Damage("damaged", f"zstd data is truncated or broken ({error})") from None
        raise Damage("unreadable", f"cannot be read ({error.strerror or error})") from None


def read_lines(path: Path, limits: Limits) -> Iterator[Line]:
    """Yield the file's lines, each with its line end; one longer than `max_line_bytes` has data None.

    Raises Damage as `read_chunks`; the lines before the damage have been yielded then, a line cut off by it not.
    """
    number, parts, held = 1, list[bytes](), 0
    for chunk in read_chunks(path, limits):
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            held += end + 1 - start
            too_long = held > limits.max_line_bytes
            yield Line(number, None if too_long else b"".join((*parts, chunk[start : end + 1])))
            number, parts, held, start = number + 1, [], 0, end + 1
        held += len(chunk) - start
        if held > limits.max_line_bytes:
            parts.clear()
        elif start < len(chunk):
            parts.append(chunk[start:])
    if held:
        yield Line(number, None if held > limits.max_line_bytes else b"".join(parts))


def _open(path: Path) -> IO[bytes]:
    try:
        # A fifo or a device would block or never end, so the kind is looked at before the file is opened.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Damage("unreadable", "is not a regular file")
        return open(path, "rb", buffering=0)
    except (OSError, ValueError) as error:
        raise Damage("unreadable", f"cannot be opened ({getattr(error, 'strerror', None) or error})") from None


def _decompressed(raw: io.RawIOBase, compression: str) -> IO[bytes]:
    if compression == ".gz":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=io.BufferedReader(raw, CHUNK), mode="rb"))
    if compression == ".zst":
        import pyarrow

        return cast("IO[bytes]", pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd"))
    return cast("IO[bytes]", io.BufferedReader(raw, CHUNK))
