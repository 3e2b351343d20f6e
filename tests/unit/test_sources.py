"""Sources and corpus specifications: what is read, in which order, and what is said about the rest."""

from __future__ import annotations

import gzip
import json
import os
import sys

import pyarrow as pa
import pytest
import zstandard
from data_helpers import read_file, write_jsonl
from pyarrow import parquet

from lmwright.data.corpus import list_corpus, read_corpus
from lmwright.data.documents import Document, Limits
from lmwright.errors import ConfigError, DataError
from lmwright.runs import RunDirectory

PACK = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.compress}


def texts(spec, **options):
    return [document.text for document in read_corpus(spec, **options)]


@pytest.mark.parametrize("end", PACK)
def test_text_is_kept_byte_for_byte(tmp_path, end):
    content = " line one\r\n\n\tline three é 猫\n  "
    path = tmp_path / f"a.txt{end}"
    path.write_bytes(PACK[end](content.encode()))
    assert read_file(path) == ([Document(content, str(path), 1)], [])


@pytest.mark.parametrize("end", PACK)
@pytest.mark.parametrize("stem", ["x.jsonl", "x.json", "X.JSONL", "x.ndjson"])
def test_json_lines(tmp_path, stem, end):
    lines = [
        {"text": "one\n", "id": 1},
        {"other": [1, {}], "text": "zwei ü"},
        {"text": "three", "nan": float("nan")},
    ]
    data = "\ufeff" + "".join(json.dumps(line) + "\n" for line in lines[:2]) + "\n" + json.dumps(lines[2])
    path = tmp_path / f"{stem}{end}"
    path.write_bytes(PACK[end](data.encode()))
    documents, rejects = read_file(path)
    assert [(document.text, document.line) for document in documents] == [
        ("one\n", 1),
        ("zwei ü", 2),
        ("three", 4),
    ]
    assert rejects == []


def test_zstd_of_several_frames_and_gzip_of_several_members(tmp_path):
    for end in (".gz", ".zst"):
        path = tmp_path / f"a.txt{end}"
        path.write_bytes(PACK[end](b"first ") + PACK[end](b"second"))
        assert [document.text for document in read_file(path)[0]] == ["first second"]


BAD_LINES = [
    (b'{"text": "cut off', "malformed", "is not valid JSON"),
    (b"[1, 2]", "malformed", "is a JSON array, not an object"),
    (b'"text"', "malformed", "is a JSON string, not an object"),
    (b"7", "malformed", "is a JSON number, not an object"),
    (b'{"txet": "a", "id": 1}', "field", "has no field 'text' (did you mean txet?); its fields: txet, id"),
    (b"{}", "field", "has no field 'text'; its fields: none"),
    (b'{"text": 5}', "field", "field 'text' is number, not text"),
    (b'{"text": null}', "field", "field 'text' is null, not text"),
    (b'{"text": ["a"]}', "field", "field 'text' is array, not text"),
    (b'{"text": "  "}', "empty", "field 'text' is empty"),
    (b'{"text": "\xff"}', "encoding", "is not UTF-8 (byte 10 of the line)"),
    (b'{"text": "ab\\ud800"}', "encoding", "character 2 is half of a surrogate pair"),
    (b'{"text": "a"} {"text": "b"}', "malformed", "is not valid JSON"),
    (b"\0\0\0", "malformed", "is not valid JSON"),
]


