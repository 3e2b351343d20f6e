"""SIGTERM and SIGINT: the state is saved, one line says how to go on, and what follows is as if uninterrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import make_corpus, settings, weights

import lmwright.recipes.pretrain as recipe
from lmwright import objectives
from lmwright.errors import Interrupted
from lmwright.objectives import causal
from lmwright.recipes import pretrain_parts
from lmwright.recipes.pretrain import pretrain, resume
from lmwright.runs import RunDirectory
from lmwright.train.average import WeightAverage
from lmwright.train.signals import Stopped, StopSignals


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("signals"))


def quiet(text: str) -> None:
    """Say nothing."""


def test_sigterm_saves_and_exits_143_within_ten_seconds(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["training.threads=1", "training.eval_every=0", "training.checkpoint_every=0", "training.steps=100000"]
    sizes = ["architecture.hidden_size=32", "architecture.num_heads=2", "data.context_length=16"]
    line = [
        sys.executable,
        "-m",
        "lmwright",
        "pretrain",
        *words,
        *sizes,
        "--corpus",
        str(corpus),
        "--out",
        str(run),
    ]
    with subprocess.Popen(
        line,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        wait_for_steps(run, process)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
        assert time.monotonic() - start < 10
    assert process.returncode == 143
    assert said.count("\n") == 1
    assert f"lmwright pretrain --out {run} --resume" in said
    saved = (run / "latest").read_text().strip()
    steps = [record["step"] for record in RunDirectory(run).metrics() if record["kind"] == "step"]
    assert saved == f"step-{steps[-1]:06d}"


def wait_for_steps(run: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    metrics = run / "metrics.jsonl"
    while not metrics.is_file() or metrics.read_text().count('"step"') < 5:
        assert time.monotonic() < end, "no step in a minute"
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_signal_inside_a_step_leaves_the_step_undone(
    number: int, name: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(settings(corpus), tmp_path / "straight", where="test", say=quiet)
    calls = [0]

    def loss(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 14:  # the second of three micro-batches of step 5
            os.kill(os.getpid(), number)
        return causal.loss(*arguments)

    run = tmp_path / "run"
    real = recipe._train

    def train(*arguments: Any) -> Any:
        monkeypatch.setattr(objectives, "load", lambda *_, **__: loss)
        return real(*arguments)

    monkeypatch.setattr(recipe, "_train", train)
    with pytest.raises(Interrupted, match="after step 4 of 12") as stopped:
        pretrain(settings(corpus), run, where="test", say=quiet)
    assert stopped.value.signum == number
    assert (run / "latest").read_text() == "step-000004\n"
    resume(run, say=quiet)
    assert weights(run) == weights(tmp_path / "straight")


def test_a_signal_inside_an_evaluation_ends_it_and_the_resumed_run_makes_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]

    def evaluation(*arguments: Any) -> Any:
        def evaluate() -> Mapping[str, float]:
            calls[0] += 1
            if calls[0] == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return {"loss": 1.0}

        return evaluate

    monkeypatch.setattr(pretrain_parts, "_evaluation", evaluation)
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match="after step 8 of 12"):
        pretrain(settings(corpus, eval_every=4), run, where="test", say=quiet)
    resume(run, say=quiet)
    evaluated = [record["step"] for record in RunDirectory(run).metrics() if record["kind"] == "evaluation"]
    assert evaluated == [4, 8, 12]


def test_a_signal_outside_leaves_a_mark_and_raises_at_the_next_chance() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        with pytest.raises(Stopped), stop.interruptible():
            pytest.fail("must not be entered")
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    def work() -> None:
        with StopSignals() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.received))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


def test_a_signal_while_averages_are_swapped_saves_the_own_weights(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(corpus, ema_decay=0.8, eval_every=4, checkpoint_every=12)
    pretrain(chosen, tmp_path / "straight", where="test", say=quiet)
    real, calls = WeightAverage._copy, [0]

    def copy(self: WeightAverage, values: Any) -> None:
        for number, (name, weight) in enumerate(self._weights().items()):
            weight.copy_(values[name])
            if calls[0] == 1 and number == 3:  # while the own values are put back, at step 4
                calls[0] += 1
                os.kill(os.getpid(), signal.SIGTERM)
        calls[0] += 1

    monkeypatch.setattr(WeightAverage, "_copy", copy)
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match="after step 4 of 12"):
        pretrain(chosen, run, where="test", say=quiet)
    monkeypatch.setattr(WeightAverage, "_copy", real)
    resume(run, say=quiet)
    assert weights(run) == weights(tmp_path / "straight")
