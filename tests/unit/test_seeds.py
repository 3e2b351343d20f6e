"""Named streams: fixed for ever, distinct by name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmwright.seeds import derive, numpy_generator, torch_generator


def test_streams_never_change() -> None:
    """A change here would make every earlier run impossible to repeat."""
    assert derive(0, "order", 1) == 8398347229294099518
    assert derive(7) == 3539609894357107485


def test_names_are_not_run_together() -> None:
    assert (
        len({derive(1, "a", "b"), derive(1, "ab"), derive(1, "a", 1), derive(1, "a", "1"), derive(11, "a")}) == 5
    )


@given(st.integers(), st.text())
def test_seeds_fit_63_bits(seed: int, name: str) -> None:
    assert 0 <= derive(seed, name) < 2**63


def test_generators_repeat() -> None:
    assert numpy_generator(3, "x").random() == numpy_generator(3, "x").random()
    assert numpy_generator(3, "x").random() != numpy_generator(3, "y").random()
    assert torch_generator(3, "x").initial_seed() == derive(3, "x")
