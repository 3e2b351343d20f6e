"""Pretraining as a story: resolve the settings, measure, plan, train, and tell plan from actual.

What can be known to be impossible is refused before the run directory exists. A resumed run takes all its settings
from its own config.json, and goes on from the newest sound checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmwright import seeds
from lmwright.config import without_defaults
from lmwright.data.build import Corpus
from lmwright.data.pack import PackPlan, plan_blocks, plan_documents
from lmwright.errors import CheckpointError, DataError
from lmwright.recipes.pretrain_config import PretrainConfig, checked, resolve
from lmwright.runs import RUN, RunDirectory, atomic_write_json, read_json, refuse_existing
from lmwright.train import checkpoint, parts
from lmwright.train.checkpoint import State

if TYPE_CHECKING:
    from lmwright.model.language_model import LanguageModel
    from lmwright.recipes.pretrain_plan import Measured
    from lmwright.train.average import WeightAverage
    from lmwright.train.config import TrainConfig

Say = Callable[[str], None]


@dataclass(frozen=True)
class Planned:
    """A run that could start: its resolved configuration, what the machine showed and what it will cost."""

    config: PretrainConfig
    measured: Measured
    figures: dict[str, Any]


def plan_run(settings: Mapping[str, Any], where: str, *, measured: Measured | None = None) -> Planned:
    """Resolve, check and measure a run; writes nothing. Raises ConfigError or DataError for what cannot work.

    measured: of an earlier plan, taken over instead of measuring again; of the same model, data, batch and
    optimiser, but it may have had other steps.
    """
    config = resolve(settings, where)
    corpus = Corpus.open(Path(config.data.corpus))
    plan = _sequences(config, corpus)
    from lmwright.recipes import pretrain_plan

    measured = pretrain_plan.measure(config, plan) if measured is None else pretrain_plan.adopt(config, measured)
    return Planned(measured.config, measured, pretrain_plan.predict(measured, plan))


def pretrain(
    settings: Mapping[str, Any],
    out: Path,
    *,
    where: str,
    force: bool = False,
    measured: Measured | None = None,
    go_on: str | None = None,
    say: Say = print,
) -> State:
    """Train a new model into the run directory `out`; return where it ended.

    measured: of an earlier plan, see `plan_run`. go_on: the command that would resume it, for whoever stops it;
    None: `lmwright pretrain --resume`.

    Raises ConfigError, DataError before anything is written; NonFiniteError; Interrupted after a signal, with the
    state saved.
    """
    refuse_existing(out, RUN, force=force)
    planned = plan_run(settings, where, measured=measured)
    describe(planned, say)
    run = RunDirectory.create(out, config=asdict(planned.config), force=force)
    with contextlib.closing(run):
        atomic_write_json(run.path / "plan.json", planned.figures)
        return _train(run, planned.config, planned.figures, None, go_on, say)


def resume(out: Path, *, corpus: Path | None = None, go_on: str | None = None, say: Say = print) -> State:
    """Go on with the run in `out` from its newest sound checkpoint, or from its start if it has none yet.

    The final weights equal, bit by bit, those of a run that was never interrupted.
    corpus: where its corpus lies now, if it was moved.
    Raises DataError if there is no run, CheckpointError if what is there cannot be continued.
    """
    run = RunDirectory.open(out)
    run.lock()
    with contextlib.closing(run):
        if not (run.path / "plan.json").is_file():
            raise DataError(f"{out}: was stopped before its plan was written; start it anew with --force")
        config = checked(run.config(), str(out / "config.json"))
        figures = _read_plan(run.path / "plan.json")
        checkpoint.sweep(run)
        found = checkpoint.newest(run, say)
        if found is not None:
            checkpoint.point(run, checkpoint.read_state(found))
        if corpus is not None:
            config = _moved(config, corpus, found, run)
        step = 0 if found is None else checkpoint.read_state(found).step
        say(f"resuming after step {step} of {config.training.steps}")
        run.keep_metrics(lambda record: record["step"] <= step)
        if go_on is None and corpus is not None:
            go_on = f"lmwright pretrain --out {run.path} --resume --corpus {corpus}"
        return _train(run, config, figures, found, go_on, say)


def _read_plan(path: Path) -> dict[str, Any]:
    """Read plan.json. Raises DataError that names it if the figures that a run needs are not all there."""
    figures: dict[str, Any] = read_json(path)
    try:
        needed = {
            "flops.per_token": figures["flops"]["per_token"],
            "peak_flops": figures["peak_flops"],
            "memory_bytes.total": figures["memory_bytes"]["total"],
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
    tried = ", ".join(f"{seconds:.3g} s with {n}" for n, seconds in planned.measured.threads.items())
    say(f"threads       {training.threads}" + (f" (a micro-batch takes {tried})" if tried else ""))
    errors = ", ".join(f"{path} {error:.1e}" for path, error in planned.measured.matmul_errors.items())
    say(
        f"precision     {training.precision} on {training.device}; fp32 products: {training.matmul}"
        + (f" (relative error {errors})" if errors else "")
    )
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


def _sequences(config: PretrainConfig, corpus: Corpus) -> PackPlan:
    """Cut or pack the split into sequences. Raises DataError if they do not fill one batch."""
    split = corpus.split("train")
    length, batch = config.data.context_length, config.training.batch_size
    plan: PackPlan = (plan_blocks if config.data.packing == "contiguous" else plan_documents)(split, length)
    if plan.num_sequences < batch:
        raise DataError(
            f"{config.data.corpus}: too small: its train split has {split.num_tokens} tokens, "
            f"{plan.num_sequences} sequences of {length}, and a batch takes {batch}; give more text, or a "
            "smaller batch or context"
        )
    return plan


def _train(
    run: RunDirectory,
    config: PretrainConfig,
    figures: Mapping[str, Any],
    start: Path | None,
    go_on: str | None,
    say: Say,
) -> State:
    """Build the run's parts, load `start` into them where given, and train to the end."""
    from lmwright import objectives
    from lmwright.data.loader import Loader
    from lmwright.model.language_model import LanguageModel
    from lmwright.recipes import pretrain_plan
    from lmwright.train.loop import Job, train

    training = config.training
    pretrain_plan.apply(training)
    corpus = _open_corpus(config, run)
    loader = Loader(_sequences(config, corpus), batch_size=training.batch_size, seed=training.seed)
    model = LanguageModel(config.architecture)
    model.init_weights(seeds.torch_generator(training.seed, "init"))
    model.to(training.device)
    optimizer = parts.module("optimizers", training.optimizer).build(
        dict(model.named_parameters()), parts.settings("optimizers", training.optimizer), training.groups
    )
    average = _average(training, model)
    state = State(config=checkpoint.fingerprint(_meaning(config)))
    if start is not None:
        found = checkpoint.restore(start, model=model, optimizer=optimizer, average=average)
        _refuse_other(found, state, run)
        state = found
        loader.load(state.loader)
        if state.step == training.steps and any(record["kind"] == "end" for record in run.metrics()):
            say(f"{run.path}: has finished its {state.step} steps; nothing is left to train")
            return state

    def save(state: State) -> Path:
        return checkpoint.save(
            run,
            state,
            model=model,
            optimizer=optimizer,
            average=average,
            tokenizer=corpus.tokenizer,
            keep=training.keep_checkpoints,
        )

    job = Job(
        config=training,
        model=model,
        objective=objectives.load(config.task.objective, z_loss=config.task.z_loss),
        optimizer=optimizer,
        loader=loader,
        run=run,
        save=save,
        evaluate=_evaluation(config, corpus, model, average),
        average=average,
        flops_per_token=figures["flops"]["per_token"],
        peak_flops=figures["peak_flops"],
        go_on=go_on or f"lmwright pretrain --out {run.path} --resume",
    )
    final = train(job, state)
    _compare(run, figures, say)
    return final


