"""Whether a tokenizer keeps the whole text: bits a byte of different tokenizers compare only if their ids do.

A tokenizer that lowers, strips or drops text is paid for fewer bytes than it is divided by. The first 64 documents
and every 100th after them are decoded again. What is let pass, because it holds next to no information: one space
before a text, canonically equivalent Unicode (NFC), and, in vocabularies that write a space as U+2581, that sign.
Knows nothing of models.
"""

from __future__ import annotations

import unicodedata

from lmwright.data.documents import Document
from lmwright.errors import DataError
from lmwright.text.tokenizer import Tokenizer

FIRST, EVERY = 64, 100
SPACE_SIGN = "\u2581"


def in_sample(number: int) -> bool:
    """Return whether document `number`, counted from 0, is checked."""
    return number < FIRST or number % EVERY == 0


def check_lossless(document: Document, ids: list[int], tokenizer: Tokenizer) -> None:
    """Raise DataError, naming the first place that differs, unless `ids` decode to the document's text."""
    found = tokenizer.decode(ids, skip_special=False)
    if found == document.text:
        return
    signs = not tokenizer.is_byte_level
    text, found = _without_form(document.text, signs), _without_form(found, signs)
    if found == text:
        return
    pairs = enumerate(zip(text, found, strict=False))
    place = next((at for at, (ours, theirs) in pairs if ours != theirs), min(len(text), len(found)))
    raise DataError(
        f"{document.place}: the tokenizer loses text: {text[place : place + 20]!r} comes back as "
        f"{found[place : place + 20]!r}, so a loss a byte would not be comparable; use a tokenizer that keeps "
        "every text, such as a byte-level one"
    )


def _without_form(text: str, signs: bool) -> str:
    text = unicodedata.normalize("NFC", text)
    return (text.replace(SPACE_SIGN, " ") if signs else text).removeprefix(" ")
