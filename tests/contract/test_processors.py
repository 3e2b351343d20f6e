"""Every file in decode/processors: off by default, per row, keeps a token, agrees with transformers.

A new processor is under test as soon as its file is there; values are drawn from the limits of its field.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lmwright.decode.distribution import distribution
from lmwright.decode.params import SamplingParams
from lmwright.decode.processors import processors
from lmwright.seeds import numpy_generator, torch_generator

NAMES = list(processors())
FIELDS = {field.name: field for field in dataclasses.fields(SamplingParams)}


def values(name, count=40):
    """Return values of the field, its bounds included, spread evenly in the logarithm where the range is wide."""
    field = FIELDS[name]
    limits = field.metadata["limits"]
    rng = numpy_generator(7, name)
    low, high = max(limits.low, 1e-6), min(limits.high, 60)
    drawn = [math.exp(rng.uniform(math.log(low), math.log(high))) for _ in range(count)]
    drawn += [high] if limits.above_low else [limits.low, high]
    drawn += [] if limits.off is None else [limits.off]
    drawn = [int(value) if isinstance(field.default, int) else float(value) for value in drawn]
    return [value for value in drawn if value != field.default]


def logits(seed, rows=6, vocab=23, ties=False):
    drawn = torch.randn(rows, vocab, generator=torch_generator(seed, "logits")) * 3
    return drawn.round() if ties else drawn


def histories(seed, rows=6, vocab=23):
    rng = numpy_generator(seed, "history")
    return [rng.integers(0, vocab, size=rng.integers(0, 12)).tolist() for _ in range(rows)]


def test_the_folder_lists_the_documented_order():
    assert NAMES == ["repetition_penalty", "temperature", "top_k", "top_p", "min_p"]
    assert len({processor.ORDER for processor in processors().values()}) == len(NAMES)
    assert set(NAMES) <= set(FIELDS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ties", [False, True])
def test_keeps_a_token_leaves_its_input_and_treats_rows_alone(name, ties):
    process = processors()[name].process
    for seed, value in enumerate(values(name)):
        given, history = logits(seed, ties=ties), histories(seed)
        before = given.clone()
        result = process(given, value, history)
        assert torch.equal(given, before)
        assert result.dtype == torch.float32
        assert (result > -torch.inf).any(dim=-1).all()
        alone = torch.cat([process(given[row : row + 1], value, [history[row]]) for row in range(len(given))])
        assert torch.equal(result, alone)


@pytest.mark.parametrize("name", NAMES)
def test_is_off_at_its_default(name):
    given, history = logits(1), histories(1)
    params = SamplingParams(**{name: FIELDS[name].default})
    assert torch.equal(distribution(given, params, history), given.softmax(dim=-1))


@pytest.mark.parametrize("name", NAMES)
def test_distribution_normalises_and_rows_have_their_own_params(name):
    for seed, value in enumerate(values(name)):
        given, history = logits(seed), histories(seed)
        params = SamplingParams(**{name: value})
        probs = distribution(given, params, history)
        assert probs.dtype == torch.float32
        torch.testing.assert_close(probs.sum(dim=-1), torch.ones(len(given)))
        mixed = distribution(given, [params, SamplingParams()] * 3, history)
        assert torch.equal(mixed[0::2], probs[0::2])
        assert torch.equal(mixed[1::2], given[1::2].softmax(dim=-1))


def peer(name, value):
    from transformers.generation import logits_process as peers

    kinds = {
        "repetition_penalty": peers.RepetitionPenaltyLogitsProcessor,
        "temperature": peers.TemperatureLogitsWarper,
        "top_k": peers.TopKLogitsWarper,
        "top_p": peers.TopPLogitsWarper,
        "min_p": peers.MinPLogitsWarper,
    }
    return kinds[name](value)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "temperature"])
def test_equals_transformers(name):
    for seed, value in enumerate(values(name)):
        given, history = logits(seed, vocab=64), histories(seed, vocab=64)
        ours = processors()[name].process(given, value, history)
        for row, tokens in enumerate(history):
            ids = torch.tensor([tokens], dtype=torch.long)
            assert torch.equal(ours[row : row + 1], peer(name, value)(ids, given[row : row + 1]))


def test_temperature_equals_transformers_and_zero_is_its_limit():
    given = logits(3)
    for value in (0.3, 1.7, 25.0):
        theirs = peer("temperature", value)(None, given)
        assert torch.equal(processors()["temperature"].process(given, value, []), theirs)
    cold = distribution(given, SamplingParams(temperature=1e-5))
    assert torch.equal(cold, distribution(given, SamplingParams(temperature=0)))


def test_a_chain_equals_transformers():
    from transformers.generation.logits_process import LogitsProcessorList

    for seed in range(30):
        rng = numpy_generator(seed, "chain")
        chosen = {
            "repetition_penalty": float(rng.uniform(0.5, 2)),
            "temperature": float(rng.uniform(0.3, 2)),
            "top_k": int(rng.integers(2, 20)),
            "top_p": float(rng.uniform(0.2, 0.98)),
            "min_p": float(rng.uniform(0.01, 0.4)),
        }
        given, history = logits(seed, vocab=64), histories(seed, vocab=64)
        chain = LogitsProcessorList([peer(name, value) for name, value in chosen.items()])
        ours = distribution(given, SamplingParams(**chosen), history)
        for row, tokens in enumerate(history):
            scores = chain(torch.tensor([tokens], dtype=torch.long), given[row : row + 1])
            assert torch.equal(ours[row : row + 1], scores.softmax(dim=-1))
