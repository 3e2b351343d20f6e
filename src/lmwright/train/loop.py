"""The one training loop, for every objective, optimiser and schedule.

A round: evaluate and save where due, stop if asked to, else one update. Weights and optimiser change in one line
only, after the batch's loss and gradient have been found finite; until then everything can be left at any moment.
The update itself can overflow, so weights and optimiser state are looked at before they are judged or saved.
Randomness comes from (seed, stream, step, first row of the micro-batch), so a run that is resumed draws what it
would have drawn. Where several processes train together, each runs this loop; every decision is made of what all
of them know, and the first one writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import torch

from lmwright import progress, seeds
from lmwright.data.batch import Batch
from lmwright.errors import CheckpointError, DataError, Interrupted, LmwrightError
from lmwright.model.language_model import LanguageModel
from lmwright.objectives import Objective
from lmwright.runs import RunDirectory
from lmwright.train import gradient
from lmwright.train.checkpoint import State, name_of
from lmwright.train.config import TrainConfig
from lmwright.train.diagnosis import Finding, Update, Watch, named, no_target
from lmwright.train.log import Clock, Log
from lmwright.train.machine import current_memory, peak_memory
from lmwright.train.optimizers import Optimizer
from lmwright.train.parallel import Parallel
from lmwright.train.ranks import SINGLE, Ranks
from lmwright.train.signals import Stopped, StopSignals
from lmwright.train.slices import own_part

if TYPE_CHECKING:
    from lmwright.train.average import WeightAverage
    from lmwright.train.carried import Carried
    from lmwright.train.trackers import Tracker


class NonFiniteError(LmwrightError):
    """A loss, gradient or weight is no longer a number; what was saved before is kept, and nothing added."""


class Batches(Protocol):
    """What the loop asks of a loader."""

    def next_batch(self) -> Batch:
        """Return the next global batch."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return what a resume needs to go on with the batch after this one."""

    def last_rows(self) -> tuple[int, ...]:
        """Return the rows of the last batch, of all processes in their order."""

    def documents_of(self, sample_ids: tuple[int, ...]) -> list[str]:
        """Name the documents of samples."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that one run is made of.

    config: resolved (no 'auto' in it). save: writes a checkpoint of the state. evaluate: figures of the model as
    it is, such as validation loss, or CheckpointError if they are not finite; None evaluates never.
    average: follows the weights, where the run keeps one. carried: the state of a recurrent model's rows, where
    they go on from update to update. trackers: are told each record of the log. watch: finds
    causes of trouble in what it is shown; it stands where the state does that training begins with.
    compile_seconds: what torch.compile took, None where the run does without.
    parallel: how several processes share the model; None is one process.
    flops_per_token, peak_flops: for the log's MFU. go_on: the command that resumes the run, for whoever stops it.
    """

    config: TrainConfig
    model: LanguageModel
    objective: Objective
    optimizer: Optimizer
    loader: Batches
    run: RunDirectory
    save: Callable[[State], Path]
    evaluate: Callable[[], Mapping[str, float]] | None = None
    average: WeightAverage | None = None
    carried: Carried | None = None
    trackers: tuple[Tracker, ...] = ()
    watch: Watch | None = None
    compile_seconds: float | None = None
    parallel: Parallel | None = None
    flops_per_token: float
    peak_flops: float
    go_on: str

    @property
    def ranks(self) -> Ranks:
        """The processes of the run."""
        return SINGLE if self.parallel is None else self.parallel.ranks


def train(job: Job, state: State) -> State:
    """Train from `state` to the last step; return the final state.

    Raises Interrupted after SIGTERM or SIGINT, with the state saved; NonFiniteError, with nothing saved.
    """
    config, saved = job.config, state.step
    log = Log(
        job.run,
        flops_per_token=job.flops_per_token,
        peak_flops=job.peak_flops,
        clock=Clock(dict(state.seconds)),
        trackers=job.trackers,
        silent=not job.ranks.first,
    )
    log.write(
        "start",
        state.step,
        threads=torch.get_num_threads(),
        precision=config.precision,
        processes=job.ranks.world_size,
        **({} if job.compile_seconds is None else {"compile_seconds": job.compile_seconds}),
    )
    if job.watch is not None:
        _tell(job, log, job.watch.start())
    memory = current_memory(config.device)
    shown = progress.bar("train", total=config.steps, unit="step", initial=state.step, shown=job.ranks.first)
    with StopSignals(job.ranks) as stop, shown as bar:
        while True:
            with suppress(Stopped):  # then the resumed run evaluates
                state = _evaluate_if_due(job, state, log, stop, saved)
            last = state.step == config.steps
            if stop.received or last or _due(config.checkpoint_every, state.step):
                state = _save(job, state, log, saved)
                saved = state.step
            if stop.received:
                _interrupt(job, state, stop.received)
            if last:
                break
            try:
                state, loss = _update(job, state, log, stop, saved)
            except Stopped:
                continue  # nothing was changed yet: what was true before the update is saved
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update()
    log.write("end", state.step, **_actuals(job, state, log), memory_at_start_bytes=memory)
    return state


