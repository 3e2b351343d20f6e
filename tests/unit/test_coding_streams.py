"""Token streams: the windows, the same bytes for every batch size, and the code length against a plain forward."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from decode_helpers import CONFIGS, VOCAB, model, random_model
from hypothesis import given
from hypothesis import strategies as st

from lmwright.decode.coding.streams import Windows, arithmetic, cut, decode_tokens, encode_tokens
from lmwright.errors import CheckpointError, DataError
from lmwright.model.context import Context
from lmwright.seeds import numpy_generator

WINDOWS = Windows(context=10, start=3)


def nothing(count: int) -> None: ...


def ids(length: int, seed: int = 0) -> np.ndarray:
    return numpy_generator(seed, "ids").integers(0, VOCAB, length)


def seen(windows: Windows, tokens: list[int], place: int) -> list[int]:
    """What a token is predicted from, by the module's words: read on until the window is full, then halve."""
    read = [windows.start]
    for at in range(place):
        read.append(tokens[at])
        if len(read) > windows.context:
            read = read[-(windows.context // 2) :]
    return read


def plain_bits(name: str, tokens: list[int], windows: Windows) -> float:
    """-sum log2 p, each token by a forward of its own, in float64, without anything that the coder uses."""
    bits = 0.0
    for place, token in enumerate(tokens):
        read_BT = torch.tensor([seen(windows, tokens, place)])
        ctx = Context.dense(read_BT, dtype=torch.float64)
        with torch.no_grad():
            logits_V = model(name).logits(model(name)(read_BT, ctx))[0, -1]
        bits -= float(logits_V.log_softmax(-1)[token]) / math.log(2)
    return bits


@given(st.integers(2, 40), st.integers(0, 200))
def test_windows_predict_every_token_once_and_never_read_too_much(context: int, length: int) -> None:
    windows, expected = Windows(context=context, start=0), 0
    for first, stop in windows.plan(length):
        assert first == expected < stop
        read = 1 if first == 0 else context // 2
        assert read + stop - first - 1 <= context  # the last token is not read
        assert stop == length or read + stop - first - 1 == context
        expected = stop
    assert expected == length


@given(st.integers(0, 100), st.integers(1, 20))
def test_streams_are_of_one_length_or_longer_by_one(length: int, streams: int) -> None:
    lengths = cut(length, streams)
    assert (sum(lengths), len(lengths)) == (length, streams)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


@pytest.mark.parametrize("name", CONFIGS)
def test_the_code_is_as_long_as_a_plain_forward_says(name: str) -> None:
    tokens = ids(45)
    lengths = cut(45, 2)
    expected = plain_bits(name, tokens[: lengths[0]].tolist(), WINDOWS)
    expected += plain_bits(name, tokens[lengths[0] :].tolist(), WINDOWS)
    coded, bits = encode_tokens(model(name), tokens, WINDOWS, streams=2, batch_size=2, progress=nothing)
    assert bits == pytest.approx(expected, rel=1e-5)
    assert bits - 16 <= 8 * sum(len(part) for part in coded) <= bits + 16


@pytest.mark.parametrize("name", ["llama-gqa-scaled", "gpt2"])
@pytest.mark.parametrize(("length", "streams"), [(1, 1), (9, 2), (21, 1), (67, 8), (64, 8)])
def test_the_batch_size_changes_no_byte_and_tokens_come_back(name: str, length: int, streams: int) -> None:
    tokens = ids(length, seed=length)
    found = [
        encode_tokens(model(name), tokens, WINDOWS, streams=streams, batch_size=size, progress=nothing)
        for size in (1, 3, 8)
    ]
    assert found[0] == found[1] == found[2]
    for size in (1, 3, 8):
        back = decode_tokens(model(name), found[0][0], length, WINDOWS, batch_size=size, progress=nothing)
        assert back.tolist() == tokens.tolist()


def test_the_longest_context_is_used_to_its_end() -> None:
    windows = Windows(context=150, start=0)
    tokens = ids(330)
    coded, _ = encode_tokens(model("gpt2"), tokens, windows, streams=1, batch_size=1, progress=nothing)
    back = decode_tokens(model("gpt2"), coded, 330, windows, batch_size=1, progress=nothing)
    assert back.tolist() == tokens.tolist()


def test_progress_counts_every_token() -> None:
    told: list[int] = []
    coded, _ = encode_tokens(model("gpt2"), ids(43), WINDOWS, streams=4, batch_size=3, progress=told.append)
    assert sum(told) == 43
    decode_tokens(model("gpt2"), coded, 43, WINDOWS, batch_size=3, progress=told.append)
    assert sum(told) == 86


def test_no_tokens_are_no_streams() -> None:
    assert encode_tokens(model("gpt2"), ids(0), WINDOWS, streams=0, batch_size=4, progress=nothing) == ([], 0.0)
    assert len(decode_tokens(model("gpt2"), [], 0, WINDOWS, batch_size=4, progress=nothing)) == 0


def test_what_another_model_coded_does_not_come_back() -> None:
    tokens = ids(40)
    coded, _ = encode_tokens(model("gpt2"), tokens, WINDOWS, streams=1, batch_size=1, progress=nothing)
    try:
        back = decode_tokens(model("gpt2", 1), coded, 40, WINDOWS, batch_size=1, progress=nothing).tolist()
    except DataError:
        back = []
    assert back != tokens.tolist()


def test_damaged_weights_are_told() -> None:
    broken = random_model(CONFIGS["gpt2"])
    with torch.no_grad():
        broken.model.norm.weight[0] = math.nan
    with pytest.raises(CheckpointError, match="not finite"):
        encode_tokens(broken, ids(5), WINDOWS, streams=1, batch_size=1, progress=nothing)


def fail_in_arithmetic(threads: int) -> None:
    with arithmetic(threads):
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, "highest")
        raise RuntimeError("halfway")


def test_arithmetic_is_put_back_even_after_a_failure() -> None:
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(RuntimeError, match="halfway"):
            fail_in_arithmetic(before[0] + 1)
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (before[0], "medium")
    finally:
        torch.set_float32_matmul_precision(before[1])
