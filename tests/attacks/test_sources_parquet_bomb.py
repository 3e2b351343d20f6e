"""A small parquet file that stands for gigabytes: dictionary coding repeats one long value."""

from __future__ import annotations

import pyarrow as pa
from data_helpers import read_file
from pyarrow import parquet

LONG = "spam " * 40_000  # 200 kB
ROWS = 20_000  # 4 GB


def test_a_repeated_value_is_stopped_at_the_ratio(tmp_path):
    path = tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), pa.array([LONG]))
    parquet.write_table(pa.table({"text": column}), path, use_dictionary=True)
    assert path.stat().st_size < 2**20
    before = pa.default_memory_pool().max_memory()
    documents, rejects = read_file(path, ratio_free_bytes=2**22)
    assert len(documents) < 100
    assert [reject.kind for reject in rejects] == ["too-large"]
    assert "decompression bomb" in rejects[0].reason
    assert pa.default_memory_pool().max_memory() - before < 2**28


def test_a_value_over_the_limit_is_named_and_the_rest_kept(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["short", LONG, "after"]}), path)
    documents, [reject] = read_file(path, max_line_bytes=1000)
    assert [document.text for document in documents] == ["short", "after"]
    assert (reject.line, reject.kind) == (2, "too-large")
