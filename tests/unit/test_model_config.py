"""ModelConfig: what it refuses, what it fills in, and that it costs no torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from lmwright.config import convert, to_dict
from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig, RopeScaling

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "ffn_size": 64,
    "max_positions": 16,
}
SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_positions": 32,
}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_heads": 5}, "hidden_size"),
        ({"num_kv_heads": 3}, "num_kv_heads"),
        ({"num_kv_heads": 8}, "num_kv_heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"vocab_size": 10**30}, "vocab_size"),
        ({"vocab_size": 10.0}, "vocab_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"vocab_size": "50"}, "vocab_size"),
        ({"num_layers": 10**6}, "num_layers"),
        ({"max_positions": None}, "max_positions"),
        ({"norm_eps": float("nan")}, "norm_eps"),
        ({"norm_eps": 0.0}, "norm_eps"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"residual_dropout": 1.0}, "residual_dropout"),
        ({"attention_dropout": -0.1}, "attention_dropout"),
        ({"embedding_dropout": "much"}, "embedding_dropout"),
        ({"activation": "relu"}, "activation"),
        ({"family": "bert"}, "family"),
        ({"mixer": "mamba9"}, "mixer"),
        ({"feed_forward": "none"}, "feed_forward"),
        ({"tie_embeddings": 1}, "tie_embeddings"),
        ({"bos_id": 50}, "bos_id"),
        ({"eos_id": -2}, "eos_id"),
        ({"position": "learned"}, "position"),
        ({"norm": "layernorm"}, "norm"),
        ({"rope_scaling": {}}, "rope_scaling"),
    ],
)
def test_refused_by_name(changes, named):
    with pytest.raises(ConfigError, match=named):
        ModelConfig(**{**SIZES, **changes})


@pytest.mark.parametrize(
    "changes", [{"factor": 0.5}, {"high_freq_factor": 1.0}, {"factor": float("nan")}, {"low_freq_factor": 0.0}]
)
def test_scaling_refused(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        RopeScaling(**{**SCALING, **changes})


def test_scaling_needs_rotary_positions():
    with pytest.raises(ConfigError, match="rope_scaling"):
        ModelConfig.gpt2(**SIZES, rope_scaling=RopeScaling(**SCALING))


def test_weights_begin_with_small_inits_spread_unless_one_is_given():
    sizes = {name: value for name, value in SIZES.items() if name not in ("hidden_size", "ffn_size")}
    for width, spread in ((64, 0.0790569), (768, 0.0228218), (4096, 0.0098821)):
        assert ModelConfig.llama(**sizes, hidden_size=width).initializer_range == pytest.approx(spread, rel=1e-5)
    assert ModelConfig.gpt2(**sizes, hidden_size=64, initializer_range=0.02).initializer_range == 0.02
    assert ModelConfig.of_family("lstm", **(sizes | {"num_heads": 1}), hidden_size=64).initializer_range == 1.0


def test_presets_and_missing_sizes():
    assert ModelConfig.gpt2(**{**SIZES, "ffn_size": 128}) == ModelConfig.gpt2(
        **{name: value for name, value in SIZES.items() if name != "ffn_size"}
    )
    sizes = {"vocab_size": 9, "num_layers": 1, "num_heads": 4, "max_positions": 8}
    assert ModelConfig.llama(**sizes, hidden_size=384).ffn_size == 1024
    assert ModelConfig.llama(**sizes, hidden_size=400).ffn_size == 1088
    assert ModelConfig.gpt2(**sizes, hidden_size=384).ffn_size == 1536
    with pytest.raises(ConfigError, match="vocab_size"):
        ModelConfig.llama(hidden_size=8)
    with pytest.raises(ConfigError, match="hiden"):
        ModelConfig.llama(**SIZES, hiden=8)


def test_stated_defaults_equal_unstated_ones():
    plain = ModelConfig(**SIZES)
    stated = ModelConfig(**SIZES, num_kv_heads=4, head_dim=8)
    assert stated == plain
    assert (plain.kv_heads, plain.dim_per_head) == (4, 8)
    wider = dataclasses.replace(stated, hidden_size=64)
    assert (wider.kv_heads, wider.dim_per_head) == (4, 16)
    assert ModelConfig(**SIZES, num_kv_heads=2, head_dim=6).dim_per_head == 6


def test_round_trip_through_plain_values():
    config = ModelConfig(**SIZES, num_kv_heads=2, rope_scaling=RopeScaling(**SCALING), bos_id=0)
    assert convert(to_dict(config), ModelConfig, "test") == config
    with pytest.raises(ConfigError, match="num_kv_heads"):
        convert({**SIZES, "num_kv_head": 2}, ModelConfig, "test")


def test_config_io_and_flops_import_no_torch():
    code = (
        "import sys, lmwright.scaling.flops, lmwright.model.config_io as io\n"
        "config = io.ModelConfig.llama(vocab_size=8, hidden_size=8, num_layers=1, num_heads=2, ffn_size=8,\n"
        "                              max_positions=8)\n"
        "assert io.parse_config(io.dump_config(config), 'x') == config\n"
        "lmwright.scaling.flops.count_parameters(config)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