def _update(job: Job, state: State, log: Log, stop: StopSignals, saved: int) -> tuple[State, float]:
    """Make one update; return the state after it and the loss of its batch in nats per token."""
    config = job.config
    with log.clock.on("train"):
        with stop.interruptible():
            with job.ranks.together():
                batch = job.loader.next_batch()
            stop.agree()
            found = _gradient(job, state.step, batch)
        if not found.finite:
            _refuse_damaged(job, state.step, log, saved)  # then no document is to blame
            _refuse(job, state.step, batch, found, log)
        job.optimizer.step(config.factor(state.step))
        if job.average is not None:
            job.average.update()
        if job.carried is not None:
            job.carried.keep()
    state = state.after(tokens=found.count, seconds=log.clock.spent, loader=job.loader.state_dict())
    log.add(found.loss_sum, found.count, found.metrics)
    if state.step % config.log_every == 0 or state.step == config.steps:
        log.step(state.step, lr=job.optimizer.rate, grad_norm=found.norm, tokens=state.tokens)
    loss = found.loss_sum / found.count
    if job.watch is not None:
        update = Update(
            step=state.step,
            loss=loss,
            grad_norm=found.norm,
            lr=job.optimizer.rate,
            count=found.count,
            positions=config.batch_size * batch.ids_BT.shape[1],
            sample_ids=job.loader.last_rows(),
        )
        _tell(job, log, job.watch.after(update))
    return state, loss


def _gradient(job: Job, step: int, batch: Batch) -> gradient.Gradient:
    """Leave the batch's gradient in the parameters. Raises DataError that names documents if none has a label."""
    config = job.config
    try:
        return gradient.compute(
            job.model,
            job.objective,
            batch.to(config.device),
            micro_batch_size=config.micro_batch_size or config.batch_size,
            precision=config.precision,
            clip_norm=config.clip_norm,
            dropout=lambda row: _dropout(job, step, row),
            recompute=config.activation_checkpointing,
            parallel=job.parallel,
            batch_size=config.batch_size if job.ranks.several else None,
            carried=job.carried,
        )
    except gradient.NoTargetError:
        positions = config.batch_size * batch.ids_BT.shape[1]
        error = DataError(no_target(step + 1, positions, job.loader.documents_of(job.loader.last_rows())))
        error.told = not job.ranks.first
        raise error from None


def _tell(job: Job, log: Log, findings: Iterable[Finding]) -> None:
    """Log findings, and say them at once."""
    for found in findings:
        log.write("finding", found.step, name=found.name, message=found.message, **found.facts)
        if job.ranks.first:
            progress.note(f"lmwright: step {found.step}: {found.message}")


def _dropout(job: Job, step: int, row: int) -> torch.Generator | None:
    architecture = job.model.config
    rates = (architecture.embedding_dropout, architecture.attention_dropout, architecture.residual_dropout)
    if not any(rates):
        return None
    return seeds.torch_generator(job.config.seed, "dropout", step, row, device=job.config.device)


def _refuse(job: Job, step: int, batch: Batch, found: gradient.Gradient, log: Log) -> NoReturn:
    """Say which update failed and on which documents: those of the micro-batch to blame, where one is."""
    size = job.config.micro_batch_size or job.config.batch_size
    wrong = [number for number, value in enumerate(found.own_sums) if not math.isfinite(value)]
    blamed = [sample for number in wrong for sample in batch.sample_ids[number * size : (number + 1) * size]]
    documents = job.loader.documents_of(tuple(blamed) or (() if wrong else batch.sample_ids))
    told = job.ranks.gather([bool(wrong), documents])
    what = "loss" if any(wrong for wrong, _ in told) else "gradient norm"
    documents = [name for wrong, them in told if wrong or what != "loss" for name in them]
    log.write("nonfinite", step + 1, what=what, documents=documents)
    _fail(
        job,
        f"the {what} of step {step + 1} is not finite, in a batch of {named(documents)}; nothing was updated "
        "or saved. Look at these documents, or train anew with a lower learning rate or in fp32",
    )


