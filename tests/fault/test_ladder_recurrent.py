"""A ladder of LSTMs: its runs take the state along from the trunk they begin in, and are points of a law."""

from __future__ import annotations

from pathlib import Path

from tiny_runs import make_corpus, weights

from lmwright.cli import main as cli
from lmwright.data.build import Corpus
from lmwright.recipes import ladder_plan
from lmwright.recipes.ladder import asked_before
from lmwright.recipes.pretrain import pretrain
from lmwright.report import run_points


def test_the_run_of_a_lengthened_trunk_is_the_run_of_its_own_length(tmp_path: Path) -> None:
    corpus, out = make_corpus(tmp_path), tmp_path / "out"
    words = ["--family", "lstm", "--sizes", "35k", "--lengths", "2", "--context", "32"]
    more = ["--tokens-per-parameter", "0.05", "--sweep", "0"]
    assert cli.run(["ladder", "--corpus", str(corpus), "--out", str(out), *words, *more]) == 0
    asked = asked_before(out)
    [trunk] = ladder_plan.trunks(asked, Corpus.open(corpus))
    rate, schedule = trunk.settings.learning_rate, trunk.decaying(1)
    whole = trunk.run_file(asked.corpus, steps=trunk.steps(1), schedule=schedule, rate=rate)
    pretrain(whole, tmp_path / "whole", where="test", say=lambda text: None)
    found = weights(out / "runs" / trunk.run_name(1))
    assert "state/carried.safetensors" in found
    assert found == weights(tmp_path / "whole")
    points = run_points.measured([out / "runs"], convention="chinchilla")
    assert points.finished.all()
    assert list(points.tokens) == [trunk.tokens(0), trunk.tokens(1)]
