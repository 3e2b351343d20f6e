"""Before the first step: what would end a run after an hour ends it now, before its directory exists.

Shapes, heads and the context against the positions are refused where configurations are made (`model.config`,
`pretrain_config`). Here is what takes the data, the disk and the machine to know. Each check raises an error that
says what is there, what is needed and what to change; what is odd and not impossible becomes a line to say.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lmwright.data.pack import IGNORE_INDEX, PackPlan
from lmwright.data.shards import REBUILD
from lmwright.data.split import TokenSplit
from lmwright.errors import ConfigError, DataError
from lmwright.recipes.memory_plan import optimizer_memory
from lmwright.recipes.pretrain_config import PretrainConfig
from lmwright.recipes.pretrain_data import RunData, carries
from lmwright.scaling.flops import count_parameters
from lmwright.scaling.memory import state_bytes

WEIGHT = 4  # bytes of a parameter: fp32
BESIDES = 2**24  # tokenizer, configuration and metrics, generously
BATCHES = 3

Estimate = Callable[[PretrainConfig], float]


def check(config: PretrainConfig, data: RunData, out: Path | None) -> tuple[str, ...]:
    """Raise ConfigError or DataError for a run that cannot work; return lines about what is odd in it.

    out: its directory, None if that is not known yet. Memory and disk are other questions: see `fits`, `room`.
    """
    from lmwright.train import trackers

    trackers.require(config.training.trackers)
    if out is not None:
        _place(out)
    lines = tuple(_model(config, data.plan.split))
    _vocabulary(config, data)
    _labels(config, data.plan)
    return lines


def _place(out: Path) -> None:
    """Raise ConfigError where no directory can be made, DataError where nothing can be written."""
    place = _nearest(out)
    if not place.is_dir():
        raise ConfigError(f"{out}: cannot be made, for {place} is no directory; choose another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        why = os.strerror(errno.EROFS if read_only else errno.EACCES)
        raise DataError(f"{out}: nothing can be written in {place} ({why}); choose another --out")


def room(config: PretrainConfig, out: Path) -> None:
    """Raise DataError if the disk of `out` cannot hold the run's checkpoints.

    Those that lie there already count as room: a resumed run keeps or replaces them, a forced one clears them.
    """
    size, most = checkpoint_bytes(config), checkpoints_at_once(config)
    there = [path for path in (out / "checkpoints").glob("step-*") if path.is_dir()]
    free = _free_disk(out) + sum(_size(path) for path in there)
    needed = size * most + BESIDES
    if free >= needed:
        return
    fewer = "lower training.keep_checkpoints, " if config.training.keep_checkpoints > 1 else ""
    raise DataError(
        f"{out}: the disk has {_gib(free)} for checkpoints and the run needs {_gib(needed)}: {most} of "
        f"{_gib(size)} each ({config.training.keep_checkpoints} kept and one in the making, more where the best "
        f"is kept); {fewer}make room, or choose another --out"
    )


def checkpoint_bytes(config: PretrainConfig) -> int:
    """Return the bytes of one checkpoint: weights, optimiser and, where there are, average and carried state."""
    copies = 2 if config.training.ema_decay is not None else 1
    state = optimizer_memory(config.architecture, config.training.optimizer).state
    carried = config.training.batch_size * state_bytes(config.architecture, WEIGHT) if carries(config) else 0
    return count_parameters(config.architecture).total * WEIGHT * copies + state + carried


def checkpoints_at_once(config: PretrainConfig) -> int:
    """Return how many checkpoints lie on the disk at most: the kept ones, the best, and the one being written."""
    training = config.training
    made = -(-training.steps // training.checkpoint_every) if training.checkpoint_every else 1
    best = 1 if training.keep_best and training.eval_every else 0
    return min(made, training.keep_checkpoints + best + 1)


def _model(config: PretrainConfig, split: TokenSplit) -> Iterator[str]:
    """Check what the architecture says against the data and against sense; yield what is odd."""
    architecture, length = config.architecture, config.data.context_length
    if architecture.initializer_range == 0:
        raise ConfigError(
            "architecture.initializer_range = 0: all weights would begin at zero, and most would never get a "
            "gradient; leave it out for 0.02"
        )
    if architecture.eos_id is not None and architecture.eos_id != split.eos_id:
        raise ConfigError(
            f"architecture.eos_id = {architecture.eos_id}: the documents end with id {split.eos_id}, so a "
            "model trained on them would never be seen to stop; leave it out"
        )
    if architecture.position == "learned" and architecture.max_positions > length:
        yield (
            f"architecture.max_positions = {architecture.max_positions}: positions from {length} on are never "
            "trained, and would be noise in longer texts; lower it to data.context_length"
        )


def _vocabulary(config: PretrainConfig, data: RunData) -> None:
    """Raise DataError if the text has ids that the model has no row for; its shards hold no others."""
    for split in (data.plan.split, data.validation):
        if split is not None and split.vocab_size > config.architecture.vocab_size:
            raise DataError(
                f"{split.name}: has a vocabulary of {split.vocab_size}, the model one of "
                f"{config.architecture.vocab_size}; {REBUILD}"
            )


def _labels(config: PretrainConfig, plan: PackPlan) -> None:
    """Raise DataError if one of the first batches has nothing to learn from."""
    from lmwright.data.loader import Loader
    from lmwright.train.diagnosis import no_target

    size = config.training.batch_size
    loader = Loader(plan, batch_size=size, seed=config.training.seed, streams=carries(config))
    for number in range(min(BATCHES, config.training.steps)):
        rows = loader.order(number * size, (number + 1) * size)
        labels_BT = plan.fetch(rows)[1]
        if not (labels_BT != IGNORE_INDEX).any():
            documents = loader.documents_of(rows[:8].tolist())
            raise DataError(f"{plan.split.name}: {no_target(number + 1, labels_BT.size, documents)}")


def fits(config: PretrainConfig, memory: Estimate, free: float) -> None:
    """Raise ConfigError if a step is estimated to need more than is free, with what would make it fit.

    memory: the estimate, in bytes, of a step of such a run; free: the bytes that it may take.
    """
    needed = memory(config)
    if needed <= free:
        return
    where = "GPU" if config.training.device == "cuda" else "machine"
    raise ConfigError(
        f"memory: a step needs about {_gib(needed)} and this {where} has {_gib(free)} free; "
        f"{_way_out(config, memory, free)}"
    )


def _way_out(config: PretrainConfig, memory: Estimate, free: float) -> str:
    """Return the settings that fit: micro-batches as large as possible, blocks recomputed only if need be."""
    given = config.training.micro_batch_size or config.training.batch_size
    sizes = [max(1, given >> halvings) for halvings in range(given.bit_length())]
    for recompute in sorted({config.training.activation_checkpointing, True}):
        for size in sizes:
            training = replace(config.training, micro_batch_size=size, activation_checkpointing=recompute)
            if memory(replace(config, training=training)) <= free:
                also = " with training.activation_checkpointing = true" if recompute else ""
                return f"set training.micro_batch_size = {size}{also}; the result is the same to rounding"
    return (
        "neither smaller micro-batches nor activation checkpointing is enough: choose a smaller model or a "
        "shorter context, or free some memory"
    )


def _free_disk(place: Path) -> int:
    """Return the free bytes of the filesystem on which `place` lies or will lie."""
    found = os.statvfs(_nearest(place))
    return found.f_bavail * found.f_frsize


def _nearest(place: Path) -> Path:
    """Return what there is of a path: itself, or the closest above it."""
    place = place.absolute()
    while not os.path.lexists(place):
        place = place.parent
    return place


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
