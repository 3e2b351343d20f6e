"""The fourth factor of a run: how the model is trained. Torch-free.

Tables that name a file (`optimizer`, `schedule`) are completed with that file's defaults, so that the resolved
configuration, saved with the run, says everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from lmwright import seams
from lmwright.config import closest
from lmwright.errors import ConfigError
from lmwright.train import parts
from lmwright.train.groups import GroupConfig

Count = Annotated[int, Meta(ge=1)]
MOST_THREADS = 1024  # far beyond it the threads' library ends the process
Every = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained.

    steps: optimiser updates. batch_size: sequences in one update, over all micro-batches and ranks.
    micro_batch_size: sequences that go through the model at once; None is the whole batch.
    optimizer, schedule: {name, settings of that file}. groups: parameters with another rate or decay.
    clip_norm: the global gradient norm is clipped to it; None leaves it alone.
    ema_decay: of an exponential moving average of the weights, kept beside them; None keeps none.
    precision: what matrix products are computed in; the masters are always fp32. 'auto' is bf16 where the
        processor or GPU multiplies bf16 natively, else fp32.
    device, threads, matmul: 'auto' is decided at the start of a run and stored, for a bitwise resume needs the
        same. matmul is the path of fp32 products, see `train.machine`.
    activation_checkpointing: blocks are computed again in the backward pass instead of being kept.
    compile: whether norms and activations go through torch.compile; 'auto' measures whether it is worth its time.
    parallel: how several processes share the work: 'ddp' copies the model to each, 'fsdp' shards it.
    eval_every, checkpoint_every: in steps; 0 is never (a checkpoint is always made at the end); None is a tenth
        and a fifth of the run. keep_checkpoints: how many of the newest are kept; keep_best: and the one with the
        lowest validation loss. log_every: in steps.
    trackers: who is told what metrics.jsonl records, names of files in `train/trackers`.
    """

    steps: Count
    batch_size: Count
    micro_batch_size: Count | None = None
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "adamw"})
    schedule: dict[str, Any] = field(default_factory=lambda: {"name": "cosine"})
    groups: tuple[GroupConfig, ...] = ()
    clip_norm: Annotated[float, Meta(gt=0)] | None = 1.0
    ema_decay: Annotated[float, Meta(gt=0, lt=1)] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | str = "auto"
    matmul: Literal["auto", "highest", "medium"] = "auto"
    activation_checkpointing: bool = False
    compile: bool | Literal["auto"] = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    seed: Annotated[int, Meta(ge=0)] = 0
    eval_every: Every | None = None
    checkpoint_every: Every | None = None
    keep_checkpoints: Count = 2
    keep_best: bool = True
    log_every: Count = 1
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        micro = self.micro_batch_size
        if micro is not None and micro > self.batch_size:
            raise ConfigError(f"micro_batch_size = {micro}: must be at most batch_size = {self.batch_size}")
        if self.threads != "auto" and not (isinstance(self.threads, int) and 1 <= self.threads <= MOST_THREADS):
            raise ConfigError(
                f"threads = {self.threads!r}: must be a whole number from 1 to {MOST_THREADS}, or auto (measured)"
            )
        known = seams.names("lmwright.train.trackers")
        if odd := [name for name in self.trackers if name not in known]:
            hint = closest(odd[0], known)
            raise ConfigError(f"trackers: there is no {odd[0]!r}{hint}; there are {', '.join(known)}")
        optimizer = parts.resolved("optimizers", self.optimizer)
        schedule = parts.resolved("schedules", self.schedule)
        schedule["warmup_steps"] = parts.settings("schedules", self.schedule).resolve(self.steps)
        defaults = {
            "micro_batch_size": self.batch_size if micro is None else micro,
            "optimizer": optimizer,
            "schedule": schedule,
            "eval_every": self._every(self.eval_every, 10),
            "checkpoint_every": self._every(self.checkpoint_every, 5),
        }
        for name, value in defaults.items():
            object.__setattr__(self, name, value)
        self.factor(0)
        self.factor(self.steps - 1)

    def _every(self, given: int | None, times: int) -> int:
        return max(1, self.steps // times) if given is None else given

    def factor(self, step: int) -> float:
        """Return the fraction of the peak rates for update `step` (0 .. steps - 1)."""
        shape = parts.module("schedules", self.schedule)
        factor: float = shape.factor(step, self.steps, parts.settings("schedules", self.schedule))
        return factor

    def lr(self, step: int) -> float:
        """Return the optimiser's learning rate of update `step`, for the log."""
        peak: float = self.optimizer["lr"]
        return peak * self.factor(step)
