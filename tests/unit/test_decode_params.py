"""SamplingParams: defaults are off, ranges are kept, every refusal names field, value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys

import pytest

from lmwright.decode.params import SamplingParams
from lmwright.errors import RequestError

BAD = [
    ("max_new_tokens", 0),
    ("max_new_tokens", -3),
    ("max_new_tokens", 2.0),
    ("max_new_tokens", True),
    ("max_new_tokens", None),
    ("temperature", -0.1),
    ("temperature", 1e-6),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("temperature", "hot"),
    ("temperature", None),
    ("top_k", -1),
    ("top_k", 1.5),
    ("top_p", 2),
    ("top_p", 0),
    ("top_p", -0.5),
    ("top_p", math.nan),
    ("min_p", 1.5),
    ("min_p", -0.1),
    ("repetition_penalty", 0),
    ("repetition_penalty", -1.0),
    ("seed", 2**63),
    ("seed", 1.0),
    ("seed", "1"),
    ("stop", ""),
    ("stop", ["a", ""]),
    ("stop", [1]),
    ("stop", 5),
    ("stop_token_ids", 5),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", ["a"]),
    ("stop_token_ids", "ab"),
    ("stop_token_ids", [True]),
    ("ignore_eos", 1),
    ("num_return_sequences", 0),
    ("num_return_sequences", 2000),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_refuses(name, value):
    with pytest.raises(RequestError) as caught:
        SamplingParams(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} = {value!r}")
    assert "allowed: " in message or "must be" in message


def test_ranges_are_inclusive_where_they_say_so():
    for name, values in {
        "temperature": (0, 0.0, 1e-5, 2, 1e5),
        "top_k": (0, 1, 10**6),
        "top_p": (1e-9, 1, 1.0),
        "min_p": (0, 1),
        "seed": (None, 0, -(2**63), 2**63 - 1),
        "num_return_sequences": (1, 1024),
    }.items():
        for value in values:
            assert getattr(SamplingParams(**{name: value}), name) == value


def test_is_frozen_hashable_and_normalised():
    params = SamplingParams(stop="x", stop_token_ids=[3, 4], temperature=1)
    assert params.stop == ("x",)
    assert params.stop_token_ids == (3, 4)
    assert isinstance(params.temperature, float)
    assert hash(params) == hash(SamplingParams(stop=["x"], stop_token_ids=(3, 4)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_k = 3


def test_greedy_with_several_sequences_is_refused():
    with pytest.raises(RequestError, match="greedy decoding gives one output"):
        SamplingParams(temperature=0, num_return_sequences=2)


def test_needs_no_torch():
    code = "import sys, lmwright; lmwright.SamplingParams(top_k=3); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
