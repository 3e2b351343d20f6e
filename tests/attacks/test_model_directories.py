"""Model directories made to harm: each is refused by our own error, quickly, in little memory, running nothing."""

from __future__ import annotations

import json
import os
import struct
import time
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmwright.errors import CheckpointError, LmwrightError, UnsupportedError
from lmwright.model.checkpoint import load_model, save_model
from lmwright.model.config import ModelConfig
from lmwright.model.language_model import LanguageModel

SECONDS = 5.0  # a bound against hanging; on an idle machine every refusal takes well under one
SIZES = {"vocab_size": 20, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "ffn_size": 12, "max_positions": 16}


@pytest.fixture
def llama(tmp_path):
    model = LanguageModel(ModelConfig.llama(**SIZES, tie_embeddings=True))
    model.init_weights(torch.Generator().manual_seed(0))
    save_model(model, tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def sharded(tmp_path):
    model = LanguageModel(ModelConfig.llama(**SIZES))
    save_model(model, tmp_path / "s", max_shard_bytes=2000)
    return tmp_path / "s"


def refused(directory, *words, error=CheckpointError):
    """The directory is refused in time and memory, and the message has the words."""
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(error) as caught:
            load_model(directory)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < SECONDS
    assert peak < 64 * 2**20
    message = str(caught.value)
    assert len(message) < 2000
    for word in words:
        assert word in message, message


def edit_config(directory, **changes):
    path = directory / "config.json"
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


def edit_weights(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def write_raw(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# Formats that run code


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt"])
def test_pickles_are_refused_with_reason_and_remedy(llama, name):
    os.replace(llama / "model.safetensors", llama / name)
    refused(llama, name, "can run code", "safe_serialization=True")


@pytest.mark.parametrize("value", [{"AutoConfig": "canary.A", "AutoModelForCausalLM": "canary.B"}, "canary"])
def test_auto_map_runs_nothing(llama, value, tmp_path):
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w').close()\n"
    for name in ("canary.py", "modeling_llama.py", "configuration_llama.py", "__init__.py", "torch.py"):
        (llama / name).write_text(code)
    load_model(llama)
    edit_config(llama, auto_map=value)
    refused(llama, "auto_map", "never runs", error=UnsupportedError)
    assert not mark.exists()


# config.json


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", -5), ("vocab_size", 0), ("vocab_size", 10**18), ("vocab_size", 1.5), ("vocab_size", "20"),
        ("vocab_size", None), ("vocab_size", [20]), ("vocab_size", True), ("vocab_size", ...),
        ("hidden_size", 2**40), ("hidden_size", float("nan")), ("hidden_size", {"a": 1}),
        ("num_hidden_layers", 10**9), ("num_hidden_layers", 1000), ("num_hidden_layers", -1),
        ("num_attention_heads", 3), ("num_attention_heads", 0), ("num_key_value_heads", 7),
        ("intermediate_size", 10**12), ("max_position_embeddings", 10**400), ("max_position_embeddings", -1),
        ("rms_norm_eps", float("nan")), ("rms_norm_eps", float("inf")), ("rms_norm_eps", -1.0),
        ("rms_norm_eps", "1e-5"), ("rope_parameters", {"rope_theta": float("-inf"), "rope_type": "default"}),
        ("rope_parameters", [1]), ("rope_scaling", "llama3"), ("rope_scaling", {"rope_type": "llama3"}),
        ("rope_scaling", {"rope_type": "llama3", "factor": 0, "low_freq_factor": 1, "high_freq_factor": 4,
                          "original_max_position_embeddings": 8}),
        ("head_dim", 10**6), ("head_dim", 3), ("tie_word_embeddings", "yes"), ("attention_bias", 2),
        ("initializer_range", float("inf")), ("bos_token_id", 10**6), ("eos_token_id", "end"),
        ("eos_token_id", [[1]]),
    ],
)  # fmt: skip
def test_impossible_config_values(llama, field, value):
    edit_config(llama, **{field: value})
    refused(llama, "config.json")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mamba9"}, "model_type"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"model_type": ...}, "model_type"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"hidden_act": ["silu"]}, "hidden_act"),
        ({"pretraining_tp": 2}, "pretraining_tp"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "rope_type"),
        ({"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "factor": 2.0}}, "factor"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"sliding_window": 64}, "sliding_window"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"logit_softcap": 30.0}, "logit_softcap"),
        ({"num_kv_heads": 2}, "num_kv_heads"),
    ],
)
def test_semantics_that_are_not_implemented_are_named(llama, changes, named):
    edit_config(llama, **changes)
    refused(llama, named, error=UnsupportedError)


@pytest.mark.parametrize(
    "field", ["scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"]
)
def test_gpt2_semantics_that_are_not_implemented_are_named(tmp_path, field):
    save_model(LanguageModel(ModelConfig.gpt2(**SIZES)), tmp_path / "m")
    edit_config(tmp_path / "m", **{field: True})
    refused(tmp_path / "m", field, error=UnsupportedError)


def test_contradicting_rope_fields(llama):
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    }  # fmt: skip
    edit_config(llama, rope_scaling=scaling)
    refused(llama, "contradict")


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"null", b"{", b"\xff\xfe{}", b"[" * 200_000, b'{"a":' * 50_000, b"1" * 10_000,
     b" " * (1 << 21), b'{"model_type": "llama", "model_type": "gpt2"}',
     b'{"model_type": "llama", "vocab_size": ' + b"9" * 9000 + b"}"],
)  # fmt: skip
def test_config_that_is_no_object(llama, text):
    (llama / "config.json").write_bytes(text)
    refused(llama, "config.json")


