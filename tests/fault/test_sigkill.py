"""SIGKILL at chosen events, many inside a save, and at random times; the run is resumed until it is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import make_corpus

PROGRAM = Path(__file__).with_name("kill_runs.py")


@pytest.mark.parametrize(("seed", "kills"), [(5, 20), pytest.param(6, 50, marks=pytest.mark.slow)])
def test_a_run_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path, seed: int, kills: int) -> None:
    corpus = make_corpus(tmp_path)
    line = [sys.executable, str(PROGRAM), str(corpus), str(tmp_path), str(seed), str(kills)]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["equal"]
    assert found["kills"] >= kills
    assert 3 * found["inside"] >= found["kills"]
