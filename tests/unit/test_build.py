"""Building a corpus: what is written, the facts against their formulas, the split, and what is never lost."""

from __future__ import annotations

import collections
import json
import lzma
import math

import numpy as np
import pytest
from data_helpers import sample_texts, small_tokenizer, stream_of, write_jsonl

from lmwright.cli.main import run
from lmwright.data.build import Corpus, build_corpus, cut_document, text_hash
from lmwright.data.corpus import read_corpus
from lmwright.data.documents import Document
from lmwright.data.facts import byte_unigram
from lmwright.data.shards import ShardWriter
from lmwright.data.split import encode_split
from lmwright.errors import ConfigError, DataError
from lmwright.runs import verify_manifest
from lmwright.text.tokenizer import Tokenizer

FRACTION = 0.1
TEXTS = [f"{text} {n}" for n, text in enumerate(sample_texts(300))]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("source") / "texts.jsonl", TEXTS)


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "corpus"
    build_corpus(source, small_tokenizer(), out, validation_fraction=FRACTION)
    return Corpus.open(out, verify=True)


def sides():
    held_out = [text for text in TEXTS if text_hash(text.encode()) < FRACTION]
    return [text for text in TEXTS if text not in set(held_out)], held_out


def test_streams_hold_the_encoded_documents_in_order(built):
    tokenizer = small_tokenizer()
    for name, texts in zip(("train", "validation"), sides(), strict=True):
        split = built.split(name)
        assert split.read(0, split.num_tokens).tolist() == stream_of(tokenizer.encode_batch(texts))
        assert split.num_documents == len(texts)
        assert split.num_bytes == sum(len(text.encode()) for text in texts)
        assert split.tokenizer_hash == tokenizer.hash


def test_facts_follow_their_formulas(built):
    facts = built.facts
    train, validation = sides()
    for side, texts in ((facts.train, train), (facts.validation, validation)):
        tokens = sum(map(len, small_tokenizer().encode_batch(texts)))
        size = sum(len(text.encode()) for text in texts)
        assert (side.documents, side.bytes, side.shards) == (len(texts), size, 1)
        assert side.tokens == tokens + len(texts) + 1
        assert side.bytes_per_token == pytest.approx(size / tokens, rel=1e-12)
    counts = collections.Counter("".join(train).encode())
    total = sum(counts.values())
    scored = "".join(validation).encode()
    bits = -sum(math.log2((counts[byte] + 1) / (total + 256)) for byte in scored)
    assert facts.byte_unigram_bits_per_byte == pytest.approx(bits / len(scored), rel=1e-12)
    assert facts.xz_bits_per_byte == pytest.approx(8 * len(lzma.compress(scored)) / len(scored), rel=1e-3)
    assert facts.xz_bytes == len(scored)
    assert facts.rejects == {}
    assert facts.cut_characters is None


def test_byte_unigram_of_a_uniform_and_of_a_certain_source():
    uniform = np.full(256, 1000)
    assert byte_unigram(uniform, uniform) == pytest.approx(8.0)
    certain = np.zeros(256, dtype=np.int64)
    certain[65] = 10**9
    assert byte_unigram(certain, certain) == pytest.approx(0.0, abs=1e-6)
    assert byte_unigram(certain, np.roll(certain, 1)) == pytest.approx(math.log2(10**9 + 256))


def test_the_held_out_share_is_the_fraction_and_depends_on_the_text_alone():
    places = np.array([text_hash(str(n).encode()) for n in range(20_000)])
    assert ((places >= 0) & (places < 1)).all()
    assert abs((places < FRACTION).mean() - FRACTION) < 4 * math.sqrt(FRACTION * (1 - FRACTION) / 20_000)


def test_adding_text_moves_no_document_and_equal_texts_share_a_side(source, built, tmp_path):
    more = write_jsonl(tmp_path / "more.jsonl", [*TEXTS[::-1], *TEXTS[:50], "something new"])
    out = tmp_path / "out"
    build_corpus(more, small_tokenizer(), out, validation_fraction=FRACTION)
    names = [json.loads(line) for line in (out / "validation-00000.docs.jsonl").read_text().splitlines()]
    texts = [*TEXTS[::-1], *TEXTS[:50], "something new"]
    assert {texts[name["line"] - 1] for name in names} - {"something new"} == set(sides()[1])


def test_documents_are_named_by_file_and_line(built, source):
    split = built.split("train")
    for number in (0, 17, split.num_documents - 1):
        text = sides()[0][number]
        assert split.document_name(number) == f"{source}:{TEXTS.index(text) + 1}"


def test_directory_is_sealed_by_its_manifest_and_carries_its_tokenizer(built):
    verify_manifest(built.directory)
    assert built.tokenizer.hash == small_tokenizer().hash == built.facts.tokenizer_hash
    assert built.facts.source.endswith("texts.jsonl")


