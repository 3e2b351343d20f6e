"""Closed forms against published counts, built models and torch's own counter."""

from __future__ import annotations

import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.model.context import Context
from lmwright.model.language_model import LanguageModel
from lmwright.scaling import flops

GPT2 = ModelConfig.gpt2(vocab_size=50257, hidden_size=768, num_layers=12, num_heads=12, max_positions=1024)
GPT2_XL = ModelConfig.gpt2(vocab_size=50257, hidden_size=1600, num_layers=48, num_heads=25, max_positions=1024)
LLAMA2 = ModelConfig.llama(
    vocab_size=32000, hidden_size=4096, num_layers=32, num_heads=32, ffn_size=11008, max_positions=4096
)
LLAMA3 = ModelConfig.llama(
    vocab_size=128256,
    hidden_size=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    ffn_size=14336,
    max_positions=8192,
)


@pytest.mark.parametrize(
    ("config", "published"),
    [(GPT2, 124_439_808), (GPT2_XL, 1_557_611_200), (LLAMA2, 6_738_415_616), (LLAMA3, 8_030_261_248)],
)
def test_published_parameter_counts(config, published):
    assert flops.count_parameters(config).total == published


def random_config(generator: random.Random) -> ModelConfig:
    heads = generator.choice([1, 2, 4, 6])
    sizes = {
        "vocab_size": generator.randint(2, 99),
        "hidden_size": heads * 2 * generator.randint(1, 5),
        "num_layers": generator.randint(1, 4),
        "num_heads": heads,
        "ffn_size": generator.randint(1, 70),
        "max_positions": generator.randint(8, 40),
        "tie_embeddings": generator.random() < 0.5,
    }
    if generator.random() < 0.4:
        return ModelConfig.gpt2(**sizes)
    return ModelConfig.llama(
        **sizes,
        num_kv_heads=generator.choice([n for n in range(1, heads + 1) if heads % n == 0]),
        head_dim=generator.choice([None, 4, 6]),
        attention_bias=generator.random() < 0.5,
        ffn_bias=generator.random() < 0.5,
    )


@pytest.mark.parametrize("seed", range(30))
def test_counts_equal_the_built_model(seed):
    config = random_config(random.Random(seed))
    with torch.device("meta"):
        model = LanguageModel(config)
    count = flops.count_parameters(config)
    assert count.total == model.num_parameters()
    tables = [name for name, _ in model.named_parameters() if "embed" in name]
    assert count.embedding == sum(model.get_parameter(name).numel() for name in tables)
    assert count.total == count.embedding + count.head + count.non_embedding


def test_published_flops():
    assert flops.forward_flops(GPT2, 1024) == 291_648_307_200
    assert flops.training_flops(GPT2, 1024) == 874_944_921_600
    assert flops.flops_per_token(GPT2, 1024) * 1024 == 874_944_921_600


@pytest.mark.parametrize("seed", range(12))
def test_flops_equal_torch_counter(seed):
    config = random_config(random.Random(seed))
    model = LanguageModel(config)
    ids = torch.zeros(3, 8, dtype=torch.int64)
    # With gradients on: the counter does not know the fused CPU attention of inference.
    with FlopCounterMode(display=False) as forward:
        model.logits(model(ids, Context.dense(ids)))
    assert forward.get_total_flops() == 3 * flops.forward_flops(config, 8)
    with FlopCounterMode(display=False) as both:
        model.logits(model(ids, Context.dense(ids))).sum().backward()
    assert both.get_total_flops() == 3 * flops.training_flops(config, 8)


def test_six_nd_names_its_convention():
    count = flops.count_parameters(GPT2)
    assert flops.six_nd(GPT2, 1000, "kaplan") == 6000 * count.non_embedding
    assert flops.six_nd(GPT2, 1000, "chinchilla") == 6000 * 124_439_808
    with pytest.raises(ConfigError, match="kaplan"):
        flops.six_nd(GPT2, 1000, "all")
