"""Control characters in field and file names do not reach a terminal, and a million fields cost nothing."""

from __future__ import annotations

import json
import time

import pyarrow as pa
from data_helpers import read_file
from pyarrow import parquet

from lmwright.data.corpus import read_corpus

ESCAPE = "\x1b[2Jtex\nt\u202e"


def test_field_names(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({ESCAPE: 1, "\ud800": 2}) + "\n")
    _, [reject] = read_file(path)
    assert reject.reason.isprintable()
    assert r"\x1b[2Jtex\nt\u202e" in reject.reason
    assert r"\ud800" in reject.reason


def test_column_names(tmp_path):
    parquet.write_table(pa.table({ESCAPE: ["a"]}), tmp_path / "a.parquet")
    _, [reject] = read_file(tmp_path / "a.parquet")
    assert reject.reason.isprintable()


def test_file_names(tmp_path):
    (tmp_path / f"{ESCAPE}.txt").write_text("text")
    (tmp_path / f"{ESCAPE}.bin").write_bytes(b"\0")
    rejects = []
    [document] = read_corpus(tmp_path, rejects=rejects.append)
    assert document.place.isprintable()
    assert rejects[0].place.isprintable()


def test_a_line_of_a_hundred_thousand_fields_is_named_briefly(tmp_path):
    path = tmp_path / "a.jsonl"
    line = json.dumps({f"{'x' * 60}{n}": n for n in range(100_000)})
    path.write_text(f"{line}\n" * 3)
    start = time.perf_counter()
    _, rejects = read_file(path)
    assert time.perf_counter() - start < 60, "comparing every name with the wanted one would take minutes"
    assert len(rejects) == 3
    assert all(len(reject.reason) < 500 for reject in rejects)
