"""A corpus -> a tokenizer in a directory of its own: the tokenizer's half of building a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmwright.data.corpus import list_corpus, read_corpus
from lmwright.data.documents import Limits, Reject
from lmwright.runs import TOKENIZER, atomic_directory
from lmwright.text.tokenizer import Tokenizer, train_bpe


@dataclass(frozen=True)
class Trained:
    """A tokenizer, and what of its corpus could not be read."""

    tokenizer: Tokenizer
    rejects: int
    first_reject: str | None


def train_tokenizer(
    spec: str | Path,
    vocab_size: int,
    out: Path,
    *,
    strict: bool = False,
    force: bool = False,
    progress: bool = False,
    limits: Limits | None = None,
) -> Trained:
    """Learn a byte-level BPE from a corpus and write it to `out`.

    Raises ConfigError if `out` holds something and force is False, or holds more than a tokenizer; errors of the
    corpus and of `train_bpe` besides.
    """
    listing = list_corpus(spec, exclude=(out,))
    found: list[str] = []
    count = 0

    def reject(item: Reject) -> None:
        nonlocal count
        count += 1
        if not found:
            found.append(f"{item.place}: {item.reason}")

    documents = read_corpus(
        listing, strict=strict, rejects=reject, limits=limits, progress="tokenizer" if progress else None
    )
    with atomic_directory(out, TOKENIZER, force=force) as directory:
        tokenizer = train_bpe((document.text for document in documents), vocab_size, name=str(spec))
        tokenizer.save(directory)
    return Trained(tokenizer, count, found[0] if found else None)
