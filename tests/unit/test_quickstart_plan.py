"""The quickstart's mini ladder: how large it is for which run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmwright.recipes import ladder_plan, quickstart_plan
from lmwright.recipes.ladder_plan import Ladder
from lmwright.recipes.quickstart_plan import BATCH, Mini

MINI = Mini(tokens=4e5, minutes=2.0, run=8e6)


def corpus(tokens: int) -> Any:
    """Stand for a corpus of so many tokens."""
    facts = SimpleNamespace(train=SimpleNamespace(tokens=tokens))
    tokenizer = SimpleNamespace(vocab_size=4096, bos_id=None, eos_id=0)
    return SimpleNamespace(directory=Path("corpus"), facts=facts, tokenizer=tokenizer)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    def ask(mini: Mini, tokens: int = 10**9, *, minutes: float | None = None, steps: int | None = None) -> Ladder:
        found: list[Ladder] = []
        monkeypatch.setattr(quickstart_plan, "ladder", lambda given, out, **more: found.append(given))
        given: Any = {"minutes": minutes, "steps": steps, "seed": 7}
        quickstart_plan.climb(mini, corpus(tokens), Path("nowhere"), **given, say=print)
        assert found[0].seeds == (7,), "the ladder's runs have the seed of the run"
        return found[0]

    return ask


def test_a_shorter_run_has_a_shorter_ladder_and_a_longer_one_the_same(asked: Any) -> None:
    tokens = {minutes: asked(MINI, minutes=minutes).tokens for minutes in (0.5, 1, 2, 30)}
    assert tokens == {0.5: 1e5, 1: 2e5, 2: 4e5, 30: 4e5}
    steps = round(2e6 / (BATCH * 256))
    assert asked(MINI, steps=steps).tokens == pytest.approx(1e5, rel=0.01)
    assert asked(MINI, steps=10**9).tokens == 4e5


def test_no_run_of_the_ladder_repeats_its_text_where_the_text_is_enough_for_it(asked: Any) -> None:
    made = asked(MINI, 100_000, minutes=2)
    assert made.tokens * 2 ** (made.lengths - 1) == 100_000


@pytest.mark.parametrize("minutes", [1e-3, 2.0])
def test_every_size_of_the_ladder_has_a_decay(asked: Any, minutes: float) -> None:
    made = asked(Mini(), minutes=minutes)
    trunks = ladder_plan.trunks(made, corpus(10**9))
    assert len({trunk.config for trunk in trunks}) == len(Mini().sizes)
    for trunk in trunks:
        assert trunk.unit >= ladder_plan.FEWEST_UNITS
        assert trunk.tokens(0) == pytest.approx(made.tokens, rel=0.2)


def test_a_short_text_is_cut_into_shorter_sequences_for_all(asked: Any) -> None:
    assert asked(MINI, 10**9, minutes=2).context_length == 256
    few = asked(MINI, 8_000, minutes=2).context_length
    assert few < 256
    assert 8_000 // few >= 64
