"""A program for test_sigkill: trains in forked children that are killed, for real, until the run is done.

kill_runs.py CORPUS WORK SEED. Each child is killed (SIGKILL, so nothing is cleaned up) either at its n-th event,
where an event is a sync, a rename, a file of tensors written, a directory removed or an update begun, or by its
parent after a random time. Prints a JSON line: kills, kills inside a save, and whether all weights are equal.
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
    """Counts events and kills its own process at the n-th."""

    def __init__(self, at: int, note: Path) -> None:
        self.left = at
        self.note = note
        self.saving = False

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that calling it is an event."""

        def wrapped(*arguments: Any, **names: Any) -> Any:
            self.left -= 1
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


def main(corpus: Path, work: Path, seed: int) -> None:
    """Kill a run again and again until it is through; compare with one that was left alone."""
    chosen = settings(corpus, checkpoint_every=1, steps=16)
    recipe.pretrain(chosen, work / "straight", where="test", say=quiet)
    run, note, choose = work / "killed", work / "note", random.Random(seed)
    recipe.pretrain({**chosen, "training": {**chosen["training"]}}, run, where="test", say=quiet)
    shutil.rmtree(run / "checkpoints")  # as after a kill before the first checkpoint: same plan, no state
    (run / "latest").unlink()
    kills, inside = 0, 0
    for attempt in range(200):
        killer = Killer(choose.randrange(2, 60), note)

        def resume(killer: Killer = killer, timed: bool = attempt % 4 == 3) -> None:
            if not timed:
                killer.install()
            recipe.resume(run, say=quiet)
            os._exit(0)

        note.unlink(missing_ok=True)
        status = in_child(resume, kill_after=choose.uniform(0.01, 0.3) if attempt % 4 == 3 else None)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"a resume failed with {os.WEXITSTATUS(status)}"
            break
        kills += 1
        inside += note.exists() and note.read_text() == "save"
    equal = weights(run) == weights(work / "straight")
    print(json.dumps({"kills": kills, "inside": inside, "equal": equal, "done": os.WIFEXITED(status)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
