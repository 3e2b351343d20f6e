"""A run that begins in a checkpoint of another one, its trunk, and ends elsewhere.

Under warm-up, stable, decay, runs of every length make the same updates until their decay begins (Hu et al. 2024,
MiniCPM, section 4; Hägele et al. 2024, section 3). So one trunk serves many: a fork is, to the bit, what a run of
its own length from the beginning would be, without the time of what it shares with the trunk.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lmwright.errors import ConfigError, DataError
from lmwright.recipes.pretrain_config import PretrainConfig, checked
from lmwright.runs import (
    CHECKPOINT,
    MANIFEST,
    RunDirectory,
    atomic_directory,
    atomic_write_json,
    atomic_write_text,
    read_json,
    verify_manifest,
)
from lmwright.train import checkpoint


def fork(
    trunk: Path,
    step: int,
    out: Path,
    *,
    steps: int,
    schedule: Mapping[str, Any],
    eval_every: int | None = None,
    force: bool = False,
) -> Path:
    """Make the run directory `out`, whose first `step` updates are the trunk's; a resume trains the rest.

    steps, schedule: of the whole run; the first `step` updates must have the rates that they had in the trunk.
    eval_every: as in the settings; None: the trunk's. Its plan is the trunk's, where that has one. Returns the
    checkpoint it begins in. Raises ConfigError if they had not, DataError if the trunk has no such checkpoint,
    CheckpointError if that is damaged or was made under other settings than the trunk's.
    """
    from lmwright.recipes.pretrain_parts import meaning, refuse_other

    run = RunDirectory.open(trunk)
    before = checked(run.config(), str(trunk / "config.json"))
    source = run.checkpoints / checkpoint.name_of(step)
    if not source.is_dir():
        there = ", ".join(path.name for path in checkpoint.steps(run)) or "none"
        raise DataError(f"{source}: is not there to begin from; checkpoints of the trunk: {there}")
    verify_manifest(source)
    state = checkpoint.read_state(source)
    refuse_other(state, before, run)
    every = before.training.eval_every if eval_every is None else eval_every
    training = replace(before.training, steps=steps, schedule=dict(schedule), eval_every=every)
    config = replace(before, training=training)
    config = checked(asdict(config), str(out))
    _refuse_other_past(before, config, step, trunk)
    state = replace(state, config=checkpoint.fingerprint(meaning(config)), best_step=None, best_loss=None)
    with RunDirectory.create(out, config=asdict(config), force=force) as made:
        if (trunk / "plan.json").is_file():
            atomic_write_json(made.path / "plan.json", _lengthened(read_json(trunk / "plan.json"), config))
        # The end of the trunk is none of this run, which would pass for a finished one.
        records = [record for record in run.metrics() if record["step"] <= step and record["kind"] != "end"]
        atomic_write_text(made.metrics_path, "".join(json.dumps(record) + "\n" for record in records))
        beginning = made.checkpoints / checkpoint.name_of(step)
        with atomic_directory(beginning, CHECKPOINT) as partial:
            _share(source, partial)
            atomic_write_json(partial / checkpoint.STATE / "trainer.json", asdict(state))
        checkpoint.point(made, state)
    return beginning


def _lengthened(figures: dict[str, Any], config: PretrainConfig) -> dict[str, Any]:
    """Return the trunk's plan for a run that differs from it in its length alone: no update takes another time."""
    times = config.training.steps / figures["steps"]
    sequences = config.training.steps * config.training.batch_size
    in_epoch = round(figures["sequences"] / figures["epochs"])
    filled = config.data.context_length * in_epoch - figures["tokens_padded"]
    known = dict(figures["flops"])
    totals = ("total", "six_nd_all_parameters", "six_nd_without_embeddings")
    known |= {name: round(known[name] * times) for name in totals}
    return figures | {
        "steps": config.training.steps,
        "sequences": sequences,
        "tokens": sequences * filled // in_epoch,
        "epochs": sequences / in_epoch,
        "flops": known,
        "seconds": figures["seconds"] * times,
    }


def _refuse_other_past(before: PretrainConfig, after: PretrainConfig, step: int, trunk: Path) -> None:
    """Raise ConfigError if the two runs differ within the first `step` updates."""
    if after.training.steps <= step:
        raise ConfigError(f"steps = {after.training.steps}: a fork at step {step} must go beyond it")
    for number in range(step):
        had, has = (run.training.lr(number) for run in (before, after))
        if had != has:
            raise ConfigError(
                f"schedule = {dict(after.training.schedule)!r}: update {number + 1} would have the learning rate "
                f"{has:g} and had {had:g} in {trunk}; let it decay from step {step} on, after the same warm-up"
            )


def _share(source: Path, target: Path) -> None:
    """Let `target` hold the files of a checkpoint but for its manifest and the trainer's own."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        elif path.name not in (MANIFEST, "trainer.json"):
            try:  # no file of a checkpoint is ever written again, so two runs may have one
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)
