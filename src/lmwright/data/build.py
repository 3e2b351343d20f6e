"""A corpus -> a directory of sealed shards, in one pass and bounded memory.

    OUT/  train-00000.lmw ...        tokens (data/shards.py)
          train-00000.docs.jsonl     path and line of each document, in the order of the shard
          validation-00000.lmw ...
          corpus.json                facts (data/facts.py)
          rejects.jsonl              what gave no document, and why
          tokenizer.json, tokenizer_config.json
          MANIFEST.json              sizes and hashes, written last

A document goes to validation if a hash of its text is below the fraction: so equal documents share a side, and
adding text never moves any. A corpus of so few documents that one side stays empty is cut into pieces first, and
the facts say so. The directory appears complete or not at all.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from lmwright.config import convert, to_dict
from lmwright.data.corpus import Listing, list_corpus, read_corpus
from lmwright.data.documents import Document, Limits, Reject
from lmwright.data.facts import FORMAT, CorpusFacts, References, SplitFacts
from lmwright.data.shards import DOCUMENTS_SUFFIX, MAX_SHARD_TOKENS, REBUILD, Shard, ShardWriter
from lmwright.data.split import TokenSplit, encode_documents, end_of_text
from lmwright.errors import CheckpointError, ConfigError, DataError
from lmwright.runs import CORPUS, atomic_directory, atomic_write_json, read_json, verify_manifest
from lmwright.text.tokenizer import Tokenizer

FACTS_FILE = "corpus.json"
REJECTS_FILE = "rejects.jsonl"
SUFFIX = ".lmw"
VALIDATION_FRACTION = 0.02
SMALLEST_PIECE = 64
PIECES = 256
SplitName = Literal["train", "validation"]


def build_corpus(
    spec: str | Path,
    tokenizer: Tokenizer,
    out: Path,
    *,
    validation_fraction: float = VALIDATION_FRACTION,
    strict: bool = False,
    force: bool = False,
    progress: bool = False,
    limits: Limits | None = None,
    exclude: Sequence[Path] = (),
    max_shard_tokens: int = MAX_SHARD_TOKENS,
) -> CorpusFacts:
    """Read a corpus, encode it and write it to `out`.

    strict: end at the first reject. force: replace an older corpus in `out`. exclude: directories not to read.
    Raises ConfigError if `out` holds something and force is False, or holds what is no corpus; DataError if the
    corpus names nothing, gives no document, or is too small to be split in two.
    """
    if not 0 < validation_fraction <= 0.5:
        raise ConfigError(f"validation_fraction = {validation_fraction}: must be above 0 and at most 0.5")
    end_of_text(tokenizer)
    listing = list_corpus(spec, exclude=(out, *exclude))
    job = _Job(listing, tokenizer, validation_fraction, strict, progress, limits or Limits(), max_shard_tokens)
    with atomic_directory(out, CORPUS, force=force) as directory:
        facts = _write(directory, job, _Rule(validation_fraction))
        if facts is None:
            for path in directory.iterdir():
                path.unlink()
            facts = _write(directory, job, _rule_for_few(job))
        assert facts is not None
        tokenizer.save(directory)
        atomic_write_json(directory / FACTS_FILE, to_dict(facts))
    return facts


class Corpus:
    """An open corpus directory."""

    def __init__(self, directory: Path, facts: CorpusFacts, *, verify: bool) -> None:
        self.directory = directory
        self.facts = facts
        self._verify = verify

    @classmethod
    def open(cls, directory: Path | str, *, verify: bool = False) -> Corpus:
        """Open what `build_corpus` wrote.

        verify: check every file against the manifest, and each shard's own checksum when its split is opened.
        Raises DataError that says what is missing, damaged or newer.
        """
        directory = Path(directory)
        path = directory / FACTS_FILE
        if not path.is_file():
            raise DataError(f"{directory}: is not a built corpus (no {FACTS_FILE}); {REBUILD}")
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise DataError(f"{path}: has format {found!r}, this lmwright reads {FORMAT}; {REBUILD}")
        try:
            facts = convert(content, CorpusFacts, str(path))
        except ConfigError as error:
            raise DataError(f"{error}; {REBUILD}") from None
        if verify:
            _verify(directory)
        return cls(directory, facts, verify=verify)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the corpus was encoded with."""
        tokenizer = Tokenizer.load(self.directory)
        if tokenizer.hash != self.facts.tokenizer_hash:
            raise DataError(f"{self.directory}: tokenizer.json is not the one of the shards; {REBUILD}")
        return tokenizer

    def split(self, name: SplitName) -> TokenSplit:
        """Return the split `train` or `validation`. Raises DataError if a shard is missing or unusable."""
        if name not in ("train", "validation"):
            raise ConfigError(f"split {name!r}: must be train or validation")
        facts: SplitFacts = getattr(self.facts, name)
        paths = [self.directory / _shard_name(name, number) for number in range(facts.shards)]
        known = self.facts.tokenizer_hash
        shards = [Shard.open(path, verify=self._verify, tokenizer_hash=known) for path in paths]
        split = TokenSplit(f"{self.directory}: {name}", shards)
        if (split.num_tokens, split.num_documents) != (facts.tokens, facts.documents):
            raise DataError(f"{self.directory}: the {name} shards are not those of {FACTS_FILE}; {REBUILD}")
        return split


def _verify(directory: Path) -> None:
    """Raise DataError, naming the file, unless every file is as the manifest says."""
    try:
        verify_manifest(directory)
    except CheckpointError as error:
        raise DataError(f"{error}; {REBUILD}") from None


