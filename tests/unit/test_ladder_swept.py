"""A law takes along what its ladder's sweep measured, and a plan by the law goes by it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from data_helpers import corpus_of, sample_texts, small_tokenizer
from scaling_runs import write_run

from lmwright.cli.main import run
from lmwright.config import to_dict
from lmwright.data.build import Corpus
from lmwright.errors import DataError
from lmwright.recipes import budget, budget_words, ladder_sweep, ladder_words
from lmwright.recipes.budget_basis import Speed
from lmwright.recipes.ladder_plan import Ladder
from lmwright.recipes.ladder_sweep import Tried
from lmwright.recipes.ladder_swept import with_trials
from lmwright.scaling.fit import Fitted, fit
from lmwright.scaling.points import Points

SPEED = Speed(peak=1e11, device="cpu", precision="fp32", source="by the test")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(corpus_of(tmp_path_factory.mktemp("swept"), sample_texts(60), small_tokenizer()))


@pytest.fixture
def ladder(corpus: Corpus, tmp_path: Path) -> Path:
    """The record of a ladder whose sweep found a third of the prior's rate best, at the prior's batch."""
    asked = Ladder(
        corpus=str(corpus.directory.absolute()), sizes=(35e3,), tokens_per_parameter=2.0, context_length=32
    )
    [trunk] = ladder_sweep.trunks(asked, corpus)
    batch, rate = trunk.settings.batch_size, trunk.settings.learning_rate
    tried = [
        Tried(batch_size=2**turn * batch, learning_rate=rate * 2.0**step / 3, loss=3 + step**2 / 50 + turn**2 / 50)
        for step in (-1, 0, 1)
        for turn in (-1, 0, 1)
    ]
    tried.append(Tried(batch_size=batch, learning_rate=100 * rate, loss=math.inf))
    place = tmp_path / "ladder"
    (place / "runs").mkdir(parents=True)
    record = {"asked": to_dict(asked), "sweep": [ladder_words.swept(trunk, tried)], "runs": []}
    (place / "ladder.json").write_text(json.dumps(record))
    return place


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    size, tokens = (column.ravel() for column in np.meshgrid(np.geomspace(3e4, 1e6, 4), np.geomspace(2e5, 2e7, 4)))
    loss = (1.2 + 60 / size**0.35 + 300 / tokens**0.37) * np.exp(
        0.003 * np.random.default_rng(1).standard_normal(16)
    )
    return fit("chinchilla", Points.of(size, tokens, loss, convention="chinchilla"), draws=30)


@pytest.mark.parametrize("source", [".", "runs", "runs/35k", ".."])
def test_a_law_has_the_trials_of_its_ladder_and_is_read_with_them(
    ladder: Path, fitted: Fitted, source: str, tmp_path: Path
) -> None:
    (ladder / "runs" / "35k").mkdir()
    law = with_trials(fitted, [ladder / source, ladder])
    assert len(law.trials) == 9, "each once, and none that diverged"
    assert Fitted.from_json(law.to_json(), "law.json") == law
    (tmp_path / "points.csv").write_text("")
    assert with_trials(fitted, [tmp_path / "points.csv"]).trials == ()


def test_a_plan_by_the_law_has_the_rate_that_was_measured(
    ladder: Path, fitted: Fitted, corpus: Corpus, tmp_path: Path
) -> None:
    plans = []
    for name, law in (("alone", fitted), ("swept", with_trials(fitted, [ladder]))):
        (tmp_path / name).write_text(law.to_json())
        plans.append(budget.plan("2e11", corpus, law=tmp_path / name, speed=SPEED))
    alone, swept = plans
    assert swept.settings.batch_size == alone.settings.batch_size
    assert swept.settings.learning_rate == pytest.approx(alone.settings.learning_rate / 3, rel=0.25)
    assert swept.settings.learning_rate < 0.5 * alone.settings.learning_rate
    shown = "\n".join(budget_words.lines(swept))
    assert "as measured on 1 size" in next(line for line in shown.splitlines() if line.startswith("rate "))
    assert "not measured here" in "\n".join(budget_words.lines(alone))


def test_the_verb_keeps_them(ladder: Path, tmp_path: Path) -> None:
    for steps in (10, 20, 40, 80):
        write_run(ladder / "runs" / f"s{steps}", steps=steps, loss=3 + 20 / steps, corpus_tokens=1e6)
    out = tmp_path / "law.json"
    assert run(["fit", str(ladder / "runs"), "--draws", "20", "--out", str(out)]) == 0
    assert len(Fitted.from_json(out.read_text(), "law.json").trials) == 9


def test_a_damaged_record_is_named_and_an_older_one_has_no_trials(ladder: Path, fitted: Fitted) -> None:
    place = ladder / "ladder.json"
    record = json.loads(place.read_text())
    record["sweep"][0]["trials"][0]["learning_rate"] = -1.0
    place.write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"ladder\.json: is damaged: sweep: learning_rate -1"):
        with_trials(fitted, [ladder])
    del record["sweep"][0]["scale"]
    place.write_text(json.dumps(record))
    assert with_trials(fitted, [ladder]).trials == ()
