"""The distribution against hand-made supports, and the sampler against exact enumeration (chi-square)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from lmwright.decode.distribution import distribution, sample
from lmwright.decode.params import SamplingParams
from lmwright.errors import CheckpointError, RequestError
from lmwright.seeds import torch_generator

DRAWS = 100_000
METHODS = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 4},
    {"top_p": 0.7},
    {"min_p": 0.15},
    {"repetition_penalty": 1.8},
    {"temperature": 1.4, "top_k": 9, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
]


def support(probs, **params):
    """Return the ids that can be drawn when the model's probabilities are `probs`."""
    logits = torch.tensor([probs], dtype=torch.float64).log().float()
    return set(distribution(logits, SamplingParams(**params))[0].nonzero().flatten().tolist())


def test_top_k_keeps_all_that_tie_with_the_last():
    probs = [0.1, 0.3, 0.2, 0.2, 0.2]
    assert support(probs, top_k=1) == {1}
    assert support(probs, top_k=2) == {1, 2, 3, 4}
    assert support(probs, top_k=4) == {1, 2, 3, 4}
    assert support(probs, top_k=5) == support(probs, top_k=0) == support(probs, top_k=99) == set(range(5))


def test_top_p_keeps_the_token_that_crosses():
    probs = [0.1, 0.4, 0.3, 0.2]
    assert support(probs, top_p=0.39) == {1}
    assert support(probs, top_p=0.41) == {1, 2}
    assert support(probs, top_p=0.69) == {1, 2}
    assert support(probs, top_p=0.71) == {1, 2, 3}
    assert support(probs, top_p=1e-9) == {1}
    assert support(probs, top_p=1) == {0, 1, 2, 3}


def test_min_p_is_relative_to_the_most_likely():
    probs = [0.05, 0.4, 0.3, 0.25]
    assert support(probs, min_p=0.7) == {1, 2}
    assert support(probs, min_p=0.6) == {1, 2, 3}
    assert support(probs, min_p=0.1) == {0, 1, 2, 3}
    assert support(probs, min_p=1) == {1}


def test_top_p_measures_what_temperature_and_top_k_left():
    probs = [0.5, 0.3, 0.1, 0.1]
    assert support(probs, top_p=0.6) == {0, 1}
    assert support(probs, top_p=0.6, top_k=2) == {0}  # 0.5 of 0.8 is 0.625
    assert support(probs, top_p=0.6, temperature=0.5) == {0}  # 0.25 of 0.36 is 0.69


@pytest.mark.parametrize("more", [{}, {"top_p": 0.5}, {"top_k": 3}, {"min_p": 0.9}])
def test_greedy_is_one_token_and_the_lowest_of_equals(more):
    logits = torch.tensor([[1.0, 4.0, 4.0, 0.0], [2.0, 1.0, 0.0, 2.0]])
    probs = distribution(logits, SamplingParams(temperature=0, **more))
    assert torch.equal(probs, torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))


def test_repetition_penalty_counts_a_token_once_and_needs_the_history():
    params = SamplingParams(repetition_penalty=2.0)
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    expected = torch.tensor([[1.0, -2.0, 0.5]]).softmax(dim=-1)
    assert torch.equal(distribution(logits, params, [[0, 0, 1, 1]]), expected)
    with pytest.raises(RequestError, match="repetition_penalty needs the tokens so far"):
        distribution(logits, params)


def test_computes_in_fp32_from_bf16():
    logits = torch.randn(3, 11, generator=torch_generator(0)).bfloat16()
    assert torch.equal(distribution(logits, SamplingParams()), logits.float().softmax(dim=-1))


@pytest.mark.parametrize("row", [[math.nan, 1.0], [math.inf, 1.0], [-math.inf, -math.inf]])
def test_refuses_logits_without_a_next_token(row):
    with pytest.raises(CheckpointError, match="row 1"):
        distribution(torch.tensor([[0.0, 1.0], row]), SamplingParams())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_draws_follow_exact_enumeration(method):
    """Chi-square, p > 0.001 over 100,000 draws, against probabilities enumerated in float64 by hand."""
    logits = torch.randn(1, 16, generator=torch_generator(5, "logits")) * 1.5
    history = [3, 3, 7]
    expected = enumerate_probabilities(logits[0].double().numpy(), history, **method)
    probs = distribution(logits, SamplingParams(**method), [history])
    one = torch_generator(11, str(method))
    drawn = sample(probs.expand(DRAWS, -1), [one] * DRAWS)
    counts = np.bincount(drawn.numpy(), minlength=16)
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    assert chisquare(counts[kept], expected[kept] * DRAWS).pvalue > 0.001


def enumerate_probabilities(
    logits, history, *, repetition_penalty=1.0, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0
):
    """Return the distribution by sorting and adding, token after token, in float64."""
    scores = dict(enumerate(logits.tolist()))
    for token in set(history):
        positive = scores[token] > 0
        scores[token] = scores[token] / repetition_penalty if positive else scores[token] * repetition_penalty
    masses = {token: math.exp(score / temperature) for token, score in scores.items()}
    ranked = sorted(masses, key=lambda token: -masses[token])
    ranked = ranked[:top_k] if top_k else ranked
    total, taken, nucleus = sum(masses[token] for token in ranked), 0.0, []
    for token in ranked:
        if taken < top_p * total:
            nucleus.append(token)
        taken += masses[token]
    kept = [token for token in nucleus if masses[token] >= min_p * masses[ranked[0]]]
    total = sum(masses[token] for token in kept)
    return np.array([masses[token] / total if token in kept else 0.0 for token in range(len(logits))])


def test_each_row_draws_from_its_own_stream():
    probs = torch.rand(5, 40, generator=torch_generator(2))
    together = sample(probs, [torch_generator(seed, "row") for seed in range(5)])
    alone = [sample(probs[row : row + 1], [torch_generator(row, "row")]).item() for row in range(5)]
    assert together.tolist() == alone


def test_never_draws_what_has_no_probability():
    probs = torch.zeros(1, 7)
    probs[0, 3] = 1e-30
    one = torch_generator(0)
    assert set(sample(probs.expand(1000, -1), [one] * 1000).tolist()) == {3}


@pytest.mark.parametrize(("uniform", "drawn"), [(0.0, 1), (1 - 2**-53, 3)])
def test_the_extreme_uniform_numbers_draw_the_first_and_the_last_possible_token(monkeypatch, uniform, drawn):
    one = torch_generator(0)
    probs = torch.rand(2000, 5, generator=one) + 0.01
    probs[:, [0, 4]] = 0
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: torch.tensor(uniform, dtype=torch.float64))
    assert set(sample(probs, [one] * 2000).tolist()) == {drawn}
    assert set(sample(probs.softmax(-1) * (probs > 0), [one] * 2000).tolist()) == {drawn}
