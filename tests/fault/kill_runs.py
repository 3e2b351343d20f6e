"""A program for test_sigkill: trains in forked children that are killed, for real, until enough were.

kill_runs.py CORPUS WORK SEED KILLS. Each child is killed (SIGKILL, so nothing is cleaned up) at its n-th event, at
its n-th event inside a save, or by its parent after a random time. An event is a sync, a rename, a file of tensors
written, a directory removed or an update begun. A run that came through is compared with one that was left alone,
and the next is begun, until there were KILLS kills. Prints a JSON line: kills, kills inside a save, runs, whether
all weights are equal.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from tiny_runs import settings, weights

from lmwright.recipes import pretrain as recipe
from lmwright.train import checkpoint
from lmwright.train.optimizers.adamw import AdamW


def quiet(text: str) -> None:
    """Say nothing."""


class Killer:
    """Counts events, or those inside a save alone, and kills its own process at the n-th."""

    def __init__(self, at: int, note: Path, *, inside: bool) -> None:
        self.left = at
        self.note = note
        self.inside = inside
        self.saving = False

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that calling it is an event."""

        def wrapped(*arguments: Any, **names: Any) -> Any:
            self.left -= self.saving or not self.inside
            if self.left < 0:
                self.note.write_text("save" if self.saving else "step")
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **names)

        return wrapped

    def marking(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the save, so that a kill inside it is known as one."""

        def wrapped(*arguments: Any, **names: Any) -> Any:
            self.saving = True
            try:
                return function(*arguments, **names)
            finally:
                self.saving = False

        return wrapped

    def install(self) -> None:
        """Put the events into this process."""
        os.fsync = self.before(os.fsync)
        os.replace = self.before(os.replace)
        os.rename = self.before(os.rename)
        shutil.rmtree = self.before(shutil.rmtree)
        safetensors.torch.save_file = self.before(safetensors.torch.save_file)
        AdamW.step = self.before(AdamW.step)  # type: ignore[method-assign]
        checkpoint.save = self.marking(checkpoint.save)


def in_child(work: Callable[[], None], *, kill_after: float | None = None) -> int:
    """Run `work` in a forked child and return its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(7)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def killed_run(run: Path, note: Path, choose: random.Random) -> tuple[int, int]:
    """Kill the run in `run` again and again until it is through; return the kills, and those inside a save."""
    inside = 0
    for kills in range(200):
        timed = kills % 4 == 3
        killer = Killer(choose.randrange(5, 80), note, inside=kills % 2 == 0)

        def resume(killer: Killer = killer, timed: bool = timed) -> None:
            if not timed:
                killer.install()
            recipe.resume(run, say=quiet)
            os._exit(0)

        note.unlink(missing_ok=True)
        status = in_child(resume, kill_after=choose.uniform(0.01, 0.3) if timed else None)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"a resume failed with {os.WEXITSTATUS(status)}"
            return kills, inside
        inside += note.exists() and note.read_text() == "save"
    raise AssertionError("200 resumes did not end the run")


def main(corpus: Path, work: Path, seed: int, wanted: int) -> None:
    """Kill runs until there were enough kills; compare each with one that was left alone."""
    chosen = settings(corpus, checkpoint_every=1, steps=16, eval_every=4)

    def straight() -> None:
        recipe.pretrain(chosen, work / "straight", where="test", say=quiet)
        os._exit(0)

    # In a child as well: a lock that some thread of this process held would stay locked in every later child.
    assert in_child(straight) == 0
    expected, choose = weights(work / "straight"), random.Random(seed)
    shutil.copytree(work / "straight", work / "begun")
    shutil.rmtree(work / "begun" / "checkpoints")  # as after a kill before the first checkpoint: a plan, no state
    for name in ("latest", "best"):
        (work / "begun" / name).unlink()
    kills, inside, runs, equal = 0, 0, 0, True
    while kills < wanted:
        run = shutil.copytree(work / "begun", work / f"killed-{runs}")
        more, saving = killed_run(run, work / "note", choose)
        equal &= weights(run) == expected
        kills, inside, runs = kills + more, inside + saving, runs + 1
    print(json.dumps({"kills": kills, "inside": inside, "runs": runs, "equal": equal}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
