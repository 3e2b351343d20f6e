"""Pretraining as a story: resolve the settings, check, measure, plan, train, and tell plan from actual.

What can be known to be impossible is refused before the run directory exists. A resumed run takes all its settings
from its own config.json, and goes on from the newest sound checkpoint. Where torchrun has started several
processes, the first one decides, says and writes, and tells the others.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmwright.config import to_dict
from lmwright.errors import ConfigError, DataError
from lmwright.recipes import preflight
from lmwright.recipes.pretrain_config import PretrainConfig, checked, resolve
from lmwright.recipes.pretrain_data import RunData, open_data
from lmwright.runs import RUN, RunDirectory, atomic_write_json, read_json, refuse_existing
from lmwright.train import checkpoint
from lmwright.train.checkpoint import State
from lmwright.train.ranks import Ranks, of_environment, started

if TYPE_CHECKING:
    from lmwright.recipes.pretrain_plan import Measured
    from lmwright.train.trackers import Tracker

Say = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    """A run that could start: its resolved configuration, its data, what the machine showed, what it will cost.

    notes: lines about what is odd in it.
    """

    config: PretrainConfig
    data: RunData
    notes: tuple[str, ...]
    measured: Measured
    figures: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """From where a process trains: the run's settings and planned figures, its data and its checkpoint.

    data: as this process has it open, None where it has not. start: the checkpoint to go on from, None for a new
    run.
    """

    config: PretrainConfig
    figures: Mapping[str, Any]
    data: RunData | None
    start: Path | None


def plan_run(
    settings: Mapping[str, Any],
    where: str,
    *,
    out: Path | None = None,
    measured: Measured | None = None,
    seconds: float | None = None,
    must_fit: bool = True,
    ranks: Ranks | None = None,
    data: RunData | None = None,
    verify: bool = False,
) -> Planned:
    """Resolve, check and measure a run; writes nothing. Raises ConfigError or DataError for what cannot work.

    out: where it will lie, None if that is not known yet. measured: of an earlier plan of the same model, data,
    batch and optimiser, which may have had other steps; it is taken over unless so many steps call for measuring
    again. seconds: that training is to take, where its steps are yet to follow from the plan. must_fit: False only
    notes that memory or disk is too small. ranks: the processes that will train; None: those of torchrun. data:
    of an earlier plan, taken over where this run reads the same sequences. verify: check the corpus's checksums.
    """
    ranks = of_environment() if ranks is None else ranks
    config = resolve(settings, where)
    if config.training.batch_size < ranks.world_size:
        raise ConfigError(
            f"{where}: training.batch_size = {config.training.batch_size}: is less than the {ranks.world_size} "
            "processes, and each needs a sequence; raise it, or start fewer processes"
        )
    if data is None or not data.serves(config):
        data = open_data(config, Path(config.data.corpus), verify=verify)
    from lmwright.recipes import pretrain_plan
    from lmwright.train.machine import free_memory

    config = pretrain_plan.settle(config)
    # What an earlier measurement took is this process's still, and not free; but it is there for the run.
    free = free_memory(config.training.device) if measured is None else measured.free_memory
    notes = preflight.check(config, data, out)
    try:
        _require_room(config, data, out, free, ranks)
    except (ConfigError, DataError) as error:
        if must_fit:
            raise
        notes = (*notes, str(error))
    adopted = None if measured is None else pretrain_plan.adopt(config, measured)
    found = adopted or pretrain_plan.measure(config, data.plan, ranks, free=free, seconds=seconds)
    return Planned(found.config, data, notes, found, pretrain_plan.predict(found, data.plan))


def _require_room(config: PretrainConfig, data: RunData, out: Path | None, free: float, ranks: Ranks) -> None:
    """Raise ConfigError or DataError where a step needs more than `free` bytes, or the run more than the disk."""
    from lmwright.recipes import pretrain_plan

    preflight.fits(config, lambda one: pretrain_plan.resident(one, data.plan, ranks), free)
    if out is not None:
        preflight.room(config, out)


def pretrain(
    settings: Mapping[str, Any],
    out: Path,
    *,
    where: str,
    force: bool = False,
    measured: Measured | None = None,
    data: RunData | None = None,
    budget: Mapping[str, Any] | None = None,
    go_on: str | None = None,
    say: Say = print,
) -> State:
    """Train a new model into the run directory `out`; return where it ended.

    measured, data: of an earlier plan, see `plan_run`; the data verified. budget: the plan that the settings come
    from, as `budget_words.figures` has it; it is kept in plan.json, and its loss is compared with what comes out.
    go_on: the command that would resume it, for whoever stops it; None: `lmwright pretrain --resume`.

    Raises ConfigError, DataError before anything is written; NonFiniteError; Interrupted after a signal, with the
    state saved.
    """
    with started() as ranks, contextlib.ExitStack() as stack:
        say = say if ranks.first else _say_nothing
        run = RunDirectory(out)

        def begin() -> dict[str, Any]:
            nonlocal run, data  # the data as the first process has it open; the others open it for themselves
            refuse_existing(out, RUN, force=force)
            planned = plan_run(settings, where, out=out, measured=measured, ranks=ranks, data=data, verify=True)
            data = planned.data
            describe(planned, say)
            run = stack.enter_context(RunDirectory.create(out, config=asdict(planned.config), force=force))
            figures = planned.figures if budget is None else {**planned.figures, "budget": dict(budget)}
            atomic_write_json(run.path / "plan.json", figures)
            return {"config": to_dict(planned.config), "figures": figures}

        begun = ranks.once(begin)
        config = checked(begun["config"], where)
        beginning = Beginning(config=config, figures=begun["figures"], data=data, start=None)
        return _train(run, beginning, go_on, say, ranks)


def resume(out: Path, *, corpus: Path | None = None, go_on: str | None = None, say: Say = print) -> State:
    """Go on with the run in `out` from its newest sound checkpoint, or from its start if it has none yet.

    The final weights equal, bit by bit, those of a run that was never interrupted; where the number of processes
    changed, all but for rounding.
    corpus: where its corpus lies now, if it was moved.
    Raises DataError if there is no run, CheckpointError if what is there cannot be continued.
    """
    from lmwright.recipes import pretrain_parts

    with started() as ranks, contextlib.closing(RunDirectory(out)) as run:
        say = say if ranks.first else _say_nothing
        data: RunData | None = None

        def find() -> dict[str, Any]:
            nonlocal data
            RunDirectory.open(out)
            run.lock()
            config = _own_settings(run)
            place = run.path / "plan.json"
            kept = _read_plan(place) if place.exists() else None  # or refuse, before anything is touched
            checkpoint.sweep(run)
            found = checkpoint.newest(run, say)
            state = State() if found is None else checkpoint.read_state(found)
            if found is not None:
                pretrain_parts.refuse_other(state, config, run)
                checkpoint.point(run, state)
            if corpus is not None:
                config = _moved(config, corpus, found, run)
            data, free = _recheck(config, run, ranks)
            figures = _plan_anew(config, run, data, free, ranks, say) if kept is None else kept
            say(f"resuming after step {state.step} of {config.training.steps}")
            run.keep_metrics(lambda record: record["step"] <= state.step)
            return {
                "config": to_dict(config),
                "figures": figures,
                "start": None if found is None else str(found),
            }

        found = ranks.once(find)
        config = checked(found["config"], str(out / "config.json"))
        start = None if found["start"] is None else Path(found["start"])
        if go_on is None and corpus is not None:
            go_on = f"lmwright pretrain --out {run.path} --resume --corpus {corpus}"
        beginning = Beginning(config=config, figures=found["figures"], data=data, start=start)
        return _train(run, beginning, go_on, say, ranks)


def _recheck(config: PretrainConfig, run: RunDirectory, ranks: Ranks) -> tuple[RunData, float]:
    """Refuse to go on where disk or memory no longer suffice; return the run's data, verified, and free bytes."""
    from lmwright.recipes.pretrain_parts import find_corpus
    from lmwright.train.machine import free_memory

    data, free = open_data(config, find_corpus(config, run), verify=True), free_memory(config.training.device)
    _require_room(config, data, run.path, free, ranks)
    return data, free


