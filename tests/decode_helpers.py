"""Small models with lively outputs, and requests at random, for the tests of decoding and evaluation."""

from __future__ import annotations

import functools

import torch

from lmwright.decode.params import SamplingParams
from lmwright.decode.protocol import Request
from lmwright.model.config import ModelConfig, RopeScaling
from lmwright.model.language_model import LanguageModel
from lmwright.seeds import numpy_generator, torch_generator
from lmwright.text.tokenizer import Tokenizer, train_bpe

VOCAB = 61
SCALING = RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=32)
CONFIGS = {
    "llama-gqa-scaled": ModelConfig.llama(
        vocab_size=VOCAB, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, ffn_size=48,
        max_positions=150, rope_scaling=SCALING, eos_id=0,
    ),
    "llama-mqa-tied": ModelConfig.llama(
        vocab_size=VOCAB, hidden_size=24, num_layers=2, num_heads=3, num_kv_heads=1, head_dim=10, ffn_size=40,
        max_positions=150, tie_embeddings=True, eos_id=0,
    ),
    "gpt2": ModelConfig.gpt2(
        vocab_size=VOCAB, hidden_size=32, num_layers=2, num_heads=4, max_positions=150, eos_id=0
    ),
}  # fmt: skip


@functools.cache
def model(name: str, seed: int = 0) -> LanguageModel:
    """Return a random model whose next token depends on all it has read: no weight is near zero."""
    return random_model(CONFIGS[name], seed)


def random_model(config: ModelConfig, seed: int = 0) -> LanguageModel:
    """Return a model with asymmetric weights, biases and norms included."""
    built = LanguageModel(config)
    generator = torch_generator(seed, "weights")
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * drawn if "norm" in name and name.endswith("weight") else 0.25 * drawn)
    return built


@functools.cache
def tokenizer(vocab_size: int = 280) -> Tokenizer:
    """Return a small byte-level BPE tokenizer."""
    return train_bpe(
        ["the cat sat on the mat and the dog sat on the log, so that it was full " * 3] * 4, vocab_size
    )


def random_request(seed: int, *, longest: int = 80, vocab: int = VOCAB) -> Request:
    """Return a request with a random prompt and random parameters, greedy in one of three cases."""
    rng = numpy_generator(seed, "request")
    prompt = rng.integers(1, vocab, size=rng.integers(1, longest)).tolist()
    params = {
        "max_new_tokens": int(rng.integers(1, 24)),
        "temperature": float(rng.choice([0.0, 0.7, 1.3])),
        "top_k": int(rng.choice([0, 5])),
        "top_p": float(rng.choice([1.0, 0.8])),
        "min_p": float(rng.choice([0.0, 0.05])),
        "repetition_penalty": float(rng.choice([1.0, 1.2])),
        "seed": int(rng.integers(0, 2**40)),
    }
    return Request(prompt_ids=prompt, params=SamplingParams(**params))


def logits_of(network: LanguageModel, ids: list[int]) -> torch.Tensor:
    """Return logits_TV of one plain forward."""
    from lmwright.model.context import Context

    ids_BT = torch.tensor([ids])
    with torch.no_grad():
        return network.logits(network(ids_BT, Context.dense(ids_BT)))[0]