@pytest.mark.parametrize(("line", "kind", "reason"), BAD_LINES)
def test_a_bad_json_line_is_named_and_its_neighbours_are_kept(tmp_path, line, kind, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    documents, [reject] = read_file(path)
    assert [document.text for document in documents] == ["before", "after"]
    assert (reject.path, reject.line, reject.kind) == (str(path), 2, kind)
    assert reject.reason.startswith(reason)
    with pytest.raises(DataError, match=r"a\.jsonl:2: ") as caught:
        texts(path, strict=True)
    assert str(caught.value).startswith(f"{path}:2: {reason}")


def test_surrogate_pairs_written_as_escapes_are_one_character(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(r'{"text": "\ud83d\ude00"}')
    assert texts(path) == ["😀"]


def test_the_text_field_is_configurable(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "c", "text": "t"}\n')
    assert texts(path, limits=Limits(text_field="content")) == ["c"]
    parquet.write_table(pa.table({"content": ["p"], "text": ["t"]}), tmp_path / "b.parquet")
    assert texts(tmp_path / "b.parquet", limits=Limits(text_field="content")) == ["p"]
    with pytest.raises(ConfigError, match="text_field is empty"):
        Limits(text_field="")


def test_a_json_file_that_is_no_json_lines_is_rejected_once(tmp_path):
    path = tmp_path / "package.json"
    path.write_text(json.dumps({"name": "x", "version": 2}, indent=2))
    documents, [reject] = read_file(path)
    assert documents == []
    assert "is not JSON Lines" in reject.reason


def test_parquet_rows_in_order_with_bad_ones_named(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [f"row {n}" for n in range(700)]
    rows[3], rows[500] = None, "   "
    parquet.write_table(pa.table({"id": list(range(700)), "text": rows}), path, row_group_size=300)
    documents, rejects = read_file(path)
    assert [document.text for document in documents] == [row for n, row in enumerate(rows) if n not in (3, 500)]
    assert documents[-1].line == 700
    assert [(reject.line, reject.kind) for reject in rejects] == [(4, "field"), (501, "empty")]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()]
)
def test_every_string_type_of_parquet(tmp_path, kind):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": pa.array(["one", "two", "one"]).cast(kind)}), path)
    assert texts(path) == ["one", "two", "one"]


def test_parquet_problems_of_the_whole_file(tmp_path):
    cases = {
        "missing": (pa.table({"txt": ["a"]}), "has no column 'text' (did you mean txt?); its columns: txt"),
        "number": (pa.table({"text": [1, 2]}), "column 'text' is int64, not text"),
        "nested": (pa.table({"text": [["a"]]}), "column 'text' is list<element: string>, not text"),
        "rows": (pa.table({"text": pa.array([], pa.string())}), "has no rows"),
    }
    for name, (table, reason) in cases.items():
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(table, path)
        documents, [reject] = read_file(path)
        assert (documents, reject.reason) == ([], reason)


def test_parquet_text_that_is_no_utf8_is_named_by_row(tmp_path):
    path = tmp_path / "a.parquet"
    values = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"text": values}), path)
    documents, [reject] = read_file(path)
    assert [document.text for document in documents] == ["good", "fine"]
    assert (reject.line, reject.kind) == (2, "encoding")


def test_long_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    path = tmp_path / "long.txt"
    content = "".join(f"line {n}\n" + ("\n" if n % 10 == 9 else "") for n in range(500))
    path.write_text(content)
    documents, rejects = read_file(path, piece_bytes=1000)
    assert "".join(document.text for document in documents) == content
    assert len(documents) > 3
    assert rejects == []
    assert all(document.text.endswith("\n\n") for document in documents[:-1])
    lines = content.splitlines(keepends=True)
    for document in documents:
        assert document.text.startswith(lines[document.line - 1] if document.line else "")
    assert documents[1].line == documents[0].text.count("\n") + 1


def test_bad_piece_of_a_long_text_is_named_by_line_and_the_rest_is_kept(tmp_path):
    path = tmp_path / "long.txt"
    lines = [b"line of text\n"] * 400
    lines[250] = b"caf\xe9\n"
    path.write_bytes(b"".join(lines))
    documents, [reject] = read_file(path, piece_bytes=500)
    assert (reject.line, reject.kind) == (251, "encoding")
    assert sum(len(document.text) for document in documents) > 3000