def _plan_anew(
    config: PretrainConfig, run: RunDirectory, data: RunData, free: float, ranks: Ranks, say: Say
) -> dict[str, Any]:
    """Return the figures of a run that goes on and whose plan was never written, or lost; and write them."""
    from lmwright.recipes import pretrain_plan

    place = run.path / "plan.json"
    say(f"{place}: is not there; planned anew")
    measured = pretrain_plan.measure(config, data.plan, ranks, free=free)
    figures = pretrain_plan.predict(measured, data.plan)
    atomic_write_json(place, figures)
    return figures


def _say_nothing(text: str) -> None:
    """Stand in for `say` on all processes but the first."""


def _own_settings(run: RunDirectory) -> PretrainConfig:
    """Return the settings that a run was begun with. Raises DataError if its config.json is damaged."""
    try:
        return checked(run.config(), str(run.path / "config.json"))
    except ConfigError as error:
        raise DataError(
            f"{error}; these are no settings that this lmwright writes: put the file back, or start anew with "
            "--force"
        ) from None


def _read_plan(path: Path) -> dict[str, Any]:
    """Read plan.json. Raises DataError that names it if the figures that a run needs are not all there."""
    figures: dict[str, Any] = read_json(path)
    try:
        needed = {
            "flops.per_token": figures["flops"]["per_token"],
            "peak_flops": figures["peak_flops"],
            "memory_bytes.total": figures["memory_bytes"]["total"],
            "processes": figures.get("processes", 1),
            **{name: figures[name] for name in ("tokens", "seconds")},
        }
    except (KeyError, TypeError, IndexError):
        raise DataError(
            f"{path}: is damaged: not the figures of a plan; put it back, or start anew with --force"
        ) from None
    for name, value in needed.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            raise DataError(
                f"{path}: is damaged: {name} = {value!r}, must be a number above 0; put it back, or start "
                "anew with --force"
            )
    return figures


