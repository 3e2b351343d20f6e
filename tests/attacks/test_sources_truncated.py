"""Truncated, damaged and foreign compression: what came before is kept, the place of the damage is named."""

from __future__ import annotations

import gzip
import random

import pytest
import zstandard
from data_helpers import read_file

LETTERS = random.Random(3)
LINES = [b'{"text": "%s"}\n' % "".join(LETTERS.choices("abcdefghijklmnop ", k=60)).encode() for _ in range(60_000)]
DATA = b"".join(LINES)


@pytest.mark.parametrize(("end", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
def test_a_cut_file_gives_its_first_lines_and_names_the_next(tmp_path, end, pack):
    path = tmp_path / f"a.jsonl{end}"
    packed = pack(DATA)
    path.write_bytes(packed[: len(packed) * 2 // 3])
    documents, rejects = read_file(path)
    assert 1000 < len(documents) < len(LINES)
    assert [reject.kind for reject in rejects] == ["damaged"]
    assert rejects[0].line == documents[-1].line + 1
    assert "truncated or broken" in rejects[0].reason


@pytest.mark.parametrize(("end", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
@pytest.mark.parametrize("keep", [1, 5, 12])
def test_a_file_cut_within_its_header(tmp_path, end, pack, keep):
    path = tmp_path / f"a.txt{end}"
    path.write_bytes(pack(b"some text")[:keep])
    documents, [reject] = read_file(path)
    assert (documents, reject.kind) == ([], "damaged")


def test_a_flipped_bit_in_gzip_is_found_by_its_crc(tmp_path):
    data = bytearray(gzip.compress(b"abc" * 50, compresslevel=0))
    data[40] ^= 1
    path = tmp_path / "a.txt.gz"
    path.write_bytes(data)
    _, rejects = read_file(path)
    assert [reject.kind for reject in rejects] == ["damaged"]


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_plain_text_under_a_compressed_name(tmp_path, end):
    path = tmp_path / f"a.txt{end}"
    path.write_text("plain text that is not compressed at all")
    documents, [reject] = read_file(path)
    assert (documents, reject.kind) == ([], "damaged")
