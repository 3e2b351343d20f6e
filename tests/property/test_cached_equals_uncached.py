"""With a KV cache and without: the same tokens, exactly, greedy and sampled, for every family."""

from __future__ import annotations

import pytest
from decode_helpers import CONFIGS, model, random_request

from lmwright.decode.protocol import collect
from lmwright.decode.reference import ReferenceGenerator

TRACES = 60


@pytest.mark.parametrize("name", CONFIGS)
def test_random_traces(name):
    requests = [random_request(seed) for seed in range(TRACES)]
    with_cache = collect(requests, ReferenceGenerator(model(name), cached=True).generate(requests))
    without = collect(requests, ReferenceGenerator(model(name), cached=False).generate(requests))
    assert with_cache == without


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_thousand_random_traces(name):
    requests = [random_request(seed, longest=140) for seed in range(1000, 2000)]
    with_cache = collect(requests, ReferenceGenerator(model(name), cached=True).generate(requests))
    without = collect(requests, ReferenceGenerator(model(name), cached=False).generate(requests))
    assert with_cache == without
