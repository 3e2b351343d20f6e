"""Small tokenizers, corpora and splits for the tests of text and data."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lmwright.data.build import build_corpus
from lmwright.data.documents import Document, Limits, Reject
from lmwright.data.shards import Shard, ShardWriter
from lmwright.data.sources import kind_of, load
from lmwright.data.split import TokenSplit
from lmwright.text.tokenizer import Tokenizer, train_bpe

WORDS = "the cat sat on a mat and the dog ate its hat while naïve 猫 watched 42 times (it's true) — \n\t"
EOS = 0
HASH = "ab" * 32


@functools.cache
def small_tokenizer(vocab_size: int = 300) -> Tokenizer:
    return train_bpe(sample_texts(40), vocab_size)


def sample_texts(count: int) -> list[str]:
    words = WORDS.split(" ")
    return [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(12 + i % 9)) for i in range(count)]


def corpus_of(place: Path, texts: Iterable[str], tokenizer: Tokenizer) -> Path:
    """Write each text to a file below `place`, build a corpus of them, a tenth held out, and return where."""
    (place / "text").mkdir(parents=True)
    for number, text in enumerate(texts):
        (place / "text" / f"{number:03d}.txt").write_text(text)
    build_corpus(place / "text", tokenizer, place / "corpus", validation_fraction=0.1)
    return place / "corpus"


def three_words(place: Path, each: int) -> Path:
    """Build a corpus of 40 texts of `each` of three words, in random order."""
    random = np.random.default_rng(4)
    texts = [" ".join(random.choice(["one", "two", "three"], size=each)) for _ in range(40)]
    return corpus_of(place, texts, train_bpe(texts, 268))


def write_shard(path: Path, documents: Iterable[Sequence[int]], vocab_size: int = 1000) -> Path:
    with ShardWriter(path, vocab_size=vocab_size, tokenizer_hash=HASH, eos_id=EOS) as writer:
        for ids in documents:
            writer.add(ids, num_bytes=3 * len(ids))
    return path


def shard_split(directory: Path, shards: Sequence[Sequence[Sequence[int]]], vocab_size: int = 1000) -> TokenSplit:
    """Return a split of one shard file for each list of documents."""
    paths = [
        write_shard(directory / f"train-{n:05d}.lmw", documents, vocab_size) for n, documents in enumerate(shards)
    ]
    return TokenSplit("train", [Shard.open(path) for path in paths])


def stream_of(documents: Iterable[Sequence[int]]) -> list[int]:
    """The definition: [eos] + tokens for each document, one eos at the end."""
    return [token for ids in documents for token in (EOS, *ids)] + [EOS]


def random_documents(lengths: Iterable[int], vocab_size: int = 1000, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(1, vocab_size, size=length).tolist() for length in lengths]


def read_file(path: Path, **limits: object) -> tuple[list[Document], list[Reject]]:
    """Read one file with the source that claims it."""
    items = list(load(kind_of(path)).read(path, Limits(**limits)))  # type: ignore[arg-type]
    documents = [item for item in items if isinstance(item, Document)]
    return documents, [item for item in items if isinstance(item, Reject)]


def write_jsonl(path: Path, texts: Iterable[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path
