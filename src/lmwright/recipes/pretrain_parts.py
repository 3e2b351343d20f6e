"""The parts of one pretraining run, built from its resolved configuration: what the loop is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lmwright import objectives, seeds
from lmwright.config import without_defaults
from lmwright.data.loader import part
from lmwright.errors import CheckpointError, DataError
from lmwright.recipes import pretrain_plan, watching
from lmwright.recipes.pretrain_config import PretrainConfig
from lmwright.recipes.pretrain_data import carries, open_data
from lmwright.runs import RunDirectory
from lmwright.train import checkpoint, parts
from lmwright.train.checkpoint import State
from lmwright.train.loop import Job
from lmwright.train.parallel import Parallel, distribute
from lmwright.train.ranks import Ranks

if TYPE_CHECKING:
    from lmwright.data.loader import Loader
    from lmwright.data.split import TokenSplit
    from lmwright.model.language_model import LanguageModel
    from lmwright.recipes.pretrain import Beginning
    from lmwright.train.average import WeightAverage
    from lmwright.train.carried import Carried
    from lmwright.train.config import TrainConfig


def build(run: RunDirectory, beginning: Beginning, go_on: str, ranks: Ranks) -> tuple[Job, State]:
    """Return the job of one process, and where it begins: in its checkpoint, where it has one.

    go_on: the command that resumes the run. Every process of the run must call it.
    """
    from lmwright.data.loader import Loader
    from lmwright.model.language_model import LanguageModel

    config, figures, data, start = beginning.config, beginning.figures, beginning.data, beginning.start
    training = config.training
    with ranks.together():
        pretrain_plan.apply(training, ranks)
        if data is None:  # one process of each machine verifies it
            data = open_data(config, find_corpus(config, run), verify=ranks.local_rank == 0)
        tokenizer = data.corpus.tokenizer
        loader = Loader(
            data.plan,
            batch_size=training.batch_size,
            seed=training.seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
            streams=carries(config),
        )
        model = LanguageModel(config.architecture)
        model.init_weights(seeds.torch_generator(training.seed, "init"))
        watch = None  # by the first process alone, of the model while it is whole
        if ranks.first:
            watch = watching.watch(config, data, model, loader.documents_of, run.metrics())
        seconds = _compile(model, config, ranks)
    parallel = distribute(model, training.parallel, ranks, training.device)
    optimizer = parts.module("optimizers", training.optimizer).build(
        dict(model.named_parameters()), parts.settings("optimizers", training.optimizer), training.groups
    )
    average, carried = _average(training, parallel), _carried(config, ranks)
    state = State(config=checkpoint.fingerprint(meaning(config)))
    if start is not None:
        with ranks.together():
            _place(loader, checkpoint.read_state(start), config, run)
            state = checkpoint.restore(start, model=model, optimizer=optimizer, average=average, carried=carried)
            if watch is not None:
                watch.load(state.watch, str(start / checkpoint.STATE / "trainer.json"))

    def save(state: State) -> Path:
        return checkpoint.save(
            run,
            state,
            model=model,
            optimizer=optimizer,
            average=average,
            carried=carried,
            tokenizer=tokenizer,
            keep=training.keep_checkpoints,
            ranks=ranks,
        )

    job = Job(
        config=training,
        model=model,
        objective=objectives.load(config.task.objective, z_loss=config.task.z_loss),
        optimizer=optimizer,
        loader=loader,
        run=run,
        save=save,
        evaluate=_evaluation(config, data.validation, parallel, average),
        average=average,
        carried=carried,
        watch=watch,
        compile_seconds=seconds,
        parallel=parallel,
        flops_per_token=figures["flops"]["per_token"],
        # The plan's are of all processes that it was made for.
        peak_flops=figures["peak_flops"] / figures.get("processes", 1) * ranks.world_size,
        go_on=go_on,
    )
    return job, state


def _compile(model: LanguageModel, config: PretrainConfig, ranks: Ranks) -> float | None:
    """Compile what the run wants compiled, for each size of its micro-batches; return the seconds that took."""
    training, length = config.training, config.data.context_length
    if training.compile is not True:  # 'auto' is of a run from before there was the setting
        return None
    from lmwright.data.batch import Batch
    from lmwright.train import compile as compiling
    from lmwright.train import gradient

    compiling.refuse_sharded(training.parallel, ranks.world_size)
    compiling.compile_model(model.to(training.device))
    objective = objectives.load(config.task.objective, z_loss=config.task.z_loss)

    def micro_batch(size: int) -> None:
        blank = torch.zeros(size, length, dtype=torch.int64, device=training.device)
        gradient.compute(
            model,
            objective,
            Batch(ids_BT=blank, labels_BT=blank),
            micro_batch_size=size,
            precision=training.precision,
            clip_norm=None,
            dropout=lambda row: None,
            recompute=training.activation_checkpointing,
        )

    first, stop = part(training.batch_size, ranks.rank, ranks.world_size)
    whole, rest = divmod(stop - first, training.micro_batch_size or training.batch_size)
    sizes = {training.micro_batch_size or training.batch_size} if whole else set()
    sizes |= {rest} - {0} | ({1} if ranks.several else set())  # 1: who runs out of rows repeats one
    return sum(compiling.checked(partial(micro_batch, size)) for size in sizes)


def _average(training: TrainConfig, parallel: Parallel) -> WeightAverage | None:
    if training.ema_decay is None:
        return None
    from lmwright.train.average import WeightAverage

    return WeightAverage(dict(parallel.model.named_parameters()), training.ema_decay)


def _carried(config: PretrainConfig, ranks: Ranks) -> Carried | None:
    if not carries(config):
        return None
    from lmwright.train.carried import Carried
    from lmwright.train.precision import DTYPES

    training = config.training
    return Carried(
        config.architecture,
        batch_size=training.batch_size,
        ranks=ranks,
        dtype=DTYPES[training.precision],
        device=training.device,
    )


def _place(loader: Loader, state: State, config: PretrainConfig, run: RunDirectory) -> None:
    """Let the loader go on where it was; where the user named another place, another corpus there is told so."""
    try:
        loader.load(state.loader)
    except CheckpointError as error:
        before = run.config()["data"]["corpus"]
        if config.data.corpus == before:
            raise
        raise CheckpointError(
            f"--corpus {config.data.corpus}: is not the corpus that this run began with, which was {before}; give "
            f"that one's new place ({error})"
        ) from None


def find_corpus(config: PretrainConfig, run: RunDirectory) -> Path:
    """Return where the run's corpus is; it may have moved along with the run."""
    place, inside = Path(config.data.corpus), run.path / "corpus"
    if place.exists():
        return place
    if not inside.is_dir():
        raise DataError(
            f"{place}: the run's corpus is not there any more; put it back, move it to {inside}, or say with "
            "--resume --corpus where it is now"
        )
    return inside


