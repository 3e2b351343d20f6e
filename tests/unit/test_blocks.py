"""Segments: every sequence of bytes comes back, whatever the tokenizer does to text."""

from __future__ import annotations

import functools
import json

import pytest
import tokenizers
from decode_helpers import tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from lmwright.recipes._blocks import BLOCK, NEAR, Codec, Segment
from lmwright.text.tokenizer import Tokenizer

PROSE = b"the cat sat on the mat and the dog sat on the log, so that it was full\n"


@functools.cache
def lossy(kind: str) -> Tokenizer:
    """Tokenizers that alter text: they lower it, drop what they do not know, or put a blank before it."""
    if kind == "lowering":
        words = {word: at for at, word in enumerate(["[UNK]", *PROSE.decode().replace(",", "").split()])}
        backend = tokenizers.Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        backend.normalizer = normalizers.Lowercase()
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        return Tokenizer(backend.to_str(), {}, kind)
    pieces = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"\u2581abcdefghijklmnopqrstuvwxyz,",
        "th",
        "the",
    ]
    merges = [("t", "h"), ("th", "e")]
    model = models.BPE(
        {piece: at for at, piece in enumerate(pieces)},
        merges,
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend.to_str(), {}, kind)


def codecs() -> dict[str, Codec]:
    few_bytes = json.loads(tokenizer()._json())
    few_bytes["model"]["vocab"] = {
        token: at for token, at in few_bytes["model"]["vocab"].items() if at < 100 or len(token) > 1
    }
    few_bytes["model"]["merges"] = []
    return {
        "byte-level": Codec(tokenizer(), tokenizer().vocab_size),
        "ids beyond the model": Codec(tokenizer(), 120),
        "lowering": Codec(lossy("lowering"), 1000),
        "sentencepiece": Codec(lossy("sentencepiece"), 1000),
    }


CODECS = codecs()
ODD = [
    b"",
    b"\x00",
    b"a",
    b"\xff",
    b"\xef\xbb\xbfwith a mark before it\r\nand\r\nlines\r",
    b"text that says <|endoftext|> and </s> and [UNK] and <unk> and <0x41>, all as text",
    "naïve café, 日本語, \U0001f600\u0301 and a combining accent e\u0301".encode(),
    "na\xefve caf\xe9 in Latin-1, which is no UTF-8 in two places".encode("latin-1"),
    b"\xed\xa0\x80 half of a surrogate pair \xed\xbf\xbf and an overlong \xc0\x80 and a cut \xe2\x82",
    " two  blanks\tand a tab, \u2581 and the sign of a blank".encode(),
    bytes(range(256)) * 3,
    PROSE.upper() * 5,
]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("data", ODD, ids=range(len(ODD)))
def test_odd_bytes_come_back(name: str, data: bytes) -> None:
    codec = CODECS[name]
    assert codec.join(*codec.split(data)) == data


@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=300), st.text(max_size=100), st.binary(max_size=20))
def test_any_bytes_come_back(name: str, noise: bytes, text: str, more: bytes) -> None:
    codec = CODECS[name]
    for data in (noise, text.encode("utf-8", "surrogatepass") + more, PROSE + more + PROSE):
        assert codec.join(*codec.split(data)) == data


@pytest.mark.parametrize("name", CODECS)
def test_long_mixtures_come_back(name: str) -> None:
    codec = CODECS[name]
    noise = bytes(at * at % 251 for at in range(40_000))
    for data in (
        PROSE * 700 + noise + PROSE * 700,
        "日本語のテキスト".encode() * 3000,
        bytes(50_000) + PROSE * 300,
    ):
        segments, ids, raw = codec.split(data)
        assert codec.join(segments, ids, raw) == data
        assert sum(s.count for s in segments if s.raw) == len(raw)
        assert sum(s.count for s in segments if not s.raw) == len(ids)


def test_text_becomes_tokens_and_the_rest_does_not() -> None:
    codec = CODECS["byte-level"]
    text = PROSE * 400
    assert codec.split(text)[0] == [Segment(False, len(codec.split(text)[1]))]
    assert len(codec.split(text)[1]) < len(text) / 2
    latin = "un café très sucré dans un bol carré\n".encode("latin-1") * 20
    assert [s.raw for s in codec.split(latin)[0]] == [False]  # stray bytes have tokens of their own
    noise = bytes(at * at % 251 for at in range(2 * BLOCK))
    for dull in (noise, bytes(2 * BLOCK), b"0" * (2 * BLOCK), b"\0a\0b" * BLOCK):
        segments, ids, raw = codec.split(dull)
        assert (segments, ids, raw) == ([Segment(True, len(dull))], [], dull)


def test_a_tokenizer_that_alters_a_block_loses_that_block_alone() -> None:
    codec = CODECS["sentencepiece"]
    prose = PROSE * (3 * BLOCK // len(PROSE))
    odd = prose[:BLOCK] + " \u2581\n".encode() * 100 + prose[: 2 * BLOCK]
    segments, _, raw = codec.split(odd)
    assert {s.raw for s in segments} == {True, False}
    assert len(raw) <= 2 * BLOCK
    assert codec.join(*codec.split(odd)) == odd
    assert {s.raw for s in CODECS["lowering"].split(PROSE)[0]} == {True}
    assert {s.raw for s in CODECS["ids beyond the model"].split(PROSE)[0]} == {True}


@given(st.integers(0, 40), st.binary(min_size=1, max_size=7))
def test_characters_and_near_lines_are_not_cut(shift: int, unit: bytes) -> None:
    from lmwright.recipes._blocks import _blocks

    data = b"x" * shift + "語".encode() * BLOCK
    blocks = list(_blocks(data))
    assert b"".join(blocks) == data
    assert all(block.decode() for block in blocks)
    lines = (b"y" * (NEAR - 1) + b"\n") * 40
    assert all(block.endswith(b"\n") for block in _blocks(lines))
    noise = unit * (3 * BLOCK // len(unit))
    assert b"".join(_blocks(noise)) == noise
    assert max(len(block) for block in _blocks(noise)) <= BLOCK