def _fail(job: Job, message: str) -> NoReturn:
    """Raise NonFiniteError, on all processes alike; the first tells it."""
    error = NonFiniteError(f"{job.run.path}: {message}")
    error.told = not job.ranks.first
    raise error


def _refuse_damaged(job: Job, step: int, log: Log, saved: int) -> None:
    """Raise NonFiniteError if a weight or the optimiser's state is no number after `step` updates."""
    tensors = {**dict(job.model.named_parameters()), **job.optimizer.tensors()}
    own = {name: part for name, tensor in tensors.items() if (part := own_part(tensor)).numel()}
    with torch.no_grad():
        # Not the largest absolute value, which takes 20 times as long. The norm of what is finite may overflow.
        sound = math.isfinite(float(torch.nn.utils.get_total_norm(own.values())))
        damaged = (name for name, tensor in own.items() if not bool(tensor.isfinite().all()))
        odd = None if sound else next(damaged, None)
    name = next((one for one in job.ranks.gather(odd) if one is not None), None)
    if name is None:
        return
    _refuse_model(job, step, log, saved, what="update", why=f"{name} holds numbers that are not finite")


def _refuse_model(job: Job, step: int, log: Log, saved: int, *, what: str, why: str) -> NoReturn:
    """Say after which update the model was no longer one, and what of the run is left."""
    log.write("nonfinite", step, what=what, documents=[], why=why)
    kept = f"the last good checkpoint, {name_of(saved)}, is kept" if saved else "there is no checkpoint before it"
    if saved == step > 0:
        kept = f"but {name_of(saved)} was saved with it"
    _fail(
        job,
        f"after step {step} {why}; nothing more was saved, {kept}. Train anew with a lower learning rate, or in "
        "fp32",
    )


def _due(every: int | None, step: int) -> bool:
    return bool(every) and step > 0 and step % (every or 1) == 0


def _evaluate_if_due(job: Job, state: State, log: Log, stop: StopSignals, saved: int) -> State:
    every = job.config.eval_every
    due = _due(every, state.step) or (bool(every) and state.step == job.config.steps)
    if job.evaluate is None or not due or state.evaluated == state.step:
        return state
    _refuse_damaged(job, state.step, log, saved)
    before = log.clock.of("evaluation")
    try:
        with log.clock.on("evaluation"), stop.interruptible():
            figures = dict(job.evaluate())
    except Stopped:
        if job.average is not None:
            job.average.settle()
        raise
    except CheckpointError:  # its message would blame a checkpoint or the text
        why = "the model's weights are too large: its loss on the held-out text is not finite"
        _refuse_model(job, state.step, log, saved, what="evaluation", why=why)
    log.write(
        "evaluation", state.step, tokens=state.tokens, **figures, eval_seconds=log.clock.of("evaluation") - before
    )
    return replace(state, evaluated=state.step, validation_loss=figures.get("loss"))


def _save(job: Job, state: State, log: Log, saved: int) -> State:
    """Save unless this step is on disk already; return the state that is."""
    if state.step == saved and state.step > 0:
        return state
    if job.config.keep_best:
        state = state.judged()
    _refuse_damaged(job, state.step, log, saved)
    before = log.clock.of("checkpoint")
    if job.watch is not None:
        state = replace(state, watch=job.watch.state_dict())
    with log.clock.on("checkpoint"):
        path = job.save(replace(state, seconds=dict(log.clock.spent)))
    log.write("checkpoint", state.step, name=path.name, save_seconds=log.clock.of("checkpoint") - before)
    return state


def _interrupt(job: Job, state: State, signum: int) -> NoReturn:
    error = Interrupted(
        f"stopped by signal {signum} after step {state.step} of {job.config.steps}; the state is saved; go on "
        f"with {job.go_on}",
        signum,
    )
    error.told = not job.ranks.first
    raise error


def _actuals(job: Job, state: State, log: Log) -> dict[str, float | None]:
    """What plan.json predicted, as it came out."""
    seconds = log.clock.of("train")
    return {
        "loss": log.last_loss,
        "tokens": state.tokens,
        "seconds": seconds,
        "tokens_per_second": state.tokens / seconds if seconds else 0.0,
        "evaluation_seconds": log.clock.of("evaluation"),
        "checkpoint_seconds": log.clock.of("checkpoint"),
        "peak_memory_bytes": peak_memory(job.config.device),
    }
