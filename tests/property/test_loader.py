"""The stream of samples is one, whatever the ranks, the batch sizes, the interruptions."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from data_helpers import random_documents, shard_split
from hypothesis import given
from hypothesis import strategies as st

from lmwright.data.loader import Cursor, Loader
from lmwright.data.order import Streams, permutation
from lmwright.data.pack import plan_blocks, plan_documents
from lmwright.errors import CheckpointError, ConfigError, DataError

SEED = 7


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    split = shard_split(
        tmp_path_factory.mktemp("loader"), [random_documents([30, 9, 50]), random_documents([21, 4, 33])]
    )
    return {"blocks": plan_blocks(split, 8), "documents": plan_documents(split, 12)}


def plain_stream(plan, samples, seed=SEED):
    """The definition, one sample at a time."""
    count = plan.num_sequences
    return [int(permutation(seed, sample // count, count)[sample % count]) for sample in range(samples)]


def step(plan, batch_size, world_size, cursor, seed=SEED):
    """One step of all ranks, each a fresh process: (sample ids in rank order, cursor after it)."""
    found, cursors, rows = [], set(), set()
    for rank in range(world_size):
        loader = Loader(plan, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, cursor=cursor)
        batch = loader.next_batch()
        assert batch.ids_BT.shape[0] == len(batch.sample_ids)
        found += batch.sample_ids
        cursors.add(loader.cursor)
        rows.add(loader.last_rows())
    assert len(cursors) == 1, "all ranks agree on the cursor"
    assert rows == {tuple(found)}, "each rank knows the rows of all"
    return found, cursors.pop()


@pytest.mark.parametrize("kind", ["blocks", "documents"])
@given(
    steps=st.lists(st.tuples(st.integers(4, 23), st.integers(1, 4)), min_size=1, max_size=12),
    seed=st.integers(0, 2**40),
)
def test_stream_is_the_same_for_any_ranks_batches_and_resumes(plans, kind, steps, seed):
    """Every step is a resume: new loaders, another rank count, another batch size; epochs are crossed."""
    plan, cursor, found = plans[kind], Cursor(), []
    for batch_size, world_size in steps:
        samples, cursor = step(plan, batch_size, world_size, cursor, seed)
        assert len(samples) == batch_size
        found += samples
    assert found == plain_stream(plan, cursor.samples, seed)
    assert cursor.samples == sum(batch_size for batch_size, _ in steps)


@pytest.mark.parametrize("kind", ["blocks", "documents"])
def test_every_row_comes_once_an_epoch_and_epochs_differ(plans, kind):
    plan = plans[kind]
    count = plan.num_sequences
    loader = Loader(plan, batch_size=count, seed=SEED)
    epochs = [loader.next_batch().sample_ids for _ in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len(set(epochs)) == 3
    assert loader.epoch == 3


@pytest.mark.parametrize("kind", ["blocks", "documents"])
def test_rows_hold_the_tokens_of_their_sample(plans, kind):
    plan = plans[kind]
    batch = Loader(plan, batch_size=5, seed=SEED).next_batch()
    rows = plan.fetch(np.array(batch.sample_ids))
    for ours, theirs in zip(
        (batch.ids_BT, batch.labels_BT, batch.positions_BT, batch.segments_BT), rows, strict=True
    ):
        assert (ours is None and theirs is None) or np.array_equal(ours.numpy(), theirs)


@given(st.integers(1, 3000), st.integers(0, 2**62), st.integers(0, 50))
def test_order_is_a_permutation_and_a_function_of_seed_and_epoch(count, seed, epoch):
    order = permutation(seed, epoch, count)
    assert sorted(order.tolist()) == list(range(count))
    permutation.cache_clear()
    assert np.array_equal(permutation(seed, epoch, count), order)
    if count > 20:
        assert not np.array_equal(permutation(seed + 1, epoch, count), order)
        assert not np.array_equal(permutation(seed, epoch + 1, count), order)


def test_order_does_not_change_between_versions():
    """Written down once: a change here breaks the resume of every run that exists."""
    assert permutation(1, 0, 10).tolist() == [8, 7, 5, 4, 3, 0, 1, 6, 2, 9]
    assert permutation(1, 1, 10).tolist() == [3, 0, 9, 8, 6, 1, 7, 2, 5, 4]


def test_order_is_uniform_over_places():
    """Each of 6 rows in each of 6 places: 36 counts of mean 500 over 3000 epochs; chi-squared with 25 degrees."""
    counts = np.zeros((6, 6))
    for epoch in range(3000):
        counts[np.arange(6), permutation(3, epoch, 6)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 52.6  # p = 0.001


def test_state_goes_through_json_and_continues_the_stream(plans):
    plan = plans["blocks"]
    whole = Loader(plan, batch_size=4, seed=SEED)
    expected = [whole.next_batch().sample_ids for _ in range(20)]
    for cut in range(20):
        first = Loader(plan, batch_size=4, seed=SEED)
        for _ in range(cut):
            first.next_batch()
        second = Loader(plan, batch_size=4, seed=SEED)
        second.load(json.loads(json.dumps(first.state_dict())))
        assert [second.next_batch().sample_ids for _ in range(20 - cut)] == expected[cut:]


def test_state_of_other_data_seed_or_nonsense_is_refused(plans):
    state = Loader(plans["blocks"], batch_size=4, seed=SEED).state_dict()
    with pytest.raises(CheckpointError, match="was saved with seed 7, but this run has 8"):
        Loader(plans["blocks"], batch_size=4, seed=8).load(state)
    with pytest.raises(CheckpointError, match="other data, context length or packing"):
        Loader(plans["documents"], batch_size=4, seed=SEED).load(state)
    loader = Loader(plans["blocks"], batch_size=4, seed=SEED)
    for samples in (-1, "3", None, 2.0, True):
        with pytest.raises(CheckpointError, match="must be a whole number"):
            loader.load(state | {"samples": samples})
    with pytest.raises(ConfigError, match="must not be negative"):
        Cursor(-1)


def test_ranks_and_batch_sizes_out_of_range_are_refused(plans):
    for options in ({"rank": 2, "world_size": 2}, {"rank": -1, "world_size": 2}, {"rank": 0, "world_size": 0}):
        with pytest.raises(ConfigError, match="rank"):
            Loader(plans["blocks"], batch_size=8, seed=0, **options)
    with pytest.raises(ConfigError, match="at least the number of ranks, 4"):
        Loader(plans["blocks"], batch_size=3, seed=0, rank=0, world_size=4)


def test_fewer_rows_than_a_batch_wrap_around_epochs(tmp_path):
    plan = plan_blocks(shard_split(tmp_path, [random_documents([20])]), 8)
    assert plan.num_sequences == 2
    loader = Loader(plan, batch_size=7, seed=SEED)
    batches = [loader.next_batch() for _ in range(3)]
    found = [sample for batch in batches for sample in batch.sample_ids]
    assert found == plain_stream(plan, 21)
    assert batches[0].ids_BT.shape == (7, 8)


def test_a_split_too_small_for_one_row_says_what_to_do(tmp_path):
    plan = plan_blocks(shard_split(tmp_path, [[[1, 2, 3]]]), 64)
    with pytest.raises(DataError, match=r"5 tokens give no row of 64.*more text, or a context of at most 4"):
        Loader(plan, batch_size=2, seed=0)
    assert Loader(plan_blocks(plan.split, 4), batch_size=1, seed=0).next_batch().ids_BT.tolist() == [[0, 1, 2, 3]]


def test_documents_of_a_batch_are_named_once(plans, tmp_path):
    loader = Loader(plans["blocks"], batch_size=4, seed=SEED)
    names = loader.documents_of(range(plans["blocks"].num_sequences))
    assert len(names) == len(set(names)) == 6
    assert all(": document " in name for name in names)


@given(
    rows=st.integers(1, 90),
    streams=st.integers(1, 40),
    stretch=st.integers(1, 20),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 9),
)
def test_each_stream_reads_neighbouring_rows_one_a_step_until_all_begin_anew(rows, streams, stretch, seed, epoch):
    """No row twice; none left out but fewer than there are stretches, at the ends."""
    streams = min(rows, streams)
    order = Streams(seed, rows, streams, stretch)
    steps = order.epoch(epoch).reshape(-1, streams)
    goes_on = [order.continues(epoch * order.size + n * streams) for n in range(len(steps))]
    laps = goes_on.count(False)
    assert order.size == steps.size > rows - streams * laps
    assert laps == 1 or order.steps >= stretch
    assert order.steps < 2 * stretch  # or there would be a lap more
    for number, (before, after) in enumerate(itertools.pairwise(steps)):
        assert (after - before == 1).all() or not goes_on[number + 1]
    read = np.sort(steps.ravel())
    assert (np.diff(read) == 1).all()
    assert 0 <= read[0] <= read[-1] < rows


def test_every_row_is_read_in_one_epoch_or_another():
    order = Streams(1, 11, 4, 9)
    assert set(np.concatenate([order.epoch(number) for number in range(20)])) == set(range(11))


def test_the_order_of_streams_does_not_change_between_versions():
    assert Streams(1, 11, 4, 9).epoch(0).tolist() == [9, 3, 5, 7, 10, 4, 6, 8]
    assert Streams(1, 13, 2, 3).epoch(1).tolist() == [9, 0, 10, 1, 11, 2, 3, 6, 4, 7, 5, 8]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_streams_are_the_same_for_any_ranks_and_resumes(plans, world_size, monkeypatch):
    monkeypatch.setattr("lmwright.data.loader.STRETCH", 16)  # two rows
    plan, found, goes_on = plans["blocks"], [], []
    state = Loader(plan, batch_size=4, seed=SEED, streams=True).state_dict()
    for _ in range(12):
        ranks = [
            Loader(plan, batch_size=4, seed=SEED, rank=rank, world_size=world_size, streams=True)
            for rank in range(world_size)
        ]
        batches = []
        for loader in ranks:
            loader.load(json.loads(json.dumps(state)))
            batches.append(loader.next_batch())
        found += [sample for batch in batches for sample in batch.sample_ids]
        assert tuple(found[-4:]) == ranks[-1].last_rows()
        goes_on += {batch.continues for batch in batches}
        state = ranks[0].state_dict()
    order = Streams(SEED, plan.num_sequences, 4, 2)
    assert order.laps > 1
    assert found == np.concatenate([order.epoch(number) for number in range(3)])[:48].tolist()
    assert goes_on == [bool(number % order.steps) for number in range(12)]


def test_a_resume_with_other_streams_is_refused(plans):
    def loader(**options):
        return Loader(plans["blocks"], seed=SEED, **options)

    streams, shuffled = loader(batch_size=4, streams=True), loader(batch_size=4)
    with pytest.raises(CheckpointError, match="in 4 streams side by side, and this run reads them in 5 streams"):
        loader(batch_size=5, streams=True).load(streams.state_dict())
    with pytest.raises(CheckpointError, match="in a shuffled order, and this run reads them in 4 streams"):
        streams.load(shuffled.state_dict())
    with pytest.raises(CheckpointError, match="in 4 streams side by side, and this run reads them in a shuffled"):
        shuffled.load(streams.state_dict())
