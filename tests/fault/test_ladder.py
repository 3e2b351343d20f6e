"""A real ladder of two sizes and two lengths: killed, resumed, and each run the one that it claims to be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import make_corpus, weights

from lmwright.cli import main as cli
from lmwright.data.build import Corpus
from lmwright.recipes import ladder_plan
from lmwright.recipes.ladder import asked_before
from lmwright.recipes.pretrain import pretrain
from lmwright.report import catalog, run_points

SIZES = ["--sizes", "35k,110k"]
SHAPE = ["--lengths", "2", "--context", "32", "--tokens-per-parameter", "0.05", "--sweep", "0", "--workers", "2"]


def quiet(text: str) -> None:
    """Say nothing."""


def wait_until_still(out: Path) -> None:
    """Wait until the processes of a killed ladder have stopped themselves."""
    for _ in range(600):
        if not any(entry.state == "running" for entry in catalog.find([out])):
            return
        time.sleep(0.1)
    raise AssertionError("a run goes on though its ladder was killed")


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder that was killed in the midst of its runs, and then begun again by the same command."""
    place = tmp_path_factory.mktemp("ladder")
    corpus, out = make_corpus(place), place / "out"
    line = [sys.executable, "-m", "lmwright", "ladder", "--corpus", str(corpus), "--out", str(out), *SIZES, *SHAPE]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as run:
        assert run.stdout is not None
        for said in run.stdout:
            if said.startswith("[2/8]"):
                os.kill(run.pid, signal.SIGKILL)
                break
    wait_until_still(out)
    done = [entry.path for entry in catalog.find([out]) if entry.state == "finished"]
    assert 2 <= len(done) < 8
    before = {path: (path / "metrics.jsonl").read_bytes() for path in done}
    assert cli.run(line[3:]) == 0
    assert {path: (path / "metrics.jsonl").read_bytes() for path in done} == before  # left alone
    return out


def test_a_run_of_a_killed_ladder_is_the_run_of_its_own_length(climbed: Path, tmp_path: Path) -> None:
    asked = asked_before(climbed)
    trunks = ladder_plan.trunks(asked, Corpus.open(Path(asked.corpus)))
    for trunk, number in ((trunks[0], 1), (trunks[1], 0)):
        whole = trunk.run_file(
            asked.corpus,
            steps=trunk.steps(number),
            schedule=trunk.decaying(number),
            rate=trunk.settings.learning_rate,
        )
        pretrain(whole, tmp_path / trunk.name, where="test", say=quiet)
        assert weights(climbed / "runs" / trunk.run_name(number)) == weights(tmp_path / trunk.name)


def test_the_runs_are_points_of_a_law(climbed: Path) -> None:
    record = json.loads((climbed / "ladder.json").read_text())
    points = run_points.measured([climbed / "runs"], convention="chinchilla")
    assert points.finished.all()
    found = sorted(zip(points.parameters, points.tokens, points.loss, points.flops, strict=True))
    asked = sorted((run["parameters"], run["tokens"], run["loss"], run["flops"]) for run in record["runs"])
    assert found == [pytest.approx(row) for row in asked]
    assert len(set(points.run)) == 2  # a trunk is one run to the bootstrap
    for name in ("35k", "110k"):
        short, long = sorted(
            (run["tokens"], run["loss"]) for run in record["runs"] if run["path"].startswith(f"runs/{name}-")
        )
        assert long[0] == 2 * short[0]
        assert long[1] < short[1]


def test_nothing_is_left_to_do(climbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ladder", "--out", str(climbed), "--resume"]) == 0
    assert capsys.readouterr().out.count("was done") == 8
    asked = asked_before(climbed).corpus
    assert cli.run(["ladder", "--out", str(climbed), "--corpus", asked, *SIZES, *SHAPE, "--seeds", "4"]) == 2
    assert "begun with seeds" in capsys.readouterr().err


def test_the_jobs_run_on_a_ray_of_this_machine(tmp_path: Path) -> None:
    """In a process of its own, for Ray leaves threads and warnings behind."""
    pytest.importorskip("ray")
    line = [sys.executable, "-m", "lmwright", "ladder", "--corpus", str(make_corpus(tmp_path)), "--on", "ray"]
    more = ["--out", str(tmp_path / "out"), *SHAPE, "--sizes", "35k"]
    found = subprocess.run([*line, *more], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    points = run_points.measured([tmp_path / "out" / "runs"], convention="chinchilla")
    assert points.finished.all()
    assert len(points.loss) == 2


def test_without_ray_one_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    corpus = make_corpus(tmp_path)
    line = ["ladder", "--corpus", str(corpus), "--out", str(tmp_path / "out"), *SIZES, *SHAPE, "--on", "ray"]
    assert cli.run(line) == 1
    said = capsys.readouterr().err
    assert said == "lmwright: ray is not installed; install lmwright[ray], or let the jobs run in processes\n"
    assert not (tmp_path / "out").exists()
