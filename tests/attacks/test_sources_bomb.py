"""Decompression bombs: stopped at the ratio, in bounded memory, and named."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
import zstandard
from data_helpers import read_file

from lmwright.data.documents import Limits, Reject
from lmwright.data.sources import kind_of, load

CHUNK = b'{"text": "%s"}\n' % (b"zero " * 2000) * 100  # 1 MB
MEGABYTES = 16


def write_bomb(path):
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=9) as file:
            file.writelines(b"\0" * 2**20 for _ in range(MEGABYTES))
    else:
        with open(path, "wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as file:
            for _ in range(MEGABYTES):
                file.write(CHUNK)


@pytest.mark.parametrize("name", ["bomb.txt.gz", "bomb.jsonl.gz", "bomb.txt.zst", "bomb.jsonl.zst"])
def test_a_bomb_is_stopped_and_named(tmp_path, name):
    path = tmp_path / name
    write_bomb(path)
    tracemalloc.start()
    try:
        limits = Limits(ratio_free_bytes=2**22, max_line_bytes=2**21)
        rejects = [item for item in load(kind_of(path)).read(path, limits) if isinstance(item, Reject)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rejects[-1].kind in ("too-large", "binary")
    if ".jsonl" in name:
        assert "decompression bomb" in rejects[-1].reason
    assert peak < 16 * 2**20


def test_ordinary_compression_is_no_bomb(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"abcdefgh\n" * 1000))
    documents, rejects = read_file(path)
    assert (len(documents), rejects) == (1, [])


def test_a_zstd_frame_that_demands_a_huge_window_is_refused(tmp_path):
    path = tmp_path / "a.txt.zst"
    parameters = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(compressor.compress(b"text " * 1000) + compressor.flush())
    documents, [reject] = read_file(path)
    assert (documents, reject.kind) == ([], "damaged")