def _average(training: TrainConfig, model: LanguageModel) -> WeightAverage | None:
    if training.ema_decay is None:
        return None
    from lmwright.train.average import WeightAverage

    return WeightAverage(dict(model.named_parameters()), training.ema_decay)


def _open_corpus(config: PretrainConfig, run: RunDirectory) -> Corpus:
    """Open the run's corpus, every shard checked against its checksum; it may have moved along with the run."""
    place, inside = Path(config.data.corpus), run.path / "corpus"
    if place.exists():
        return Corpus.open(place, verify=True)
    if not inside.is_dir():
        raise DataError(
            f"{place}: the run's corpus is not there any more; put it back, move it to {inside}, or say with "
            "--resume --corpus where it is now"
        )
    return Corpus.open(inside, verify=True)


def _meaning(config: PretrainConfig) -> dict[str, Any]:
    """Return the settings that decide the final weights: not where things lie, nor what is logged and kept."""
    settings = without_defaults(config)
    del settings["data"]["corpus"]  # the loader's state knows the data by its content
    for name in ("eval_every", "checkpoint_every", "keep_checkpoints", "keep_best", "log_every", "trackers"):
        settings["training"].pop(name, None)
    settings["training"]["optimizer"] = parts.meaning("optimizers", config.training.optimizer)
    settings["training"]["schedule"] = parts.meaning("schedules", config.training.schedule)
    return settings


def _refuse_other(found: State, expected: State, run: RunDirectory) -> None:
    """A checkpoint continues only under the settings it was made with; the loader checks the data itself."""
    if found.config != expected.config:
        raise CheckpointError(
            f"{run.path / 'config.json'}: is not the configuration that the checkpoint of step {found.step} was "
            "trained with; put it back, or start a new run"
        )


def _evaluation(
    config: PretrainConfig, corpus: Corpus, model: LanguageModel, average: WeightAverage | None
) -> Callable[[], Mapping[str, float]] | None:
    """Return what measures the model on the whole validation split, or None if the run never asks."""
    if not config.training.eval_every:
        return None
    from lmwright.evaluate.loss import SplitLoss, evaluate_split
    from lmwright.train.precision import DTYPES

    split, training = corpus.split("validation"), config.training

    def measure() -> SplitLoss:
        return evaluate_split(
            model,
            split,
            context_length=config.data.context_length,
            batch_size=training.micro_batch_size or training.batch_size,
            dtype=DTYPES[training.precision],
        )

    def evaluate() -> Mapping[str, float]:
        found = measure()
        figures = {
            "loss": found.nats_per_token,
            "bits_per_byte": found.bits_per_byte,
            "scored_tokens": found.tokens,
        }
        if average is not None:
            with average.applied():
                averaged = measure()
            figures |= {"average_loss": averaged.nats_per_token, "average_bits_per_byte": averaged.bits_per_byte}
        return figures

    return evaluate


def _compare(run: RunDirectory, figures: Mapping[str, Any], say: Say) -> None:
    """Say what was planned beside what came out."""
    end = run.metrics()[-1]
    loss = "" if end["loss"] is None else f", loss {end['loss']:.4f} nats/token in the last step"
    say(f"done          {end['tokens']:,} tokens (planned {figures['tokens']:,}){loss}")
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
