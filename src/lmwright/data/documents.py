"""What a source yields: documents, and the rejects that it names instead of failing; and what it is told.

Knows nothing of tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lmwright.errors import ConfigError

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Document:
    """One text. path: the file, as shown to people. line: line or row in it (from 1), None for a whole file."""

    text: str
    path: str
    line: int | None = None

    @property
    def place(self) -> str:
        """`path` or `path:line`."""
        return self.path if self.line is None else f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Reject:
    """One line, row or file that gave no document. kind: one of `KINDS`; reason: one sentence for people."""

    path: str
    line: int | None
    reason: str
    kind: str = "malformed"

    def __post_init__(self) -> None:
        # Field names of a hostile file end up in here, and this ends up on a terminal.
        object.__setattr__(self, "reason", printable(self.reason))

    @property
    def place(self) -> str:
        """`path` or `path:line`."""
        return self.path if self.line is None else f"{self.path}:{self.line}"

    def to_json(self) -> str:
        """Return the line of rejects.jsonl."""
        return json.dumps({"path": self.path, "line": self.line, "kind": self.kind, "reason": self.reason})


# unreadable: the system will not open it. damaged: compression or container broken. too-large: over a limit.
# malformed: not what its name promises. field: the text field is missing or no string.
KINDS = ("unreadable", "damaged", "too-large", "binary", "encoding", "malformed", "field", "empty")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a source is told: which field holds the text, and how much of a hostile file it may take in.

    text_field: field of a JSON object or column of a table. piece_bytes: a longer text file is cut at a blank line
    (or a line end) into documents of about this size. max_line_bytes: a longer line, record or value is rejected
    unread, which bounds memory. max_ratio: compressed data that grows by more than this, past `ratio_free_bytes`,
    is a decompression bomb. on_bytes: called with the number of file bytes consumed, for progress.
    """

    text_field: str = "text"
    piece_bytes: int = MIB // 4
    max_line_bytes: int = 16 * MIB
    max_ratio: int = 200
    ratio_free_bytes: int = 64 * MIB
    on_bytes: Callable[[int], object] | None = None

    def __post_init__(self) -> None:
        for name in ("piece_bytes", "max_line_bytes", "max_ratio"):
            if getattr(self, name) < 1:
                raise ConfigError(f"limits: {name} = {getattr(self, name)}: must be at least 1")
        if not self.text_field:
            raise ConfigError("limits: text_field is empty; name the field that holds the text")

    def consumed(self, count: int) -> None:
        """Report that `count` more bytes of the file on disk were read."""
        if self.on_bytes is not None:
            self.on_bytes(count)


Found = Iterator[Document | Reject]


def printable(text: str) -> str:
    """Return a text on one line, control characters and halves of surrogate pairs shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(path: Path) -> str:
    """Return a path as valid text on one line: bytes of a file name that are no UTF-8 are shown as \\xNN."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def surrogate_reason(text: str) -> str | None:
    """Return why a text cannot be written as UTF-8, or None if it can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"character {error.start} is half of a surrogate pair; it is not valid Unicode"
    return None