def test_the_same_input_gives_the_same_bytes(source, built, tmp_path):
    build_corpus(source, small_tokenizer(), tmp_path / "again", validation_fraction=FRACTION)
    names = sorted(path.name for path in built.directory.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    for name in names:
        assert (built.directory / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_shards_rotate_and_the_stream_does_not_depend_on_it(source, built, tmp_path):
    facts = build_corpus(
        source, small_tokenizer(), tmp_path / "many", validation_fraction=FRACTION, max_shard_tokens=1000
    )
    many = Corpus.open(tmp_path / "many", verify=True)
    assert facts.train.shards > 3
    for name in ("train", "validation"):
        ours, whole = many.split(name), built.split(name)
        assert all(len(stream.tokens) <= 1100 for stream in ours.streams)
        assert ours.num_tokens == whole.num_tokens
        assert ours.read(0, ours.num_tokens).tolist() == whole.read(0, whole.num_tokens).tolist()
        assert ours.doc_offsets.tolist() == whole.doc_offsets.tolist()
        assert ours.document_name(ours.num_documents - 1) == whole.document_name(whole.num_documents - 1)
    assert (facts.train.tokens, facts.train.bytes) == (built.facts.train.tokens, built.facts.train.bytes)


def test_text_encoded_in_memory_is_the_same_split(source, tmp_path):
    """What `lmwright eval --corpus` scores is what building would have written."""
    tokenizer = small_tokenizer()
    memory = encode_split(read_corpus(source), tokenizer)
    assert memory.read(0, memory.num_tokens).tolist() == stream_of(tokenizer.encode_batch(TEXTS))
    assert memory.num_bytes == sum(len(text.encode()) for text in TEXTS)
    assert memory.document_name(4) == f"{source}:5"


def test_rejects_are_written_and_counted_by_kind(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", TEXTS)
    with open(folder / "a.jsonl", "ab") as file:
        file.write(b'{"text": "cut\n{"txt": "x"}\n\xff\n')
    (folder / "b.bin").write_bytes(bytes(100))
    (folder / "c.txt").touch()
    facts = build_corpus(folder, small_tokenizer(), tmp_path / "out")
    assert facts.rejects == {"binary": 1, "empty": 1, "encoding": 1, "field": 1, "malformed": 1}
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [(line["path"].rpartition("/")[2], line["line"], line["kind"]) for line in lines] == [
        ("a.jsonl", 301, "malformed"),
        ("a.jsonl", 302, "field"),
        ("a.jsonl", 303, "encoding"),
        ("b.bin", 1, "binary"),
        ("c.txt", None, "empty"),
    ]
    with pytest.raises(DataError, match=r"a\.jsonl:301: is not valid JSON"):
        build_corpus(folder, small_tokenizer(), tmp_path / "strict", strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"], "nothing is left of the strict build"


def test_a_single_file_is_cut_so_that_some_of_it_is_held_out(tmp_path):
    text = "\n".join(f"line {n} of the only file" for n in range(2000))
    (tmp_path / "only.txt").write_text(text)
    facts = build_corpus(tmp_path / "only.txt", small_tokenizer(), tmp_path / "out")
    assert facts.cut_characters == len(text) // 256
    assert facts.train.bytes + facts.validation.bytes == len(text)
    assert 0.01 < facts.validation.bytes / len(text) < 0.04
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.split("validation").document_name(0).startswith(f"{tmp_path}/only.txt:")


@pytest.mark.parametrize("size", [1, 7, 20, 1000])
def test_cutting_loses_nothing_and_names_the_line(size):
    text = "first\nsecond line is longer\n\n\nfifth\r\nlast"
    pieces = list(cut_document(Document(text, "a.txt", 10), size))
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.text) <= size for piece in pieces)
    lines = text.splitlines(keepends=True)
    for piece in pieces:
        assert piece.text.splitlines(keepends=True)[0] in lines[piece.line - 10]


def test_a_corpus_too_small_to_split_says_so(tmp_path):
    (tmp_path / "tiny.txt").write_text("tiny")
    with pytest.raises(DataError, match="too small: 4 characters cannot be split"):
        build_corpus(tmp_path / "tiny.txt", small_tokenizer(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_short_lines_are_enough_only_if_they_can_be_two_pieces(tmp_path):
    (tmp_path / "two.jsonl").write_text('{"text": "first document"}\n{"text": "second document"}\n')
    facts = build_corpus(tmp_path / "two.jsonl", small_tokenizer(), tmp_path / "out")
    assert (facts.train.documents, facts.validation.documents) == (1, 1)


@pytest.mark.parametrize("fraction", [0, -0.1, 0.6, 1, float("nan")])
def test_validation_fraction_out_of_range_is_refused(source, tmp_path, fraction):
    with pytest.raises(ConfigError, match="validation_fraction"):
        build_corpus(source, small_tokenizer(), tmp_path / "out", validation_fraction=fraction)


def test_a_tokenizer_without_end_of_text_is_refused(source, tmp_path):
    description = json.loads(small_tokenizer()._json())
    description["added_tokens"] = []
    with pytest.raises(DataError, match="has no end-of-text token"):
        build_corpus(source, Tokenizer(json.dumps(description), {}, "bare"), tmp_path / "out")


def test_what_is_there_is_kept_without_force_and_replaced_with_it(source, tmp_path):
    out = tmp_path / "out"
    build_corpus(source, small_tokenizer(300), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ConfigError, match="already holds"):
        build_corpus(source, small_tokenizer(301), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    build_corpus(source, small_tokenizer(301), out, force=True)
    assert Corpus.open(out).facts.vocab_size == 301


def test_a_failed_rebuild_keeps_the_old_corpus(source, tmp_path):
    out = tmp_path / "out"
    build_corpus(source, small_tokenizer(), out)
    (tmp_path / "bad.jsonl").write_text("nonsense\n")
    with pytest.raises(DataError):
        build_corpus(tmp_path / "bad.jsonl", small_tokenizer(), out, force=True)
    Corpus.open(out, verify=True).split("train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "out"]


def test_force_never_replaces_what_is_no_corpus(source, tmp_path):
    for name in ("thesis.tex", "train-00000.txt", ".git"):
        out = tmp_path / name / "out"
        out.mkdir(parents=True)
        (out / name).write_text("years of work")
        with pytest.raises(ConfigError, match="which is no part of a built corpus"):
            build_corpus(source, small_tokenizer(), out, force=True)
        assert (out / name).read_text() == "years of work"
    file = tmp_path / "file"
    file.write_text("a file")
    with pytest.raises(ConfigError, match="is a file"):
        build_corpus(source, small_tokenizer(), file, force=True)


def test_output_below_the_corpus_is_not_read_as_text(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", TEXTS)
    first = build_corpus(tmp_path, small_tokenizer(), tmp_path / "out")
    again = build_corpus(tmp_path, small_tokenizer(), tmp_path / "out", force=True)
    other = build_corpus(tmp_path, small_tokenizer(), tmp_path / "other")
    assert first == again == other


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("corpus.json", None, "is not a built corpus"),
        ("corpus.json", "{", "is not valid JSON"),
        ("corpus.json", "[]", "has format 'list'"),
        ("corpus.json", '{"format": 1}', "has format 1, this lmwright reads 2"),
        ("corpus.json", '{"format": 2, "sauce": "x"}', "unknown setting sauce .did you mean source"),
        ("train-00000.lmw", None, "cannot be opened"),
        ("train-00000.lmw", "text", "is not an lmwright shard"),
    ],
)
def test_a_damaged_directory_is_refused_by_name(source, tmp_path, name, content, reason):
    out = tmp_path / "out"
    build_corpus(source, small_tokenizer(), out)
    (out / name).unlink()
    if content is not None:
        (out / name).write_text(content)
    with pytest.raises(DataError, match=reason):
        Corpus.open(out).split("train")


@pytest.mark.parametrize("name", ["train-00000.docs.jsonl", "validation-00000.lmw", "tokenizer.json"])
def test_verification_checks_every_file_of_the_manifest(source, tmp_path, capsys, name):
    out = tmp_path / "out"
    build_corpus(source, small_tokenizer(), out)
    assert run(["data", "info", str(out), "--verify"]) == 0
    with open(out / name, "a") as file:
        file.write("garbage\n")
    capsys.readouterr()
    assert run(["data", "info", str(out), "--verify"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"lmwright: {out / name}: has ")
    assert "the manifest says" in error
    assert "build the corpus again" in error
    (out / name).unlink()
    with pytest.raises(DataError, match="is in the manifest but is missing"):
        Corpus.open(out, verify=True)


def test_a_corpus_without_its_manifest_is_not_verified(source, tmp_path):
    build_corpus(source, small_tokenizer(), tmp_path / "out")
    (tmp_path / "out" / "MANIFEST.json").unlink()
    with pytest.raises(DataError, match=r"has no MANIFEST\.json"):
        Corpus.open(tmp_path / "out", verify=True)


def test_shards_and_tokenizers_of_another_corpus_are_refused(source, tmp_path):
    for size in (300, 301):
        build_corpus(source, small_tokenizer(size), tmp_path / str(size))
    for name in ("train-00000.lmw", "tokenizer.json"):
        (tmp_path / "300" / name).write_bytes((tmp_path / "301" / name).read_bytes())
    with pytest.raises(DataError, match="was made with tokenizer"):
        Corpus.open(tmp_path / "300").split("train")
    with pytest.raises(DataError, match=r"tokenizer\.json is not the one of the shards"):
        _ = Corpus.open(tmp_path / "300").tokenizer
    with pytest.raises(ConfigError, match="must be train or validation"):
        Corpus.open(tmp_path / "301").split("test")


def test_a_full_disk_leaves_nothing_behind_and_the_old_corpus_whole(source, tmp_path, monkeypatch):
    out = tmp_path / "out"
    build_corpus(source, small_tokenizer(), out)
    written = 0

    def full(self, data):
        nonlocal written
        written += len(data)
        if written > 5000:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(ShardWriter, "_write", full)
    with pytest.raises(DataError, match="No space left"):
        build_corpus(source, small_tokenizer(301), out, force=True)
    assert list(tmp_path.iterdir()) == [out]
    assert Corpus.open(out, verify=True).split("train").vocab_size == 300
