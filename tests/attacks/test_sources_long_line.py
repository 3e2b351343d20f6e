"""A 100 MB line: named by its number, its neighbours kept, and never held in memory."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
from data_helpers import read_file

MEGABYTES = 100
HELD = 24 * 2**20  # a few chunks and one line at the limit


def lines(head: bytes, tail: bytes):
    yield b'{"text": "before"}\n'
    yield head
    for _ in range(MEGABYTES):
        yield b"a" * 2**20
    yield tail + b'\n{"text": "after"}\n'


@pytest.mark.parametrize("name", ["long.jsonl", "long.jsonl.gz", "long.txt"])
def test_a_100_mb_line_is_skipped_unread(tmp_path, name):
    path = tmp_path / name
    opener = gzip.open if name.endswith(".gz") else open
    options = {"compresslevel": 1} if name.endswith(".gz") else {}
    with opener(path, "wb", **options) as file:
        file.writelines(lines(b'{"text": "', b'"}'))
    tracemalloc.start()
    try:
        documents, rejects = read_file(path, max_line_bytes=8 * 2**20, max_ratio=2000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < HELD
    assert [(reject.line, reject.kind) for reject in rejects] == [(2, "too-large")]
    assert len(documents) == 2
    assert "before" in documents[0].text
    assert "after" in documents[1].text
    assert documents[1].line == 3


@pytest.mark.parametrize("length", [63, 64, 65, 1000, 2**20 - 1, 2**20, 2**20 + 1])
def test_the_limit_counts_the_line_with_its_end(tmp_path, length):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * (length - 1) + b"\n")
    for limit in (length - 1, length):
        documents, rejects = read_file(path, max_line_bytes=limit)
        assert all(f"longer than {limit} bytes" in reject.reason for reject in rejects)
        assert (len(documents), len(rejects)) == ((1, 0) if limit == length else (0, 1))