def meaning(config: PretrainConfig) -> dict[str, Any]:
    """Return the settings that decide the final weights.

    Not where things lie, what is logged and kept, nor how processes share the work, which changes only rounding.
    """
    settings = without_defaults(config)
    del settings["data"]["corpus"]  # the loader's state knows the data by its content
    free = ("eval_every", "checkpoint_every", "keep_checkpoints", "keep_best", "log_every", "trackers", "parallel")
    for name in free:
        settings["training"].pop(name, None)
    if config.training.compile is not True:
        settings["training"].pop("compile", None)
    settings["training"]["optimizer"] = parts.meaning("optimizers", config.training.optimizer)
    settings["training"]["schedule"] = parts.meaning("schedules", config.training.schedule)
    return settings


def refuse_other(found: State, config: PretrainConfig, run: RunDirectory) -> None:
    """A checkpoint continues only under the settings it was made with; the loader checks the data itself."""
    if found.config != checkpoint.fingerprint(meaning(config)):
        raise CheckpointError(
            f"{run.path / 'config.json'}: is not the configuration that the checkpoint of step {found.step} was "
            "trained with; put it back, or start a new run"
        )


def _evaluation(
    config: PretrainConfig, split: TokenSplit | None, parallel: Parallel, average: WeightAverage | None
) -> Callable[[], Mapping[str, float]] | None:
    """Return what measures the model on the whole validation split, or None if the run never asks."""
    if split is None:
        return None
    from lmwright.evaluate.loss import SplitLoss, evaluate_split
    from lmwright.train.precision import DTYPES

    training = config.training

    def measure() -> SplitLoss:
        found = evaluate_split(
            parallel.model,
            split,
            context_length=config.data.context_length,
            batch_size=training.micro_batch_size or training.batch_size,
            dtype=DTYPES[training.precision],
            ranks=parallel.ranks,
        )
        parallel.settle()
        return found

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
