"""Real disks that are full or read-only, and every file of a checkpoint damaged in every way."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import make_corpus, settings

from lmwright.recipes.opening import find_model
from lmwright.recipes.pretrain import pretrain
from lmwright.runs import RunDirectory
from lmwright.train import checkpoint

PROGRAM = Path(__file__).with_name("disk_runs.py")
OWN_MOUNTS = ["unshare", "--mount", "--map-root-user"]


@functools.cache
def may_mount() -> bool:
    """Whether this user may mount a file system in a namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    line = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(line, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("disk"))


def quiet(text: str) -> None:
    """Say nothing."""


def commands(scenario: str, corpus: Path, place: Path) -> list[dict[str, Any]]:
    """Play a scenario of disk_runs on a file system of its own; return what it printed."""
    if not may_mount():
        pytest.skip("this user may not mount a file system in a namespace of its own")
    line = [*OWN_MOUNTS, sys.executable, str(PROGRAM), scenario, str(corpus), str(place)]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_one_line(found: dict[str, Any], *words: str) -> None:
    """The command failed with exit code 1 and one line that holds these words."""
    assert found["code"] == 1
    assert len(found["told"]) == 1
    for word in words:
        assert word in found["told"][0]


def test_a_disk_that_fills_up_during_saves_costs_the_save_alone(corpus: Path, tmp_path: Path) -> None:
    *failed, resumed, _, outcome = commands("full_during_saves", corpus, tmp_path)
    assert len(failed) == 4
    for found in failed:
        assert_one_line(found, "step-000006", "No space left on device")
        assert found["sound"] == found["left"] == ["step-000003"]
    assert resumed["code"] == 0
    assert outcome["equal"]


def test_a_full_disk_at_the_start_is_told_and_the_run_can_be_begun_later(corpus: Path, tmp_path: Path) -> None:
    refused, begun = commands("full_at_the_start", corpus, tmp_path)
    assert_one_line(refused, str(tmp_path / "run"), "the disk has 0.0 MiB")
    assert begun["code"] == 0


def test_a_log_that_cannot_be_written_ends_the_run_and_loses_nothing(corpus: Path, tmp_path: Path) -> None:
    failed, resumed, outcome = commands("full_log", corpus, tmp_path)
    assert_one_line(failed, "metrics.jsonl", "No space left on device")
    assert failed["sound"] == failed["left"] == ["step-000030"]
    assert resumed["code"] == 0
    assert outcome["equal"]


def test_checkpoints_that_become_read_only_cost_the_save_alone(corpus: Path, tmp_path: Path) -> None:
    failed, resumed = commands("read_only_checkpoints", corpus, tmp_path)
    assert_one_line(failed, "step-000006", "Read-only file system")
    assert failed["sound"] == failed["left"] == ["step-000003"]
    assert resumed["code"] == 0
    assert resumed["sound"] == ["step-000006", "step-000009"]


def test_a_run_on_a_read_only_disk_can_be_read_and_not_written(corpus: Path, tmp_path: Path) -> None:
    trained, *refused, generated, evaluated, reported = commands("read_only_run", corpus, tmp_path)
    assert trained["code"] == 0
    assert len(refused) == 3
    for found in refused:
        assert_one_line(found, "Read-only file system")
        assert found["sound"] == ["step-000003"]
    assert [found["code"] for found in (generated, evaluated, reported)] == [0, 0, 0]


def test_any_file_missing_or_damaged_leads_to_the_checkpoint_before(corpus: Path, tmp_path: Path) -> None:
    pretrain(settings(corpus, ema_decay=0.9), tmp_path / "run", where="test", say=quiet)
    run = RunDirectory(tmp_path / "run")
    last = run.checkpoints / "step-000012"
    files = sorted(path for path in last.rglob("*") if path.is_file())
    assert len(files) >= 8
    for file in files:
        whole = file.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        for damaged in (None, b"", whole[:-2], whole[:middle], flipped):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            said: list[str] = []
            found = checkpoint.newest(run, said.append)
            assert found == run.checkpoints / "step-000009", (file.name, damaged)
            assert len(said) == 1
            # A manifest with another hash in it blames the file of that hash, which may be one of the state.
            manifest = file.name == "MANIFEST.json"
            assert (last.name if manifest else file.name) in said[0]
            if file.parent == last and not manifest:
                assert find_model(run.path, warn=said.append) == found
            file.write_bytes(whole)
    assert checkpoint.newest(run, quiet) == last


def test_the_best_checkpoint_is_kept_beside_the_newest(corpus: Path, tmp_path: Path) -> None:
    rising = {"optimizer": {"name": "adamw", "lr": 30.0}, "schedule": {"name": "constant", "warmup_steps": 19}}
    chosen = settings(corpus, eval_every=2, checkpoint_every=2, steps=20, **rising)
    pretrain(chosen, tmp_path / "run", where="test", say=quiet)
    run = RunDirectory(tmp_path / "run")
    losses = {record["step"]: record["loss"] for record in run.metrics() if record["kind"] == "evaluation"}
    best = min(losses, key=lambda step: losses[step])
    assert best < 18, "the rate only rises, so that the best is not among the newest"
    assert (run.path / "best").read_text() == f"{checkpoint.name_of(best)}\n"
    assert [path.name for path in checkpoint.steps(run)] == [checkpoint.name_of(step) for step in (best, 18, 20)]
