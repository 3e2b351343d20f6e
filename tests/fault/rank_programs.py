"""A program for test_ranks: real runs by several processes that are stopped, killed and made to fail.

rank_programs.py SCENARIO CORPUS WORK. Prints one JSON line with what the scenario found.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed.fsdp  # in the parent, once
from rank_helpers import SECONDS, start, wait
from tiny_runs import recurrent, settings

from lmwright import objectives
from lmwright.data.loader import Loader
from lmwright.errors import DataError
from lmwright.model import weights
from lmwright.model.checkpoint import load_model
from lmwright.objectives import causal
from lmwright.recipes import pretrain as recipe
from lmwright.runs import RunDirectory
from lmwright.train import diagnosis, ranks
from lmwright.train.optimizers.adamw import AdamW

Chosen = dict[str, Any]
PAIRS = 10  # of processes that end; one in three did not end well while a group's thread could free tensors


def quiet(text: str) -> None:
    """Say nothing."""


def plain(corpus: Path, mode: str, **training: Any) -> Chosen:
    """Without dropout, which draws by the micro-batch's first row, so that any split gives the same model."""
    chosen = settings(corpus, parallel=mode, **training)
    for name in ("embedding", "attention", "residual"):
        del chosen["architecture"][f"{name}_dropout"]
    return chosen


def streams(corpus: Path, mode: str, **training: Any) -> Chosen:
    """A recurrent model that takes its state along, without dropout."""
    chosen = recurrent(settings(corpus, parallel=mode, **training))
    del chosen["architecture"]["residual_dropout"]
    return chosen


def watch_samples(place: Path) -> None:
    """Let each update's sample numbers be noted, by rank."""
    real = Loader.next_batch

    def next_batch(self: Loader) -> Any:
        at = self.cursor.samples
        batch = real(self)
        with (place / f"samples-{self.rank}").open("a") as file:
            file.write(json.dumps([at, self.rank, self.world_size, list(batch.sample_ids)]) + "\n")
        return batch

    Loader.next_batch = next_batch  # type: ignore[method-assign]


def cut_after(updates: int) -> None:
    """Kill every process at the update after so many."""
    real, left = AdamW.step, [updates]

    def step(self: AdamW, factor: float) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, factor)

    AdamW.step = step  # type: ignore[method-assign]


def trained(run_directory: Path) -> dict[str, Any]:
    """Losses by step, last weights and validation losses of a run."""
    records = RunDirectory(run_directory).metrics()
    model = load_model(run_directory / "checkpoints" / (run_directory / "latest").read_text().strip())
    return {
        "losses": {record["step"]: record["loss"] for record in records if record["kind"] == "step"},
        "norms": {record["step"]: record["grad_norm"] for record in records if record["kind"] == "step"},
        "validation": [record["loss"] for record in records if record["kind"] == "evaluation"],
        "averaged": [record["average_loss"] for record in records if record["kind"] == "evaluation"],
        "findings": [
            [record["name"], record["step"], record.get("documents")]
            for record in records
            if record["kind"] == "finding"
        ],
        "tokens": [record["tokens"] for record in records if record["kind"] == "step"],
        "weights": np.concatenate([one.detach().numpy().ravel() for one in model.parameters()]),
    }


def other_worlds(corpus: Path, work: Path, mode: str) -> dict[str, Any]:
    """One process, then two, then one, then four, cut off in between; against one process left alone."""
    return changing(corpus, work, mode, 12, [(1, 4), (2, 4), (1, 2), (4, None)])


def few_worlds(corpus: Path, work: Path, mode: str) -> dict[str, Any]:
    """One process, then two, then one, in fewer updates."""
    return changing(corpus, work, mode, 8, [(1, 4), (2, 2), (1, None)])


def few_streams(corpus: Path, work: Path, mode: str) -> dict[str, Any]:
    """The same of a recurrent model: of 20 streams, of which four updates read an epoch.

    Two processes go on in the midst of the first epoch and three in that of the second.
    """
    return changing(corpus, work, mode, 8, [(1, 3), (2, 4), (3, None)], make=streams)


