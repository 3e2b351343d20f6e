"""The jobs of a ladder, as a worker does them: train a run from its beginning, or from a checkpoint of a trunk.

A job that was stopped goes on where it was. Each returns the loss on validation text at the run's end; of a trunk,
from which others go on and which is never evaluated, that of its last batch.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmwright.errors import ConfigError, DataError
from lmwright.recipes.pretrain_config import resolve
from lmwright.runs import RunDirectory


def begin(settings: Mapping[str, Any], out: Path) -> float:
    """Train a new run in `out`, or go on with the one that is there.

    Raises ConfigError where that was begun with other settings, and what `pretrain` and `resume` raise.
    """
    from lmwright.recipes.pretrain import pretrain

    if (out / "config.json").is_file():
        _refuse_other(settings, out)
        return _go_on(out)
    with _quiet():
        state = pretrain(settings, out, where=str(out), force=True, say=_say_nothing)
    return _known(out, state.step)


def branch(trunk: Path, step: int, out: Path, steps: int, schedule: Mapping[str, Any], evaluate: bool) -> float:
    """Train a run that begins in a checkpoint of `trunk`; see `fork`. evaluate: at its end."""
    from lmwright.recipes.fork import fork

    if not (out / "config.json").is_file():
        fork(trunk, step, out, steps=steps, schedule=schedule, eval_every=steps if evaluate else 0, force=True)
    return _go_on(out)


def outcome(out: Path, steps: int) -> float | None:
    """Return the loss of a run that went to its end, infinite where it diverged; None where it is yet to be done.

    Raises ConfigError if the run there has another length.
    """
    if not (out / "config.json").is_file():
        return None
    run = RunDirectory.open(out)
    training = run.config().get("training", {})
    has = training.get("steps")
    if has != steps:
        raise ConfigError(f"{out}: is a run of {has} steps, and the ladder's has {steps}; choose another --out")
    records = run.metrics()
    if records and records[-1]["kind"] == "nonfinite":
        return float("inf")
    if not any(record["kind"] == "end" and record["step"] == steps for record in records):
        return None
    kind = "step" if training.get("eval_every") == 0 else "evaluation"
    losses = [record["loss"] for record in records if record["kind"] == kind and record["step"] == steps]
    if not losses:
        raise DataError(f"{out}: has no loss on validation text at its end; remove it, and it is trained anew")
    return float(losses[-1])


def _go_on(out: Path) -> float:
    from lmwright.recipes.pretrain import resume

    with _quiet():
        state = resume(out, say=_say_nothing)
    return _known(out, state.step)


def _known(out: Path, steps: int) -> float:
    loss = outcome(out, steps)
    assert loss is not None, out
    return loss


def _refuse_other(settings: Mapping[str, Any], out: Path) -> None:
    """Refuse a run that is another one than the ladder's; what a machine decides by itself may differ."""
    wanted, has = resolve(settings, str(out)), resolve(RunDirectory.open(out).config(), str(out))
    same = wanted.architecture == has.architecture and all(
        getattr(wanted.training, name) == getattr(has.training, name)
        for name in ("steps", "batch_size", "optimizer", "schedule", "seed")
    )
    if not same:
        raise ConfigError(f"{out}: holds a run of other settings than the ladder's; choose another --out")


def _quiet() -> contextlib.AbstractContextManager[Any]:
    """Show no progress bar: several jobs would write over each other's."""
    return contextlib.redirect_stderr(io.StringIO())


def _say_nothing(text: str) -> None:
    """Stand in for `say`; the run's own files tell it all."""
