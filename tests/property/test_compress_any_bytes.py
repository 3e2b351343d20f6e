"""Any bytes come back from compression, for both families, whatever the batch size."""

from __future__ import annotations

import functools
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_dirs import hf_directory

import lmwright as lm

PROSE = b"the cat sat on the mat and the dog sat on the log\n"


@functools.cache
def model(family: str) -> lm.Model:
    with TemporaryDirectory() as place:
        return lm.load(hf_directory(Path(place) / family, family))


@settings(max_examples=30)
@given(st.sampled_from(["llama", "gpt2"]), st.one_of(st.binary(max_size=80), st.text(max_size=40)))
def test_any_bytes_come_back(family: str, data: bytes | str) -> None:
    data = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    packed = model(family).compress(data)
    assert model(family).decompress(packed) == data
    data = PROSE + data
    assert model(family).decompress(model(family).compress(data), batch_size=3) == data


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\xff",
        b"<|endoftext|>",
        b"the <|endoftext|> is said, and said again: <|endoftext|>",
        b"\xef\xbb\xbfa mark",
        b"one\r\ntwo\rthree\n\0",
        b"\xed\xa0\x80\xed\xb0\x80 halves of a pair",
        "日本 naïve \U0001f600".encode(),
        PROSE * 9,
    ],
)
def test_odd_bytes_come_back(family: str, data: bytes) -> None:
    assert model(family).decompress(model(family).compress(data)) == data


def test_a_megabyte_of_zeros_needs_no_model() -> None:
    packed = model("llama").compress(bytes(2**20))
    assert len(packed) < 1000
    assert model("llama").decompress(packed) == bytes(2**20)


def test_what_is_compressed_already_hardly_grows() -> None:
    import lzma
    import random

    noise = lzma.compress(random.Random(0).randbytes(40_000))
    packed = model("llama").compress(noise)
    assert len(packed) < len(noise) * 1.01 + 200
    assert model("llama").decompress(packed) == noise
