"""A program for test_disk, run in a mount namespace of its own: real full and read-only disks under real runs.

disk_runs.py SCENARIO CORPUS PLACE. Mounts a small file system on PLACE and trains there. Prints a JSON line for
each command that it gave: the exit code, what it wrote to standard error, the checkpoints that are then sound, and
what lies beside them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tiny_runs import settings, weights

from lmwright.cli import main as cli
from lmwright.errors import CheckpointError
from lmwright.runs import RunDirectory, verify_manifest
from lmwright.train import checkpoint

SIZE = 2**25  # the check before a run asks for room for its checkpoints and 16 MiB


def mount(*words: str) -> None:
    """Call mount(8)."""
    subprocess.run(["mount", *words], check=True)


def overrides(table: dict[str, Any], path: str = "") -> list[str]:
    """Return settings as `key=value` words."""
    return [
        word
        for key, value in table.items()
        for word in (
            overrides(value, f"{path}{key}.") if isinstance(value, dict) else [f"{path}{key}={json.dumps(value)}"]
        )
    ]


def command(run: Path, *words: str) -> dict[str, Any]:
    """Run lmwright and say what came of it."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        code = cli.run(list(words))
    sound = []
    for path in checkpoint.steps(RunDirectory(run)):
        with contextlib.suppress(CheckpointError):
            verify_manifest(path)
            sound.append(path.name)
    left = sorted(path.name for path in (run / "checkpoints").iterdir()) if (run / "checkpoints").is_dir() else []
    found = {"code": code, "told": told.getvalue().splitlines(), "sound": sound, "left": left}
    print(json.dumps(found), flush=True)
    return found


def fill(place: Path, free: int) -> Path:
    """Write a file that leaves `free` bytes of the file system."""
    rubbish = place / "rubbish"
    with contextlib.suppress(OSError), open(rubbish, "wb", buffering=0) as file:
        while file.write(b"0" * 4096):
            pass
    os.truncate(rubbish, max(0, rubbish.stat().st_size - free))
    return rubbish


@contextlib.contextmanager
def around_save(
    step: int, *, before: Callable[[], object] = bool, after: Callable[[], object] = bool
) -> Iterator[None]:
    """Let something happen right before and after the save of this step."""
    real = checkpoint.save

    def save(run: RunDirectory, state: Any, **parts: Any) -> Path:
        if state.step == step:
            before()
        written = real(run, state, **parts)
        if state.step == step:
            after()
        return written

    checkpoint.save = save
    try:
        yield
    finally:
        checkpoint.save = real


def full_during_saves(corpus: Path, place: Path) -> None:
    """The disk fills up before a save, each time with room for a little more of it; in the end it is cleared."""
    run, chosen = place / "run", overrides(settings(corpus, steps=9))
    for free in (0, 8192, 24576, 49152):
        words = ["--resume"] if run.exists() else chosen
        with around_save(6, before=partial(fill, place, free)):
            command(run, "pretrain", *words, "--out", str(run))
        (place / "rubbish").unlink()
    command(run, "pretrain", "--resume", "--out", str(run))
    command(run, "pretrain", *overrides(settings(corpus, steps=9)), "--out", str(place / "straight"))
    print(json.dumps({"equal": weights(run) == weights(place / "straight")}))


def full_at_the_start(corpus: Path, place: Path) -> None:
    """There is no room at all; then there is."""
    run, chosen = place / "run", overrides(settings(corpus, steps=3))
    rubbish = fill(place, 0)
    command(run, "pretrain", *chosen, "--out", str(run))
    rubbish.unlink()
    command(run, "pretrain", *chosen, "--out", str(run), "--force")


def full_log(corpus: Path, place: Path) -> None:
    """The disk fills up between two saves, so that the log cannot be written."""
    run, chosen = place / "run", overrides(settings(corpus, steps=60, checkpoint_every=30))
    with around_save(30, after=partial(fill, place, 0)):
        command(run, "pretrain", *chosen, "--out", str(run))
    (place / "rubbish").unlink()
    command(run, "pretrain", "--resume", "--out", str(run))
    records = [record["step"] for record in RunDirectory(run).metrics() if record["kind"] == "step"]
    print(json.dumps({"equal": records == list(range(1, 61))}))


def read_only_checkpoints(corpus: Path, place: Path) -> None:
    """The checkpoints' directory becomes read-only during a run, then writable again."""
    run, chosen = place / "run", overrides(settings(corpus, steps=9))
    inside = str(run / "checkpoints")

    def close() -> None:
        mount("--bind", inside, inside)
        mount("-o", "remount,ro,bind", inside)

    with around_save(6, before=close):
        command(run, "pretrain", *chosen, "--out", str(run))
    mount("-o", "remount,rw,bind", inside)
    command(run, "pretrain", "--resume", "--out", str(run))


def read_only_run(corpus: Path, place: Path) -> None:
    """A whole run lies on a read-only disk: it can be read, but neither resumed nor replaced."""
    run, chosen = place / "run", overrides(settings(corpus, steps=3))
    command(run, "pretrain", *chosen, "--out", str(run))
    mount("-o", "remount,ro", str(place))
    command(run, "pretrain", "--resume", "--out", str(run))
    command(run, "pretrain", *chosen, "--out", str(run), "--force")
    command(run, "pretrain", *chosen, "--out", str(place / "new"))
    command(run, "generate", str(run), "--prompt", "the", "--max-new-tokens", "2")
    command(run, "eval", str(run), "--corpus", str(corpus), "--json")
    command(run, "report", str(run), "--json")


if __name__ == "__main__":
    place = Path(sys.argv[3])
    mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place))
    globals()[sys.argv[1]](Path(sys.argv[2]), place)
