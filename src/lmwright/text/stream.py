"""Token ids -> text one id at a time, without ever showing half a character.

A byte-level token may end in the middle of a UTF-8 sequence. For byte-level vocabularies the bytes go through an
incremental UTF-8 decoder, so each id costs the length of its own token. Other decoders (WordPiece, Metaspace, byte
fallback) look at neighbours; for them a short window is decoded again, and the window is moved forward as text
becomes certain, so that a long answer never costs quadratic time. Knows nothing of vocabularies or models.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
# A UTF-8 character has at most 4 bytes, so a window that still ends in a broken one after 8 ids is truly broken.
MAX_PENDING = 8


class ByteStream:
    """Streaming decoder of a byte-level vocabulary: the pieces join to exactly `Tokenizer.decode(ids)`."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Return the text that became certain with this id; empty while a character is incomplete."""
        return self._decoder.decode(self._token_bytes(token_id))

    def finish(self) -> str:
        """Return what is left: U+FFFD for a character that was never completed, else nothing."""
        return self._decoder.decode(b"", final=True)


class WindowStream:
    """Streaming decoder of any other vocabulary: decodes the last few ids again and returns what is new."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._shown = 0  # ids at the head of the window whose text has been returned
        self._shown_text = ""

    def push(self, token_id: int) -> str:
        """Return the text that became certain with this id; empty while a character is incomplete."""
        self._window.append(token_id)
        text = self._decode(self._window)
        pending = len(self._window) - self._shown
        if text.endswith(REPLACEMENT) and pending < MAX_PENDING:
            return ""
        return self._advance(text)

    def finish(self) -> str:
        """Return the text held back so far."""
        return self._advance(self._decode(self._window)) if self._window else ""

    def _advance(self, text: str) -> str:
        new = text[len(self._shown_text) :]
        # The ids just shown stay as left context (spaces and word pieces depend on it); older ones go.
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        self._shown_text = self._decode(self._window)
        return new


StreamDecoder = ByteStream | WindowStream
