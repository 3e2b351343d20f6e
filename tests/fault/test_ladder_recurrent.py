"""A ladder of LSTMs: its runs take the state along from the trunk they begin in, and are points of a law."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import make_corpus, weights

from lmwright.cli import main as cli
from lmwright.data.build import Corpus
from lmwright.recipes import ladder_plan
from lmwright.recipes.ladder import asked_before
from lmwright.recipes.pretrain import pretrain
from lmwright.report import run_points


@pytest.mark.slow
def test_each_run_is_the_run_of_its_own_length_and_a_point_of_a_law(tmp_path: Path) -> None:
    corpus, out = make_corpus(tmp_path), tmp_path / "out"
    words = ["--family", "lstm", "--sizes", "35k,110k", "--lengths", "1", "--context", "32"]
    more = ["--tokens-per-parameter", "0.05", "--sweep", "0", "--workers", "2"]
    assert cli.run(["ladder", "--corpus", str(corpus), "--out", str(out), *words, *more]) == 0
    asked = asked_before(out)
    trunk = ladder_plan.trunks(asked, Corpus.open(corpus))[0]
    rate, schedule = trunk.settings.learning_rate, trunk.decaying(0)
    whole = trunk.run_file(asked.corpus, steps=trunk.steps(0), schedule=schedule, rate=rate)
    pretrain(whole, tmp_path / "whole", where="test", say=lambda text: None)
    found = weights(out / "runs" / trunk.run_name(0))
    assert "state/carried.safetensors" in found
    assert found == weights(tmp_path / "whole")
    points = run_points.measured([out / "runs"], convention="chinchilla")
    assert points.finished.all()
    assert len(points.loss) == 2
