"""Whatever bytes a model directory holds, only our own errors come out."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from lmwright.errors import LmwrightError
from lmwright.model import weights
from lmwright.model.checkpoint import load_model, save_model
from lmwright.model.config import ModelConfig
from lmwright.model.config_io import dump_config, parse_config
from lmwright.model.language_model import LanguageModel

SIZES = {"vocab_size": 20, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "ffn_size": 12, "max_positions": 16}
CONFIGS = [ModelConfig.llama(**SIZES), ModelConfig.gpt2(**SIZES)]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["default", "llama3", "silu", "gelu", "llama", "gpt2"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
SHAPES = st.lists(st.integers(-1, 2**70) | st.integers(0, 4), max_size=4)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*weights.WIDTHS, "X"]),
        "shape": SHAPES,
        "data_offsets": st.lists(st.integers(0, 64), min_size=2, max_size=2),
    }
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "m"
    save_model(LanguageModel(CONFIGS[0]), path)
    return path


@settings(max_examples=300)
@given(st.data())
def test_config_fields(data):
    fields = dump_config(data.draw(st.sampled_from(CONFIGS)))
    names = st.sampled_from([*fields, "rope_scaling", "auto_map", "sliding_window"]) | st.text(max_size=8)
    for name, value in data.draw(st.dictionaries(names, JSON, min_size=1, max_size=3)).items():
        fields[name] = value
    try:
        config = parse_config(fields, "fuzz")
    except LmwrightError:
        return
    assert parse_config(dump_config(config), "again") == config


@settings(max_examples=150)
@given(JSON)
def test_config_text(directory, value):
    path = directory / "config.json"
    good = path.read_text()
    try:
        path.write_text(json.dumps(value))
        with pytest.raises(LmwrightError):
            load_model(directory)
    finally:
        path.write_text(good)


@settings(max_examples=200)
@given(st.binary(max_size=80), st.none() | st.integers(0, 2**64 - 1))
def test_raw_bytes(tmp_path_factory, body, length):
    path = tmp_path_factory.getbasetemp() / "raw.safetensors"
    path.write_bytes((b"" if length is None else struct.pack("<Q", length)) + body)
    try:
        entries = weights.read_header(path)
    except LmwrightError:
        return
    assert set(entries) == set(load_file(path))


@settings(max_examples=300)
@given(st.dictionaries(st.text(max_size=5), ENTRIES | JSON, max_size=4), st.integers(0, 64))
def test_headers(tmp_path_factory, header, size):
    path = tmp_path_factory.getbasetemp() / "header.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    try:
        entries = weights.read_header(path)
        tensors = {name: weights.read_tensor(entry, name) for name, entry in entries.items()}
    except LmwrightError:
        return
    assert all(tuple(tensors[name].shape) == entry.shape for name, entry in entries.items())


@settings(max_examples=150)
@given(st.data())
def test_flipped_bytes_of_a_whole_file(directory, data):
    path = directory / "model.safetensors"
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    bad = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, header + 20), min_size=1, max_size=3)):
        bad[place] = data.draw(st.integers(0, 255))
    try:
        path.write_bytes(bad)
        model = load_model(directory)
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    except LmwrightError:
        pass
    finally:
        path.write_bytes(good)


@settings(max_examples=150)
@given(st.dictionaries(st.text(max_size=6) | st.just("weight_map"), JSON, max_size=3))
def test_index_files(tmp_path_factory, fields):
    directory = tmp_path_factory.getbasetemp() / "indexed"
    directory.mkdir(exist_ok=True)
    (directory / "model.safetensors.index.json").write_text(json.dumps(fields))
    with pytest.raises(LmwrightError):
        weights.list_tensors(directory)