def _moved(config: PretrainConfig, corpus: Path, start: Path | None, run: RunDirectory) -> PretrainConfig:
    """Return the configuration with the corpus's new place; the checkpoint's loader checks its content."""
    if start is None:
        raise DataError(
            f"{run.path}: has no checkpoint yet, so nothing tells whether {corpus} is the corpus it began with; "
            f"put that back to {config.data.corpus}, or start anew with --force"
        )
    return replace(config, data=replace(config.data, corpus=os.path.abspath(corpus)))


def describe(planned: Planned, say: Say) -> None:
    """Say what was decided and what it will cost."""
    training, figures = planned.config.training, planned.figures
    if planned.measured.processes > 1:
        say(f"processes     {planned.measured.processes} ({training.parallel})")
    tried = ", ".join(f"{seconds:.3g} s with {n}" for n, seconds in planned.measured.threads.items())
    say(f"threads       {training.threads}" + (f" (a micro-batch takes {tried})" if tried else ""))
    errors = ", ".join(f"{path} {error:.1e}" for path, error in planned.measured.matmul_errors.items())
    say(
        f"precision     {training.precision} on {training.device}; fp32 products: {training.matmul}"
        + (f" (relative error {errors})" if errors else "")
    )
    compiling = planned.measured.compile
    reason = "as the settings say" if compiling is None else compiling.reason
    say(f"compile       {'yes' if training.compile else 'no'} ({reason})")
    parameters, flops, memory = figures["parameters"], figures["flops"], figures["memory_bytes"]
    say(f"parameters    {parameters['total']:,} ({parameters['non_embedding']:,} without embeddings and head)")
    say(f"tokens        {figures['tokens']:,} in {figures['steps']:,} steps, {figures['epochs']:.3g} epochs")
    say(
        f"FLOPs         {flops['total']:.3e} exact; 6ND {flops['six_nd_all_parameters']:.3e} (N all parameters), "
        f"{flops['six_nd_without_embeddings']:.3e} (N without embeddings)"
    )
    parts = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in memory.items() if name != "total")
    say(f"memory        {memory['total'] / 2**20:,.0f} MiB ({parts})")
    say(f"time          {figures['seconds']:,.0f} s ({figures['seconds_basis']})")
    for line in planned.notes:
        say(f"note          {line}")


def _train(run: RunDirectory, beginning: Beginning, go_on: str | None, say: Say, ranks: Ranks) -> State:
    """Build the run's parts, load its checkpoint into them where it has one, and train to the end."""
    from lmwright.recipes import pretrain_parts
    from lmwright.train.loop import train

    config = beginning.config
    go_on = go_on or f"lmwright pretrain --out {run.path} --resume"
    job, state = pretrain_parts.build(run, beginning, go_on, ranks)
    through = beginning.start is not None and state.step == config.training.steps
    if through and ranks.once(lambda: any(record["kind"] == "end" for record in run.metrics())):
        say(f"{run.path}: has finished its {state.step} steps; nothing is left to train")
        return state
    with contextlib.ExitStack() as closing:
        with ranks.together():
            if ranks.first:
                job = replace(job, trackers=_open_trackers(config, run, say, closing))
        ranks.under_way()
        final = train(job, state)
    if ranks.first:
        _compare(run, beginning.figures, say)
    return final


def _open_trackers(
    config: PretrainConfig, run: RunDirectory, say: Say, closing: contextlib.ExitStack
) -> tuple[Tracker, ...]:
    """Open the trackers that the run asks for, to be closed with `closing`."""
    from lmwright.train.trackers import open_trackers

    opened = open_trackers(config.training.trackers, run.path, to_dict(config), warn=say)
    for tracker in opened:
        closing.callback(tracker.close)
    return opened


def _compare(run: RunDirectory, figures: Mapping[str, Any], say: Say) -> None:
    """Say what was planned beside what came out."""
    end = run.metrics()[-1]
    loss = "" if end["loss"] is None else f", loss {end['loss']:.4f} nats/token in the last step"
    say(f"done          {end['tokens']:,} tokens (planned {figures['tokens']:,}){loss}")
    _compare_loss(run, figures.get("budget"), say)
    say(
        f"time          {end['seconds']:,.1f} s of training (planned {figures['seconds']:,.1f}), "
        f"{end['evaluation_seconds']:,.1f} s of evaluation, {end['checkpoint_seconds']:,.1f} s of saving"
    )
    say(
        f"memory        {end['peak_memory_bytes'] / 2**20:,.0f} MiB at most, "
        f"{end['memory_at_start_bytes'] / 2**20:,.0f} before the first step "
        f"(planned {figures['memory_bytes']['total'] / 2**20:,.0f} beside the program itself)"
    )
    say(f"run           {run.path}")


def _compare_loss(run: RunDirectory, budget: Any, say: Say) -> None:
    """Say the loss that a law predicted beside the validation loss of the end, where both are there."""
    from lmwright.recipes.budget_words import compared

    last = next((record for record in reversed(run.metrics()) if record["kind"] == "evaluation"), None)
    if line := compared(budget, last):
        say(line)