def changing(
    corpus: Path,
    work: Path,
    mode: str,
    steps: int,
    worlds: list[tuple[int, int | None]],
    make: Callable[..., Chosen] = plain,
) -> dict[str, Any]:
    """Train by numbers of processes that are killed after so many updates each, the last ones never.

    The diagnosis fires on anything: at update 5, which two processes make, and at 9, which the last ones do.
    """
    diagnosis.MASKED_WINDOW, diagnosis.MASKED_SHARE = 5, -1.0
    diagnosis.SPIKE_LEAST_WINDOW, diagnosis.SPIKE_NATS, diagnosis.SPIKE_DEVIATIONS = 8, -9.0, -1e9
    chosen = make(corpus, mode, steps=steps, eval_every=steps // 3, ema_decay=0.9, checkpoint_every=steps // 4)
    recipe.pretrain(chosen, work / "straight", where="test", say=quiet)
    place = work / "changing"

    def part(updates: int | None, first: bool) -> Callable[[int], None]:
        def work_of(rank: int) -> None:
            watch_samples(work)
            real = recipe._train

            def train(*arguments: Any) -> Any:  # the trial before the run makes updates, too
                if updates is not None:
                    cut_after(updates)
                return real(*arguments)

            recipe._train = train  # type: ignore[assignment]
            if first:
                recipe.pretrain(chosen, place, where="test", say=quiet)
            else:
                recipe.resume(place, say=quiet)

        return work_of

    codes = [wait(start(world, part(cut, not n))) for n, (world, cut) in enumerate(worlds)]
    ours, theirs = trained(place), trained(work / "straight")
    notes = [json.loads(line) for path in sorted(work.glob("samples-*")) for line in path.read_text().splitlines()]
    return {
        "codes": codes,
        "worlds": [world for world, _ in worlds],
        "samples": notes,
        "losses": [(loss, theirs["losses"][step]) for step, loss in ours["losses"].items()],
        "validation": list(zip(ours["validation"], theirs["validation"], strict=True)),
        "averaged": list(zip(ours["averaged"], theirs["averaged"], strict=True)),
        "tokens": [ours["tokens"], theirs["tokens"]],
        "findings": [ours["findings"], theirs["findings"]],
        "weights": float(np.abs(ours["weights"] - theirs["weights"]).max()),
        "files": sorted(path.name for path in (place / "checkpoints" / f"step-{steps:06d}").iterdir()),
    }


def failing(corpus: Path, work: Path, mode: str) -> dict[str, Any]:
    """Each way in which one process fails alone: how all of them end, and what they say."""
    found = {}
    for name, spoil in SPOILED.items():
        place = work / name
        place.mkdir()

        def work_of(rank: int, place: Path = place, spoil: Callable[[int], None] = spoil) -> None:
            real = recipe._train
            if spoil is hang:
                ranks.TIMEOUT = timedelta(seconds=PATIENCE)

            def train(*arguments: Any) -> Any:
                spoil(rank)
                return real(*arguments)

            recipe._train = train  # type: ignore[assignment]
            begun = time.monotonic()
            try:
                recipe.pretrain(plain(corpus, mode), place / "run", where="test", say=quiet)
                raised = ["nothing", "", False]
            except Exception as error:
                raised = [type(error).__name__, str(error), getattr(error, "told", None)]
            (place / f"rank-{rank}").write_text(json.dumps([*raised, time.monotonic() - begun]))

        codes = wait(start(2, work_of))
        run_directory = place / "run"
        found[name] = {
            "codes": codes,
            "ranks": [
                json.loads(path.read_text()) if (path := place / f"rank-{rank}").exists() else None
                for rank in range(2)
            ],
            "kept": sorted(path.name for path in (run_directory / "checkpoints").iterdir()),
            "steps": [one["step"] for one in RunDirectory(run_directory).metrics() if one["kind"] == "step"],
            "last": RunDirectory(run_directory).metrics()[-1],
        }
    return found


def waiting(corpus: Path, work: Path, mode: str) -> dict[str, Any]:
    """The first process works alone for longer than TIMEOUT: before they are under way, then after."""

    def work_of(rank: int) -> None:
        ranks.TIMEOUT = timedelta(seconds=3)
        told: list[Any] = []
        try:
            with ranks.started() as these:
                told.append(these.once(lambda: time.sleep(5) or "checked"))
                these.under_way()
                told.append(these.once(lambda: time.sleep(5) or "saved"))
        except ranks.ProcessLost as error:
            told.append(type(error).__name__)
        (work / f"rank-{rank}").write_text(json.dumps(told))

    codes = wait(start(2, work_of))
    return {"codes": codes, "ranks": [json.loads((work / f"rank-{rank}").read_text()) for rank in range(2)]}


def ending(corpus: Path, work: Path, mode: str) -> dict[str, Any]:
    """Processes end as programs do, just after they spoke; other threads seldom get Python's lock."""

    def work_of(rank: int) -> None:
        sys.setswitchinterval(SECONDS)
        with ranks.started() as these:
            for _ in range(3):
                these.gather(rank)
        ctypes.pythonapi.Py_Exit(0)

    return {"codes": [wait(start(2, work_of)) for _ in range(PAIRS)]}


def at_call(owner: Any, name: str, number: int, act: Callable[..., Any]) -> None:
    """Do something else at one call of a function; `act` is given the real one."""
    real, calls = getattr(owner, name), [0]

    def wrapped(*arguments: Any, **names: Any) -> Any:
        calls[0] += 1
        return act(real, *arguments, **names) if calls[0] == number else real(*arguments, **names)

    setattr(owner, name, wrapped)


def refuse_batch(rank: int) -> None:
    def act(real: Any, *arguments: Any) -> Any:
        raise DataError("train-00000.lmw: token 7 is out of range")

    if rank == 1:
        at_call(Loader, "next_batch", 5, act)


def refuse_disk(rank: int) -> None:
    def act(real: Any, *arguments: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    if rank == 0:
        at_call(weights, "write", 4, act)  # model and optimiser of the second save


def refuse_record(rank: int) -> None:
    def act(real: Any, run: RunDirectory, record: Any) -> Any:
        run._metrics = open("/dev/full", "a")  # noqa: SIM115 - as the run's own
        return real(run, record)

    if rank == 0:
        at_call(RunDirectory, "log", 6, act)


def not_a_number(rank: int) -> None:
    def loss(*arguments: Any) -> Any:
        output = causal.loss(*arguments)
        calls[0] += 1
        return replace(output, sum=output.sum * float("inf")) if rank == 1 and calls[0] == 10 else output

    calls = [0]
    objectives.load = lambda *_, **__: loss  # type: ignore[assignment]


def stop(rank: int) -> None:
    def act(real: Any, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    if rank == 1:
        at_call(AdamW, "step", 5, act)


def die(rank: int) -> None:
    def act(real: Any, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    if rank == 1:
        at_call(AdamW, "step", 5, act)


def err(rank: int) -> None:
    def act(real: Any, *arguments: Any) -> Any:
        raise TypeError("a mistake of ours")

    if rank == 1:
        at_call(AdamW, "step", 5, act)


def hang(rank: int) -> None:
    def act(real: Any, *arguments: Any) -> Any:
        time.sleep(2 * PATIENCE)  # its GPU hangs, or its disk
        os._exit(0)

    if rank == 1:
        at_call(AdamW, "step", 5, act)


PATIENCE = 10  # seconds
SPOILED: dict[str, Callable[[int], None]] = {
    "batch": refuse_batch,
    "disk": refuse_disk,
    "record": refuse_record,
    "nonfinite": not_a_number,
    "signal": stop,
    "killed": die,
    "mistake": err,
    "hung": hang,
}
SCENARIOS = {
    "worlds": other_worlds,
    "few": few_worlds,
    "streams": few_streams,
    "failing": failing,
    "waiting": waiting,
    "ending": ending,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    scenario, mode = sys.argv[1].split("-")
    print(json.dumps(SCENARIOS[scenario](Path(sys.argv[2]), Path(sys.argv[3]), mode)))
