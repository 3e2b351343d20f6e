"""Shards cut anywhere or altered anywhere: refused with our error, or, in the tokens, found by the checksum."""

from __future__ import annotations

import pytest
from data_helpers import random_documents, write_shard
from hypothesis import given
from hypothesis import strategies as st

from lmwright.data.shards import HEADER, Shard
from lmwright.errors import DataError

SIZE = HEADER.size + 8 * 8 + 8 * 7  # 31 two-byte tokens padded to 64 bytes, 4 offsets, 3 lengths


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_shard(tmp_path_factory.mktemp("shards") / "whole.lmw", random_documents([12, 0, 15]))


def refused(path, data, *, verify=False):
    """Whether opening ends in our error, which names the file; any other exception fails the test."""
    path.write_bytes(data)
    try:
        Shard.open(path, verify=verify)
    except DataError as error:
        return str(error).startswith(f"{path}: ")
    return False


@given(keep=st.integers(0, SIZE - 1))
def test_every_prefix_is_refused(whole, keep):
    data = whole.read_bytes()
    assert len(data) == SIZE
    assert refused(whole.with_name("cut.lmw"), data[:keep])


@given(more=st.binary(min_size=1, max_size=40))
def test_bytes_after_the_end_are_refused(whole, more):
    assert refused(whole.with_name("long.lmw"), whole.read_bytes() + more)


@given(position=st.integers(0, HEADER.size - 1), value=st.integers(1, 255))
def test_every_altered_byte_of_the_header_is_refused_on_opening(whole, position, value):
    data = bytearray(whole.read_bytes())
    data[position] ^= value
    assert refused(whole.with_name("header.lmw"), data)


@given(start=st.integers(0, HEADER.size - 1), patch=st.binary(min_size=1, max_size=80))
def test_any_patch_over_the_header_is_refused_on_opening(whole, start, patch):
    data = bytearray(whole.read_bytes())
    data[start : min(start + len(patch), HEADER.size)] = patch[: HEADER.size - start]
    assert refused(whole.with_name("patch.lmw"), data) or bytes(data) == whole.read_bytes()


@given(position=st.integers(HEADER.size, SIZE - 1), bit=st.integers(0, 7))
def test_every_flipped_bit_of_the_content_is_found_by_the_checksum(whole, position, bit):
    data = bytearray(whole.read_bytes())
    data[position] ^= 1 << bit
    assert refused(whole.with_name("flip.lmw"), data, verify=True)


@given(data=st.binary(max_size=400))
def test_any_bytes_behind_the_magic_are_refused(whole, data):
    assert refused(whole.with_name("any.lmw"), b"LMWSHARD" + data)
