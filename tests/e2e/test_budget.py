"""One dial: a budget of a few seconds becomes a run, whose end is set beside the law that planned it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_helpers import three_words

from lmwright.cli.main import run
from lmwright.scaling.fit import fit
from lmwright.scaling.points import Points


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and a law that is right about nothing but its form."""
    place = tmp_path_factory.mktemp("dial")
    three_words(place, 200)
    random = np.random.default_rng(4)
    sizes = (column.ravel() for column in np.meshgrid(np.geomspace(3e4, 1e6, 4), np.geomspace(1e4, 1e6, 4)))
    size, tokens = sizes
    loss = (0.5 + 9 / size**0.35 + 40 / tokens**0.37) * np.exp(0.003 * random.standard_normal(len(size)))
    law = fit("chinchilla", Points.of(size, tokens, loss, convention="chinchilla"), draws=40)
    (place / "law.json").write_text(law.to_json())
    return place


def test_a_budget_of_seconds_is_planned_and_trained(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", "--corpus", str(place / "corpus"), "--budget", "2s", "--law", str(place / "law.json")]
    words += ["--precision", "fp32", "--threads", "1", "training.compile=false"]
    assert run([*words, "--dry-run"]) == 0
    assert "weight decay" in capsys.readouterr().out
    out = place / "run"
    assert run([*words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    kept = json.loads((out / "plan.json").read_text())
    config = json.loads((out / "config.json").read_text())
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    plan = kept["budget"]
    assert plan["budget"] == "2s"
    assert plan["steps"] == config["training"]["steps"] == kept["steps"]
    assert plan["tokens"] == plan["steps"] * plan["batch_size"] * plan["context_length"]
    assert plan["learning_rate"] == config["training"]["optimizer"]["lr"]
    assert plan["warmup_steps"] == config["training"]["schedule"]["warmup_steps"]
    assert plan["loss"]["low"] < plan["loss"]["loss"] < plan["loss"]["high"]
    evaluated = [record for record in records if record["kind"] == "evaluation"]
    assert evaluated[-1]["step"] == plan["steps"]
    assert f"{evaluated[-1]['loss']:.4f} nats/token on the validation split, " in said
    assert run([*words, "--out", str(out)]) == 2, "what is there is not replaced"
