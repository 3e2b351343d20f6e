"""The kinds of source, one file each: listed from this folder and imported on use.

A source file defines

    SUFFIXES: tuple[str, ...]   lower-case ends of file names that it reads; the longest match wins, "" matches any
    read(path: Path, limits: Limits) -> Iterator[Document | Reject]

and, if its own name is to be a corpus by itself (`--corpus stdlib`), `files() -> list[Path]`. `read` holds at most
one document and a few MiB; whatever the file holds, it yields Rejects and raises nothing. To add a kind, add a
file; `tests/contract/test_sources_contract.py` runs over the listing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from lmwright import seams
from lmwright.data.documents import Found, Limits


class Source(Protocol):
    """What a file of this folder is."""

    SUFFIXES: tuple[str, ...]

    def read(self, path: Path, limits: Limits) -> Found:
        """Yield the documents of a file, and a Reject for each thing in it that gave none."""
        ...


def kinds() -> tuple[str, ...]:
    """Return the names of the source files in this folder."""
    return seams.names(__name__)


def load(kind: str) -> Source:
    """Import a source by the name of its file."""
    return cast("Source", seams.load(__name__, kind))


def kind_of(path: Path) -> str:
    """Return the kind that reads this file name: the one with the longest matching suffix."""
    name = path.name.lower()
    matches = [(len(suffix), kind) for kind in kinds() for suffix in load(kind).SUFFIXES if name.endswith(suffix)]
    return max(matches)[1]


def named() -> list[str]:
    """Return the kinds whose name is a corpus by itself."""
    return [kind for kind in kinds() if hasattr(load(kind), "files")]


def files_of(kind: str) -> list[Path]:
    """Return the files of a kind that is a corpus by itself."""
    found: list[Path] = load(kind).files()  # type: ignore[attr-defined]
    return found
