"""A split over many shards is one stream: reading any part of it equals reading the plain list."""

from __future__ import annotations

import numpy as np
import pytest
from data_helpers import random_documents, shard_split, stream_of
from hypothesis import given
from hypothesis import strategies as st

DOCUMENTS = random_documents([0, 5, 1, 9, 0, 0, 30, 2, 7, 4])
STREAM = stream_of(DOCUMENTS)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    found = {}
    for size in (1, 2, 3, 10):
        directory = tmp_path_factory.mktemp("split")
        found[size] = shard_split(directory, [DOCUMENTS[n : n + size] for n in range(0, len(DOCUMENTS), size)])
    return found


@given(size=st.sampled_from([1, 2, 3, 10]), ends=st.tuples(*[st.integers(0, len(STREAM))] * 2))
def test_any_range(splits, size, ends):
    start, stop = min(ends), max(ends)
    if start < stop:
        assert splits[size].read(start, stop).tolist() == STREAM[start:stop]


@given(size=st.sampled_from([1, 2, 3, 10]), indices=st.lists(st.integers(0, len(STREAM) - 1), max_size=30))
def test_any_positions(splits, size, indices):
    assert splits[size].take(np.array(indices, dtype=np.int64)).tolist() == [STREAM[n] for n in indices]


@given(size=st.sampled_from([1, 2, 3, 10]), ends=st.tuples(*[st.integers(0, len(STREAM))] * 2))
def test_documents_of_any_range(splits, size, ends):
    """Token by token: a token belongs to the document whose eos comes last before it, the end to the last one."""
    owners = [number for number, ids in enumerate(DOCUMENTS) for _ in range(1 + len(ids))] + [len(DOCUMENTS) - 1]
    start, stop = min(ends), max(ends)
    if start < stop:
        assert sorted(set(owners[start:stop])) == list(splits[size].documents_at(start, stop))


def test_counts_do_not_depend_on_the_shards(splits):
    for split in splits.values():
        assert (split.num_tokens, split.num_documents) == (len(STREAM), len(DOCUMENTS))
        assert split.num_bytes == 3 * sum(map(len, DOCUMENTS))
        assert split.eos_id == 0