def test_missing_parts(llama, tmp_path):
    refused(tmp_path / "nowhere", "nowhere")
    os.rename(llama / "config.json", llama / "config.txt")
    refused(llama, "config.json", "missing")
    os.rename(llama / "config.txt", llama / "config.json")
    os.remove(llama / "model.safetensors")
    refused(llama, "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pipes_and_directories_in_place_of_files(llama, name):
    os.remove(llama / name)
    os.mkfifo(llama / name)
    refused(llama, name, "regular file")
    os.remove(llama / name)
    os.mkdir(llama / name)
    refused(llama, name, "regular file")


# safetensors


def test_every_truncation(llama):
    path = llama / "model.safetensors"
    data = path.read_bytes()
    ends = [*range(64), *range(64, len(data), 97), len(data) - 1]
    for end in ends:
        path.write_bytes(data[:end])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            load_model(llama)
    path.write_bytes(data)
    load_model(llama)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "word"),
    [
        ({"a": ENTRY}, b"1234567", "truncated"),
        ({"a": ENTRY}, b"123456789", "trailing"),
        ({"a": ENTRY, "b": ENTRY}, b"12345678", "overlaps"),
        ({"a": {**ENTRY, "data_offsets": [4, 12]}}, b"1" * 12, "hole"),
        ({"a": {**ENTRY, "data_offsets": [8, 0]}}, b"1" * 8, "takes"),
        ({"a": {**ENTRY, "shape": [3]}}, b"1" * 8, "takes"),
        ({"a": {**ENTRY, "shape": [-2]}}, b"1" * 8, "impossible"),
        ({"a": {**ENTRY, "shape": [2**60, 2**60]}}, b"1" * 8, "impossible"),
        ({"a": {**ENTRY, "shape": [True, 2]}}, b"1" * 8, "impossible"),
        ({"a": {**ENTRY, "shape": [1] * 9}}, b"1" * 8, "impossible"),
        ({"a": {**ENTRY, "shape": "2"}}, b"1" * 8, "impossible"),
        ({"a": {**ENTRY, "dtype": "F31"}}, b"1" * 8, "unknown"),
        ({"a": {**ENTRY, "dtype": 4}}, b"1" * 8, "unknown"),
        ({"a": {**ENTRY, "data_offsets": [0]}}, b"1" * 8, "impossible"),
        ({"a": {**ENTRY, "data_offsets": [0, 8.0]}}, b"1" * 8, "impossible"),
        ({"a": {**ENTRY, "more": 1}}, b"1" * 8, "exactly"),
        ({"a": [1]}, b"1" * 8, "exactly"),
        (b'{"a":1,"a":1}', b"", "twice"),
        (b"[]", b"", "object"),
        (b"{", b"", "JSON"),
        (b'{"a":' * 40_000, b"", "nested"),
    ],
)
def test_damaged_headers(llama, header, data, word):
    write_raw(llama / "model.safetensors", header, data)
    refused(llama, "model.safetensors", word)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 1 << 24])
def test_absurd_header_lengths(llama, length):
    path = llama / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    os.truncate(path, 1 << 25)  # sparse
    refused(llama, "header")


def test_missing_unexpected_and_misshapen_tensors_are_named(llama):
    name = "model.layers.1.mlp.up_proj.weight"
    edit_weights(llama, lambda tensors: tensors.update({name: tensors[name].t().contiguous()}))
    refused(llama, name, "[8, 12]", "[12, 8]")
    edit_weights(llama, lambda tensors: tensors.update({name: torch.zeros(12, 8, dtype=torch.int8)}))
    refused(llama, name, "I8")
    edit_weights(llama, lambda tensors: tensors.pop(name))
    refused(llama, name, "missing")
    edit_weights(llama, lambda tensors: tensors.update({name: torch.zeros(12, 8), "model.extra": torch.zeros(1)}))
    refused(llama, "model.extra", "not in a model")


def test_the_same_tensor_under_two_names(tmp_path):
    save_model(LanguageModel(ModelConfig.gpt2(**SIZES)), tmp_path / "m")
    edit_weights(tmp_path / "m", lambda tensors: tensors.update({"wte.weight": torch.zeros(20, 8)}))
    refused(tmp_path / "m", "wte.weight", "same")


