"""Stop strings: cut before the first that completes, whatever the pieces; hold back no more than needed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmwright.decode.stopping import StopMatcher


def run(stops, pieces):
    matcher = StopMatcher(stops)
    shown = [matcher.push(piece) for piece in pieces]
    return shown, matcher.finish(), matcher.found


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "rest", "found"),
    [
        (["END"], ["aE", "N", "Db"], ["a", "", ""], "", "END"),
        (["END"], ["aE", "N", "x"], ["a", "", "ENx"], "", None),
        (["END"], ["aEN"], ["a"], "EN", None),
        (["bc", "abcd"], ["xabcd"], ["xa"], "", "bc"),  # completes first, though it begins later
        (["bc", "abc"], ["xabc"], ["x"], "", "abc"),  # both complete here: the longer
        (["aab"], ["a", "a", "a", "b"], ["", "", "a", ""], "", "aab"),
        ([], ["a", "b"], ["a", "b"], "", None),
        (["x"], ["axb", "c"], ["a", ""], "", "x"),
    ],
)
def test_examples(stops, pieces, shown, rest, found):
    assert run(stops, pieces) == (shown, rest, found)


def naive(stops, text):
    """Return the text before the stop string that completes first, and that string, character by character."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.lists(st.text("abc", max_size=4), max_size=8),
)
def test_any_cut_of_the_text_gives_the_same(stops, pieces):
    shown, rest, found = run(stops, pieces)
    assert ("".join(shown) + rest, found) == naive(stops, "".join(pieces))
    if found is None:
        for count in range(len(pieces) + 1):
            so_far, held = "".join(pieces[:count]), len("".join(pieces[:count])) - len("".join(shown[:count]))
            assert held == 0 or any(stop.startswith(so_far[-held:]) for stop in stops)