@pytest.mark.parametrize(
    ("content", "kind", "line"),
    [
        (b"", "empty", None),
        (b" \n\t\n", "empty", None),
        (b"text\nmore\0text\n", "binary", 2),
        ("hello".encode("utf-16"), "encoding", None),
        (b"one\ntwo \xff\n", "encoding", 2),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary", 3),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, kind, line):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    documents, [reject] = read_file(path)
    assert (documents, reject.kind, reject.line) == ([], kind, line)


def test_folder_is_read_recursively_in_sorted_order_without_hidden_and_cached(tmp_path):
    for name in (
        "b.txt",
        "a.txt",
        "a/z.txt",
        "a/b/c.md",
        ".hidden.txt",
        ".git/x.txt",
        "__pycache__/y.py",
        "Z.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    write_jsonl(tmp_path / "a/lines.jsonl", ["l1", "l2"])
    assert texts(tmp_path) == ["Z.txt", "a.txt", "a/b/c.md", "l1", "l2", "a/z.txt", "b.txt"]


def test_glob_matches_files_and_folders(tmp_path):
    for name in ("x/1.txt", "x/2.md", "y/3.txt", "y/deep/4.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(f"{tmp_path}/*/*.txt") == ["x/1.txt", "y/3.txt"]
    assert texts(f"{tmp_path}/**/*.txt") == ["x/1.txt", "y/3.txt", "y/deep/4.txt"]
    assert texts(f"{tmp_path}/y*") == ["y/3.txt", "y/deep/4.txt"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("bracket")
    assert texts(tmp_path / "a[1].txt") == ["bracket"]


def test_own_output_directories_are_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    built = tmp_path / "built"
    built.mkdir()
    for name in ("corpus.json", "MANIFEST.json", "train-00000.docs.jsonl"):
        (built / name).write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.txt").write_text("excluded")
    assert list_corpus(tmp_path, exclude=[tmp_path / "other"]).files == ((tmp_path / "a.txt", "text"),)


@pytest.mark.parametrize(
    "names",
    [
        ("env.json", "config.json", "metrics.jsonl", "report.html"),
        ("env.json", "config.json", "checkpoints", "plan.json"),
        ("config.json", "generation_config.json", "tokenizer.json", "MANIFEST.json"),
    ],
)
def test_runs_and_models_are_left_out(tmp_path, names):
    (tmp_path / "a.txt").write_text("mine")
    ours = tmp_path / "runs" / "first"
    ours.mkdir(parents=True)
    for name in names:
        (ours / name).write_text('{"text": "never to be learnt"}')
    (ours.parent / "notes.txt").write_text("mine too")
    assert texts(tmp_path) == ["mine", "mine too"]
    with pytest.raises(DataError, match="what lmwright wrote"):
        list_corpus(ours)
    (ours / names[0]).unlink()
    assert len(list_corpus(tmp_path).files) == 2 + len(names) - 1, "others use some of these names too"


def test_a_real_run_is_left_out(tmp_path):
    with RunDirectory.create(tmp_path / "run", config={}) as run:
        run.log({"kind": "start"})
    (tmp_path / "a.txt").write_text("mine")
    assert texts(tmp_path) == ["mine"]


@pytest.mark.parametrize("spec", ["", "  ", "no/such/place", "no/such/*.txt"])
def test_a_corpus_that_names_nothing_says_what_is_allowed(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"a corpus is a file, a folder or a glob.*stdlib"):
        read_corpus(spec)


def test_an_empty_folder_and_one_of_rejects_only(tmp_path):
    with pytest.raises(DataError, match="holds no file to read"):
        read_corpus(tmp_path)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(
        DataError, match=r"gave no document from 1 files; 1 rejected, the first: .*empty\.txt: is empty"
    ):
        texts(tmp_path)


def test_rejects_are_handed_on_and_strict_stops_at_the_first(tmp_path):
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    (tmp_path / "c.txt").touch()
    found = []
    assert texts(tmp_path, rejects=found.append) == ["fine"]
    assert [(reject.place.rpartition("/")[2], reject.kind) for reject in found] == [
        ("b.txt:1", "encoding"),
        ("c.txt", "empty"),
    ]
    with pytest.raises(DataError) as caught:
        texts(tmp_path, strict=True)
    assert str(caught.value).startswith(f"{tmp_path / 'b.txt'}:1: is not UTF-8")


def test_stdlib_is_the_standard_library_without_site_packages():
    listing = list_corpus("stdlib")
    paths = [str(path) for path, _ in listing.files]
    assert any(path.endswith("json/decoder.py") for path in paths)
    assert not any("site-packages" in path or "__pycache__" in path for path in paths)
    assert paths == sorted(paths)
    assert 5e6 < listing.total_bytes < 1e8
    limited = type(listing)("stdlib", listing.files[:20], (), 0)
    assert all(document.path.endswith(".py") for document in read_corpus(limited))


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes only on Linux")
def test_a_file_name_that_is_no_utf8_is_shown_escaped(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    with open(path, "w") as file:
        file.write("text")
    [document] = read_corpus(tmp_path)
    assert document.path.endswith(r"caf\xe9.txt")
    document.path.encode()


def test_progress_counts_the_bytes_of_the_files(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 5000)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "y"}\n' * 100))
    parquet.write_table(pa.table({"text": ["p"] * 10}), tmp_path / "c.parquet")
    counted = []
    list(read_corpus(tmp_path, limits=Limits(on_bytes=counted.append)))
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert sum(counted) == total == list_corpus(tmp_path).total_bytes
