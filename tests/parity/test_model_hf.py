"""Logits against transformers on random asymmetric weights, in both directions, for every family."""

from __future__ import annotations

import json

import pytest
import torch

from lmwright.model.checkpoint import load_model, save_model
from lmwright.model.config import ModelConfig, RopeScaling
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel

transformers = pytest.importorskip("transformers")

SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=32)
SMALL = {"vocab_size": 97, "num_layers": 3, "max_positions": 256, "bos_id": 1, "eos_id": 2}
LLAMA = {**SMALL, "hidden_size": 48, "num_heads": 6, "ffn_size": 80}
CONFIGS = {
    "llama-mha": ModelConfig.llama(**LLAMA),
    "llama-gqa": ModelConfig.llama(**LLAMA, num_kv_heads=2, norm_eps=1e-6, rope_theta=500000.0),
    "llama-mqa-tied": ModelConfig.llama(**LLAMA, num_kv_heads=1, tie_embeddings=True),
    "llama-scaled": ModelConfig.llama(**LLAMA, num_kv_heads=3, rope_scaling=SCALING),
    "llama-biases-head-dim": ModelConfig.llama(
        **LLAMA, num_kv_heads=2, head_dim=16, attention_bias=True, ffn_bias=True
    ),
    "llama-gelu": ModelConfig.llama(**LLAMA, activation="gelu_tanh"),
    "gpt2": ModelConfig.gpt2(**SMALL, hidden_size=48, num_heads=6),
    "gpt2-untied-erf": ModelConfig.gpt2(
        **SMALL, hidden_size=48, num_heads=3, ffn_size=100, tie_embeddings=False, activation="gelu"
    ),
}


def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter a spread and an offset of its own, so that no symmetry hides an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(module.named_parameters())):
            noise = torch.randn(parameter.shape, generator=generator)
            unit = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(noise * 0.2 + (1.0 if unit else 0.01 * (number % 5 - 2)))


def ids_for(config: ModelConfig, batch: int = 2, count: int = 70) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, (batch, count), generator=torch.Generator().manual_seed(5))


def our_logits(model: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(ids, Context.dense(ids)))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_opens_our_directory(name, sharded, tmp_path):
    config = CONFIGS[name]
    model = LanguageModel(config)
    randomise(model)
    save_model(model, tmp_path / "m", max_shard_bytes=40_000 if sharded else 10**9)
    assert (tmp_path / "m" / "model.safetensors.index.json").exists() == sharded
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "m", dtype=torch.float32, output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs.eval()
    ids = ids_for(config)
    with torch.no_grad():
        expected = theirs(ids).logits
    assert expected.std() > 0.1
    difference = (our_logits(model, ids) - expected).abs().max().item()
    assert difference < 2e-5 * max(1.0, expected.abs().max().item())
    ours_again = load_model(tmp_path / "m")
    assert ours_again.config == config
    assert torch.equal(our_logits(ours_again, ids), our_logits(model, ids))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_we_open_what_transformers_saves(name, sharded, tmp_path):
    config = CONFIGS[name]
    save_model(LanguageModel(config), tmp_path / "seed")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "seed", dtype=torch.float32)
    randomise(theirs, seed=3)
    theirs.eval()
    theirs.save_pretrained(tmp_path / "hf", max_shard_size="40KB" if sharded else "1GB")
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists() == sharded
    model = load_model(tmp_path / "hf")
    assert model.config == config
    ids = ids_for(config)
    with torch.no_grad():
        expected = theirs(ids).logits
    difference = (our_logits(model, ids) - expected).abs().max().item()
    assert difference < 2e-5 * max(1.0, expected.abs().max().item())


def test_config_of_transformers_4_is_read(tmp_path):
    model = LanguageModel(CONFIGS["llama-scaled"])
    randomise(model)
    save_model(model, tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    fields = json.loads(path.read_text())
    del fields["rope_parameters"], fields["dtype"], fields["head_dim"]
    fields["rope_scaling"]["type"] = fields["rope_scaling"].pop("rope_type")
    path.write_text(json.dumps(fields))
    assert load_model(tmp_path / "m").config == CONFIGS["llama-scaled"]


def test_config_of_transformers_5_alone_is_read(tmp_path):
    model = LanguageModel(CONFIGS["llama-scaled"])
    randomise(model)
    save_model(model, tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    fields = json.loads(path.read_text())
    del fields["rope_theta"], fields["rope_scaling"], fields["torch_dtype"]
    path.write_text(json.dumps(fields))
    assert load_model(tmp_path / "m").config == CONFIGS["llama-scaled"]


def test_gpt2_files_without_prefix_and_with_buffers_open(tmp_path):
    from safetensors.torch import load_file, save_file

    model = LanguageModel(CONFIGS["gpt2"])
    randomise(model)
    save_model(model, tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    for layer in range(3):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 4, 4, dtype=torch.uint8)
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, path)
    ids = ids_for(model.config)
    assert torch.equal(our_logits(load_model(tmp_path / "m"), ids), our_logits(model, ids))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_directories_are_upcast(dtype, tmp_path):
    model = LanguageModel(CONFIGS["llama-gqa"])
    randomise(model)
    save_model(model, tmp_path / "m", dtype=dtype)
    loaded = load_model(tmp_path / "m")
    for name, parameter in loaded.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, model.get_parameter(name).detach().to(dtype).float())
    assert next(load_model(tmp_path / "m", dtype=dtype).parameters()).dtype == dtype
