"""A corpus specification -> documents: a file, a folder, a glob, or the name of a source such as `stdlib`.

The order is that of the sorted paths, the same on every run. Folders are read recursively; hidden files and
folders, caches, and directories that lmwright wrote (corpora, runs and models, known by files that lie together in
them) are left out; symbolic links are followed, each directory once. What cannot be read is a Reject, never an
exception, unless `strict`.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmwright.data import sources
from lmwright.data.documents import Document, Limits, Reject, shown
from lmwright.errors import DataError
from lmwright.progress import bar

OUR_DIRECTORIES = {
    "a corpus": {"corpus.json", "MANIFEST.json"},
    "a run": {"env.json", "config.json", "metrics.jsonl"},
    "a run that has not logged yet": {"env.json", "config.json", "checkpoints"},
    "a model": {"config.json", "generation_config.json", "MANIFEST.json"},
}
SKIPPED_FOLDERS = {"__pycache__"}


@dataclass(frozen=True)
class Listing:
    """The files that a specification stands for, in reading order, and what was found unusable on the way."""

    spec: str
    files: tuple[tuple[Path, str], ...]  # path, kind of source
    rejects: tuple[Reject, ...] = ()
    total_bytes: int = 0


@dataclass
class _Found:
    files: list[tuple[Path, str]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    total_bytes: int = 0
    directories: set[tuple[int, int]] = field(default_factory=set)


def list_corpus(spec: str | Path, *, exclude: Sequence[Path] = ()) -> Listing:
    """Find the files of a corpus. exclude: directories to leave out (where the output goes).

    Raises DataError if the specification names nothing, or nothing that could be read.
    """
    text = str(spec)
    if not text.strip():
        raise DataError(f"corpus {text!r}: is empty; {_allowed()}")
    if isinstance(spec, str) and text in sources.named():
        paths = sources.files_of(text)
        sized = sum(path.stat().st_size for path in paths)
        return Listing(text, tuple((path, text) for path in paths), (), sized)
    found = _Found()
    left_out = {_identity(os.stat(path)) for path in exclude if path.is_dir()}
    for root in _roots(text):
        _collect(root, found, left_out)
    if not found.files and not found.rejects:
        raise DataError(
            f"{text}: holds no file to read (hidden ones, caches and what lmwright wrote are left out); "
            f"{_allowed()}"
        )
    found.files.sort(key=lambda item: os.fsencode(item[0]))
    return Listing(text, tuple(dict.fromkeys(found.files)), tuple(found.rejects), found.total_bytes)


def read_corpus(
    corpus: str | Path | Listing,
    *,
    strict: bool = False,
    rejects: Callable[[Reject], object] | None = None,
    limits: Limits | None = None,
    progress: str | None = None,
) -> Iterator[Document]:
    """Yield the documents of a corpus in a fixed order; each Reject goes to `rejects`.

    progress: label of a progress bar over the bytes of the files, None for no bar.
    Raises DataError if the corpus names nothing or gives no document at all, and with strict at the first reject
    ("path:line: reason").
    """
    listing = corpus if isinstance(corpus, Listing) else list_corpus(corpus)
    return _read(listing, strict, rejects or (lambda reject: None), limits or Limits(), progress)


def _read(
    listing: Listing,
    strict: bool,
    rejects: Callable[[Reject], object],
    limits: Limits,
    progress: str | None,
) -> Iterator[Document]:
    documents, refused = 0, 0
    first: Reject | None = None
    for item in _items(listing, limits) if progress is None else _with_bar(listing, limits, progress):
        if isinstance(item, Document):
            documents += 1
            yield item
            continue
        if strict:
            raise DataError(f"{item.place}: {item.reason}; mend it, or build without --strict to leave it out")
        refused, first = refused + 1, first or item
        rejects(item)
    if not documents:
        why = f"; {refused} rejected, the first: {first.place}: {first.reason}" if first else ""
        raise DataError(f"{listing.spec}: gave no document from {len(listing.files)} files{why}")


def _items(listing: Listing, limits: Limits) -> Iterator[Document | Reject]:
    yield from listing.rejects
    for path, kind in listing.files:
        yield from sources.load(kind).read(path, limits)


def _with_bar(listing: Listing, limits: Limits, label: str) -> Iterator[Document | Reject]:
    with bar(label, total=listing.total_bytes, unit="B") as shown:
        yield from _items(listing, replace(limits, on_bytes=shown.update))


def _roots(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if os.path.lexists(path):
        return [path]
    if glob.has_magic(text):
        matches = glob.glob(str(path), recursive=True)
        if not matches:
            raise DataError(f"{text}: the pattern matches nothing; {_allowed()}")
        return [Path(match) for match in sorted(matches)]
    raise DataError(f"{text}: does not exist; {_allowed()}")


def _allowed() -> str:
    return (
        "a corpus is a file, a folder or a glob of text, .jsonl, .json (also .gz, .zst) or .parquet, "
        f"or one of: {', '.join(sources.named())}"
    )


def _collect(root: Path, found: _Found, left_out: set[tuple[int, int]]) -> None:
    """Add a file, or what lies below a directory; an explicit stack, for folders may be nested deeply."""
    stack = [root]
    while stack:
        path = stack.pop()
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                identity = _identity(status)
                if identity in left_out or identity in found.directories:
                    continue
                found.directories.add(identity)
                names = os.listdir(path)
                if not any(files.issubset(names) for files in OUR_DIRECTORIES.values()):
                    stack += [path / name for name in sorted(names, reverse=True) if not _hidden(name)]
            else:
                found.files.append((path, sources.kind_of(path)))
                found.total_bytes += status.st_size
        except (OSError, ValueError) as error:
            reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
            found.rejects.append(Reject(shown(path), None, reason, "unreadable"))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in SKIPPED_FOLDERS


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
