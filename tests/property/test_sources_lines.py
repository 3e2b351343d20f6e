"""Reading lines in chunks of any size equals splitting the whole file, and the limit counts each line alone."""

from __future__ import annotations

import gzip
import re

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lmwright.data import reading
from lmwright.data.documents import Limits
from lmwright.data.reading import Line, read_lines
from lmwright.data.sources import load

DATA = st.lists(st.sampled_from([b"\n", b"\n\n", b"a", b"bc", b"\r\n", b"x" * 9, b" "]), max_size=30).map(b"".join)
PACK = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("lines")


@pytest.mark.parametrize("end", PACK)
@given(data=DATA, chunk=st.integers(1, 12), limit=st.integers(1, 12))
def test_lines_are_those_of_the_whole_file(scratch, end, data, chunk, limit):
    path = scratch / f"a.txt{end}"
    path.write_bytes(PACK[end](data))
    expected = [
        Line(number, line if len(line) <= limit else None)
        for number, line in enumerate(re.findall(rb"[^\n]*\n|[^\n]+", data), start=1)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "CHUNK", chunk)
        assert list(read_lines(path, Limits(max_line_bytes=limit))) == expected


@given(data=DATA, size=st.integers(1, 40))
def test_pieces_of_a_text_join_to_it_and_begin_at_their_line(scratch, data, size):
    path = scratch / "b.txt"
    path.write_bytes(data)
    items = list(load("text").read(path, Limits(piece_bytes=size)))
    lines = data.decode().split("\n")
    joined = ""
    for item in items:
        if hasattr(item, "text"):
            assert item.text.split("\n")[0] == lines[item.line - 1]
            joined += item.text
    if all(hasattr(item, "text") for item in items):
        assert joined.encode() == data
    else:
        assert {item.kind for item in items if not hasattr(item, "text")} == {"empty"}
