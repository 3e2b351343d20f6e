"""Every source, and one dropped in as a file: documents or verdicts on any bytes, never an exception."""

from __future__ import annotations

import gzip
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from data_helpers import read_file
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

import lmwright
from lmwright.data import sources
from lmwright.data.documents import KINDS, Document, Reject

SUFFIXES = sorted({suffix for kind in sources.kinds() for suffix in sources.load(kind).SUFFIXES})
GOOD = b'{"text": "some text"}\n{"text": "more"}\n'
HOSTILE = {
    "nothing": b"",
    "nul": b"\0" * 5000,
    "not utf-8": bytes(range(128, 256)) * 20,
    "newlines": b"\n" * 300,
    "braces": b"{" * 3000,
    "brackets": b"[" * 200_000,
    "gzip magic": b"\x1f\x8b\x08\0",
    "gzip cut": gzip.compress(GOOD * 50)[:-12],
    "gzip then junk": gzip.compress(GOOD) + b"junk",
    "zstd magic": b"\x28\xb5\x2f\xfd",
    "zstd cut": zstandard.compress(random.Random(1).randbytes(3000))[:-9],
    "parquet magic": b"PAR1",
    "parquet ends": b"PAR1" + b"\xff" * 40 + b"\xff\xff\xff\x7fPAR1",
    "utf-16": "some text\n".encode("utf-16"),
    "surrogates": b'{"text": "\\ud800"}\n',
    "good": GOOD,
}


def check(path: Path, **limits: object) -> None:
    documents, rejects = read_file(path, **limits)
    assert documents or rejects, "a file that gives nothing must say so"
    for document in documents:
        assert isinstance(document, Document)
        assert document.text.strip()
        document.text.encode()
    for reject in rejects:
        assert isinstance(reject, Reject)
        assert reject.kind in KINDS
        assert reject.path == str(path)
        assert reject.reason
        assert "\n" not in reject.reason
        reject.to_json().encode()


def test_listing_holds_the_sources_and_each_has_its_interface():
    assert {"text", "jsonl", "parquet", "stdlib"} <= set(sources.kinds())
    for kind in sources.kinds():
        source = sources.load(kind)
        assert all(suffix == suffix.lower() for suffix in source.SUFFIXES)
        assert source.SUFFIXES or hasattr(source, "files")


def test_each_suffix_has_one_owner_and_any_name_has_one():
    assert len(SUFFIXES) == sum(len(sources.load(kind).SUFFIXES) for kind in sources.kinds())
    for name in ("README", "a.tar.gz", "b.", ".c", "d.PARQUET", "e.jsonl.zst.txt"):
        assert sources.kind_of(Path(name)) in sources.kinds()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_get_a_verdict(tmp_path, suffix, name):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(HOSTILE[name])
    check(path)
    check(path, max_line_bytes=64, piece_bytes=100, max_ratio=2, ratio_free_bytes=100)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_and_a_directory_get_a_verdict(tmp_path, suffix):
    missing = tmp_path / f"missing{suffix}"
    check(missing)
    missing.mkdir()
    check(missing)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("bytes")


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix not in (".parquet",)])
@given(data=st.binary(max_size=200))
def test_any_bytes_get_a_verdict(scratch, suffix, data):
    path = scratch / f"any{suffix}"
    packed = gzip.compress(data) if suffix.endswith(".gz") else data
    path.write_bytes(zstandard.compress(data) if suffix.endswith(".zst") else packed)
    check(path)


@given(cut=st.integers(0, 2000), position=st.integers(0, 2000), value=st.integers(0, 255))
def test_a_damaged_parquet_gets_a_verdict(scratch, cut, position, value):
    path = scratch / "damaged.parquet"
    if not (scratch / "whole").exists():
        parquet.write_table(pa.table({"text": [f"row {n}" for n in range(50)]}), scratch / "whole")
    data = bytearray((scratch / "whole").read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data[: len(data) - (cut % len(data) if cut % 3 == 0 else 0)])
    check(path)


def test_adding_a_source_is_adding_one_file(tmp_path):
    """In a copy of the package: the file is found by its name, its suffix beats the fallback."""
    shutil.copytree(
        Path(lmwright.__file__).parent, tmp_path / "lmwright", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "lmwright" / "data" / "sources" / "shout.py").write_text(
        "from lmwright.data.documents import Document\n"
        'SUFFIXES = (".shout",)\n'
        "def read(path, limits):\n"
        "    yield Document(path.read_text().upper(), str(path), None)\n"
    )
    (tmp_path / "a.shout").write_text("hear me")
    script = (
        "import sys; from lmwright.data.corpus import read_corpus; import lmwright\n"
        f"assert lmwright.__file__.startswith({str(tmp_path)!r})\n"
        "print([document.text for document in read_corpus(sys.argv[1])])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.shout")]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['HEAR ME']"