@dataclass(frozen=True)
class _Job:
    listing: Listing
    tokenizer: Tokenizer
    validation_fraction: float
    strict: bool
    progress: bool
    limits: Limits
    max_shard_tokens: int

    def documents(self, cut: int | None, reject: Callable[[Reject], object], label: str) -> Iterator[Document]:
        """Yield the documents, cut into pieces if `cut` says so."""
        progress = label if self.progress else None
        for document in read_corpus(
            self.listing, strict=self.strict, rejects=reject, limits=self.limits, progress=progress
        ):
            yield from [document] if cut is None else cut_document(document, cut)


@dataclass(frozen=True)
class _Rule:
    """Which documents are held out: those whose hash is below `threshold`, after cutting."""

    threshold: float
    cut: int | None = None

    def holds_out(self, text: bytes) -> bool:
        return text_hash(text) < self.threshold


def text_hash(text: bytes) -> float:
    """Return the place of a text in [0, 1): the first 53 bits of its SHA-256."""
    return (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 11) / 2**53


def cut_document(document: Document, size: int) -> Iterator[Document]:
    """Cut a document at line ends into pieces of about `size` characters; a longer line is cut inside."""
    piece, length, first = list[str](), 0, document.line or 1
    for offset, line in enumerate(document.text.splitlines(keepends=True)):
        for start in range(0, len(line), size):
            part = line[start : start + size]
            if length and length + len(part) > size:
                yield Document("".join(piece), document.path, first)
                piece, length, first = [], 0, (document.line or 1) + offset
            piece.append(part)
            length += len(part)
    if piece:
        yield Document("".join(piece), document.path, first)


def _rule_for_few(job: _Job) -> _Rule:
    """Return pieces small enough, and a threshold high enough, that neither side of the split is empty."""
    total = sum(len(document.text) for document in job.documents(None, lambda reject: None, "measuring"))
    size = max(SMALLEST_PIECE, total // PIECES)
    pieces = job.documents(size, lambda reject: None, "cutting")
    hashes = sorted({text_hash(piece.text.encode()) for piece in pieces})
    if len(hashes) < 2:
        raise DataError(
            f"{job.listing.spec}: too small: {total} characters cannot be split into training and validation "
            "text; give more text"
        )
    held_out = min(math.ceil(job.validation_fraction * len(hashes)), len(hashes) - 1)
    return _Rule(hashes[held_out], size)


def _write(directory: Path, job: _Job, rule: _Rule) -> CorpusFacts | None:
    """Write shards, document names and rejects; return the facts, or None if one side stayed empty."""
    kinds: collections.Counter[str] = collections.Counter()
    references = References()
    with ExitStack() as stack:
        rejects = stack.enter_context(open(directory / REJECTS_FILE, "w", encoding="utf-8"))

        def reject(found: Reject) -> None:
            kinds[found.kind] += 1
            rejects.write(found.to_json() + "\n")

        train = stack.enter_context(_SplitWriter(directory, "train", job))
        validation = stack.enter_context(_SplitWriter(directory, "validation", job))
        for document, ids in encode_documents(job.documents(rule.cut, reject, "encoding"), job.tokenizer):
            text = document.text.encode()
            held_out = rule.holds_out(text)
            references.add(text, validation=held_out)
            (validation if held_out else train).add(document, ids, len(text))
    if not train.documents or not validation.documents:
        return None
    unigram, xz = references.finish()
    return CorpusFacts(
        format=FORMAT,
        source=job.listing.spec,
        tokenizer_hash=job.tokenizer.hash,
        vocab_size=job.tokenizer.vocab_size,
        validation_fraction=job.validation_fraction,
        cut_characters=rule.cut,
        train=train.facts(),
        validation=validation.facts(),
        rejects=dict(sorted(kinds.items())),
        byte_unigram_bits_per_byte=unigram,
        xz_bits_per_byte=xz,
        xz_bytes=references.xz_bytes,
    )


class _SplitWriter:
    """Writes the shards of one split, a new one when the last is full."""

    def __init__(self, directory: Path, name: str, job: _Job) -> None:
        self._directory = directory
        self._name = name
        self._job = job
        self._shard: ShardWriter | None = None
        self._names: IO[str] | None = None
        self._text_tokens = 0
        self._bytes = 0
        self._shards = 0
        self.documents = 0

    def add(self, document: Document, ids: Sequence[int], num_bytes: int) -> None:
        if self._shard is not None and self._shard.num_tokens + len(ids) >= self._job.max_shard_tokens:
            self._seal()
        if self._shard is None or self._names is None:
            path = self._directory / _shard_name(self._name, self._shards)
            tokenizer = self._job.tokenizer
            eos = end_of_text(tokenizer)
            size = tokenizer.vocab_size
            self._shard = ShardWriter(path, vocab_size=size, tokenizer_hash=tokenizer.hash, eos_id=eos)
            self._names = open(path.with_suffix(DOCUMENTS_SUFFIX), "w", encoding="utf-8")  # noqa: SIM115
            self._shards += 1
        self._shard.add(ids, num_bytes)
        self._names.write(json.dumps({"path": document.path, "line": document.line}) + "\n")
        self.documents += 1
        self._text_tokens += len(ids)
        self._bytes += num_bytes

    def facts(self) -> SplitFacts:
        return SplitFacts(
            documents=self.documents,
            tokens=self._text_tokens + self.documents + 1,
            bytes=self._bytes,
            bytes_per_token=self._bytes / max(self._text_tokens, 1),
            shards=self._shards,
        )

    def _seal(self) -> None:
        if self._shard is not None and self._names is not None:
            self._names.close()
            self._shard.close()
        self._shard = self._names = None

    def __enter__(self) -> _SplitWriter:
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if kind is None:
            self._seal()
        elif self._shard is not None and self._names is not None:
            self._names.close()
            self._shard.discard()


def _shard_name(split: str, number: int) -> str:
    return f"{split}-{number:05d}{SUFFIX}"