def test_tied_head_that_is_not(llama):
    same = "model.embed_tokens.weight"
    edit_weights(llama, lambda tensors: tensors.update({"lm_head.weight": tensors[same].clone()}))
    load_model(llama)
    edit_weights(llama, lambda tensors: tensors.update({"lm_head.weight": tensors[same] + 1}))
    refused(llama, "tied", "lm_head.weight")
    edit_weights(llama, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(21, 8)}))
    refused(llama, "lm_head.weight", "[21, 8]")
    edit_weights(llama, lambda tensors: tensors.pop("lm_head.weight"))
    edit_config(llama, tie_word_embeddings=False)
    refused(llama, "lm_head.weight", "missing", "tie_word_embeddings")


# The index


def edit_index(directory, change):
    path = directory / "model.safetensors.index.json"
    fields = json.loads(path.read_text())
    change(fields["weight_map"])
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    "file",
    ["../m/model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", "C:\\x.safetensors",
     "a\0.safetensors",
     "model.bin", ".hidden.safetensors", 3, None, ["x.safetensors"], {"a": 1}, "", "a\n.safetensors"],
)  # fmt: skip
def test_index_that_points_elsewhere(sharded, file):
    edit_index(sharded, lambda mapping: mapping.update({"model.norm.weight": file}))
    refused(sharded, "index.json", "model.norm.weight", "directory itself")


def test_index_that_names_a_link(sharded, tmp_path):
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    shard = sharded / index["weight_map"]["lm_head.weight"]
    os.replace(shard, tmp_path / "outside.safetensors")
    shard.symlink_to(tmp_path / "outside.safetensors")
    refused(sharded, "symbolic link", "cp -rL")
    os.replace(tmp_path / "outside.safetensors", sharded / "elsewhere.safetensors")
    shard.unlink()
    shard.symlink_to("elsewhere.safetensors")
    load_model(sharded)
    shard.unlink()
    shard.symlink_to(shard.name)
    refused(sharded, shard.name)


def cached(directory, tmp_path):
    """The directory as Hugging Face's cache keeps it: files under their hashes, and links to them."""
    folder = tmp_path / "hub" / "models--somebody--model"
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(directory.iterdir())):
        os.replace(path, blobs / f"{number:064x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:064x}")
    return snapshot


@pytest.mark.parametrize("kind", ["llama", "sharded"])
def test_links_of_the_hugging_face_cache(kind, request, tmp_path):
    snapshot = cached(request.getfixturevalue(kind), tmp_path)
    load_model(snapshot)
    (tmp_path / "by-another-name").symlink_to(snapshot)
    load_model(tmp_path / "by-another-name")
    link = next(path for path in sorted(snapshot.iterdir()) if path.suffix == ".safetensors")
    other = tmp_path / "hub" / "models--somebody--else"
    other.mkdir()
    os.replace(link.resolve(), other / "blob")
    link.unlink()
    link.symlink_to("../../../models--somebody--else/blob")
    refused(snapshot, "symbolic link", "cp -rL")
    # The names alone allow nothing: the folder must be a snapshot's.
    plain = tmp_path / "models--plain" / "revision"
    plain.mkdir(parents=True)
    for path in snapshot.iterdir():
        (plain / path.name).symlink_to(path.resolve())
    refused(plain, "symbolic link")


def test_a_single_file_that_is_a_link_out(llama, tmp_path):
    os.replace(llama / "model.safetensors", tmp_path / "outside.safetensors")
    (llama / "model.safetensors").symlink_to(tmp_path / "outside.safetensors")
    refused(llama, "symbolic link", "cp -rL")


def test_index_that_contradicts_its_files(sharded):
    load_model(sharded)
    index = sharded / "model.safetensors.index.json"
    good = index.read_text()
    files = sorted(set(json.loads(good)["weight_map"].values()))
    edit_index(sharded, lambda mapping: mapping.update({"model.norm.weight": files[0]}))
    refused(sharded, "model.norm.weight", "not in")
    index.write_text(good)
    edit_index(sharded, lambda mapping: mapping.pop("model.norm.weight"))
    refused(sharded, "model.norm.weight", "not in the weight_map")
    index.write_text(good)
    edit_index(sharded, lambda mapping: mapping.update({"model.norm.weight": "model-9.safetensors"}))
    refused(sharded, "model-9.safetensors")
    index.write_text(good)
    first = load_file(sharded / files[0])
    last = load_file(sharded / files[-1])
    save_file({**last, **first}, sharded / files[-1])
    refused(sharded, "in both")


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "{"])
def test_index_without_a_map(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    refused(sharded, "index.json")


def test_both_a_file_and_an_index(sharded):
    save_file({"a": torch.zeros(1)}, sharded / "model.safetensors")
    refused(sharded, "both")


def test_what_is_not_offered_to_load(llama):
    with pytest.raises(UnsupportedError, match="dtype"):
        load_model(llama, dtype=torch.int8)
    with pytest.raises(LmwrightError, match="already holds"):
        save_model(load_model(llama), llama)


def test_a_full_disk_is_told_as_one(tmp_path, monkeypatch):
    """safetensors wraps the system's error into text of its own."""
    import safetensors.torch
    import torch

    from lmwright.model import weights

    def full(*_):
        raise safetensors.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        weights.write({"a": torch.zeros(4)}, tmp_path / "model.safetensors")
    assert caught.value.errno == 28
