"""What a pretraining run will cost, before it is spent: parameters, tokens, FLOPs, memory, time.

The time comes from a few real gradients of the real model on real batches, in a model that is thrown away, so the
run itself is not touched; the same measurement chooses the number of threads. Where the model would not fit into
memory the time is that of the exact FLOPs at a stated fraction of the measured peak.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import os
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from lmwright import objectives, seeds
from lmwright.data.batch import Batch
from lmwright.data.loader import Loader
from lmwright.data.pack import PackPlan
from lmwright.errors import ConfigError
from lmwright.model.language_model import LanguageModel
from lmwright.recipes import doctor, memory_plan
from lmwright.recipes.pretrain_config import PretrainConfig
from lmwright.scaling import flops
from lmwright.scaling import memory as memories
from lmwright.train import gradient, heap, machine, parts
from lmwright.train.compile import Trial, checked, compile_model, refuse_sharded, try_out
from lmwright.train.config import TrainConfig
from lmwright.train.precision import DTYPES, resolve, resolve_device
from lmwright.train.ranks import SINGLE, Ranks

ASSUMED_MFU = 0.4
MOST_TRIALS = 100  # of an update
HEAP = 1.4  # what the heap adds to the estimate: 1.1 to 1.45, once 1.9 (benchmarks/memory, kept)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the machine showed.

    config: with nothing left to 'auto'. step_seconds: of one update at best; typical_seconds: the median of some,
    as a run beside other work has it; None if the model was too large to try. peak_flops: of all processes.
    threads: seconds of a micro-batch by number of threads; empty where only one number was possible. compile: what
    torch.compile was found to be worth, None where nobody asked. processes: how many share an update. free_memory:
    bytes that could be taken before anything was.
    """

    config: PretrainConfig
    step_seconds: float | None
    peak_flops: float
    threads: dict[int, float]
    matmul_errors: dict[str, float]
    free_memory: float
    compile: Trial | None = None
    processes: int = 1
    typical_seconds: float | None = None


def settle(config: PretrainConfig) -> PretrainConfig:
    """Return the configuration with device and precision decided: all that its memory depends on."""
    device = resolve_device(config.training.device)
    precision = resolve(config.training.precision, device)
    return replace(config, training=replace(config.training, device=device, precision=precision))


def measure(
    config: PretrainConfig, plan: PackPlan, ranks: Ranks = SINGLE, *, free: float, seconds: float | None = None
) -> Measured:
    """Decide what `settle` left to 'auto' and time an update; sets threads and the path of fp32 products.

    ranks: the processes that will train. This one measures alone and takes the others to be as fast. free: bytes
    that may be taken. seconds: that training is to take, where the steps of `config` do not tell its length yet.
    """
    known = doctor.remembered()  # before the number of threads changes, by which it knows the machine
    training = config.training
    device, precision = training.device, training.precision
    # Only the CPU has two honest fp32 paths; on a GPU 'medium' would be TF32 or bf16.
    matmul = machine.choose_matmul() if training.matmul == "auto" and device == "cpu" else None
    path = matmul.path if matmul is not None else "highest" if training.matmul == "auto" else training.matmul
    settled = replace(training, matmul=path)
    apply(settled, ranks)
    if training.threads == "auto" and ranks.several:
        torch.set_num_threads(_fair_threads(ranks))
    threads: dict[int, float] = {}
    alone = memory(replace(config, training=settled), plan)  # the twin has the whole model to itself
    fits = alone.total < free
    rows = math.ceil(training.batch_size / ranks.world_size)
    twin = _Twin(replace(config, training=settled), plan, rows) if fits else None
    if training.threads == "auto":
        if twin is not None and device == "cpu":
            threads = machine.choose_threads(twin.micro_batch).seconds
        settled = replace(settled, threads=torch.get_num_threads())
    tried = _try_compiling(settled, twin, ranks, seconds)
    settled = settled if tried is None else replace(settled, compile=tried.compile)
    least = min(threads.values(), default=math.inf)
    step_seconds, typical = (None, None) if twin is None else twin.step_seconds(least)
    twin = None
    _forget_trials(device)
    return Measured(
        config=replace(config, training=settled),
        step_seconds=step_seconds,
        peak_flops=_peak_flops(precision, device, known) * ranks.world_size,
        threads=threads,
        matmul_errors={} if matmul is None else matmul.errors,
        free_memory=free,
        compile=tried,
        processes=ranks.world_size,
        typical_seconds=typical,
    )


def _try_compiling(training: TrainConfig, twin: _Twin | None, ranks: Ranks, seconds: float | None) -> Trial | None:
    """Return what compiling is worth where that is left to 'auto'; else have the twin do as the run will."""
    if training.compile == "auto":
        if training.parallel == "fsdp" and ranks.several:
            return Trial(compile=False, reason="not tried: under fsdp the norms' gains come and go")
        if twin is None:
            return Trial(compile=False, reason="not tried: too large to try in this memory")
        return twin.try_compiling(seconds)
    if training.compile:
        refuse_sharded(training.parallel, ranks.world_size)
        if twin is not None:
            compile_model(twin.model)
            checked(twin.micro_batch)
    return None


def _peak_flops(precision: str, device: str, known: doctor.Machine | None) -> float:
    """Return the machine's best FLOP/s in the run's precision: measured now, or before by `lmwright doctor`."""
    now = machine.peak_flops(DTYPES[precision], device)
    before = None if known is None else known.peak(precision, device, torch.get_num_threads())
    return max(now, before or 0.0)


def _forget_trials(device: str) -> None:
    """Free what a thrown-away model held: compiled, it is a cycle that counting references never ends."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def adopt(config: PretrainConfig, measured: Measured) -> Measured | None:
    """Return what was measured for a run that differs from `config` only in what no single update depends on.

    None where a run of so many steps would decide otherwise on compiling: its updates take another time.
    """
    found = measured.config
    assert (config.architecture, config.task, config.data) == (found.architecture, found.task, found.data)
    training = replace(
        config.training,
        **{
            name: getattr(found.training, name) for name in ("device", "precision", "threads", "matmul", "compile")
        },
    )
    for name in ("batch_size", "micro_batch_size"):
        assert getattr(training, name) == getattr(found.training, name), name
    assert training.optimizer["name"] == found.training.optimizer["name"]  # its rate and decay take no time
    tried = measured.compile
    if tried is not None:
        rows = math.ceil(training.batch_size / measured.processes)
        tried = tried.of_run(_micro_batches(training, rows))
        if tried is None:
            return None
    return replace(measured, config=replace(config, training=training), compile=tried)


def _micro_batches(training: TrainConfig, rows: int) -> int:
    """Return how many micro-batches a process runs in all, that takes so many rows of an update."""
    return training.steps * math.ceil(rows / min(rows, training.micro_batch_size or rows))


def apply(training: TrainConfig, ranks: Ranks = SINGLE) -> None:
    """Set the process to what a resolved configuration says; 'auto' leaves things as they are.

    The threads of several processes of one machine are together no more than its cores. Raises ConfigError for
    more processes than GPUs.
    """
    heap.keep_memory()
    if training.device == "cuda" and ranks.several and ranks.local_size > torch.cuda.device_count():
        raise ConfigError(
            f"training.device = 'cuda': {ranks.local_size} processes were started on this machine, which has "
            f"{torch.cuda.device_count()} GPUs; start one for each, or set device = 'cpu'"
        )
    if isinstance(training.threads, int):
        torch.set_num_threads(min(training.threads, _fair_threads(ranks)) if ranks.several else training.threads)
    if training.matmul != "auto":
        torch.set_float32_matmul_precision(training.matmul)


def _fair_threads(ranks: Ranks) -> int:
    """Return a process's share of the cores. torchrun leaves one thread to each, whatever there is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // ranks.local_size)


class _Twin:
    """A throwaway twin of the run, for timing."""

    def __init__(self, config: PretrainConfig, plan: PackPlan, rows: int) -> None:
        """rows: of the sequences of an update, those that one process takes."""
        self._rows = rows
        self._config = config.training
        self._device = resolve_device(config.training.device)
        self.model = LanguageModel(config.architecture).to(self._device)
        self.model.init_weights(seeds.torch_generator(0, "trial", device=self._device))
        self._objective = objectives.load(config.task.objective, z_loss=config.task.z_loss)
        self._size = min(rows, self._config.micro_batch_size or rows)
        self._batch: Batch = Loader(plan, batch_size=self._size, seed=0).next_batch().to(self._device)
        module = parts.module("optimizers", self._config.optimizer)
        settings = parts.settings("optimizers", self._config.optimizer)
        self._optimizer = module.build(dict(self.model.named_parameters()), settings, self._config.groups)

    def micro_batch(self) -> None:
        """Forward and backward of one micro-batch, with dropout where the run has it."""
        gradient.compute(
            self.model,
            self._objective,
            self._batch,
            micro_batch_size=self._size,
            precision=self._config.precision,
            clip_norm=self._config.clip_norm,
            dropout=lambda number: seeds.torch_generator(0, "trial", number, device=self._device),
            recompute=self._config.activation_checkpointing,
        )

    def try_compiling(self, seconds: float | None) -> Trial:
        """Measure whether compiling pays in the run, or in one of so many seconds; go on as it was decided."""
        self.micro_batch()
        count = _micro_batches(self._config, self._rows)
        if seconds is not None:
            count = round(seconds / machine.least_seconds(self.micro_batch, budget=0.0))
        return try_out(self.model, self.micro_batch, count)

    def step_seconds(self, least: float) -> tuple[float, float]:
        """Return the seconds of one update, its micro-batches and the optimiser once: at best, and the median.

        least: what a micro-batch has been seen to take at best, earlier and under the same settings.
        """
        self.micro_batch()
        self._optimizer.step(1e-6)
        each = machine.timed(self.micro_batch, budget=2.0, most=MOST_TRIALS)
        once = machine.timed(lambda: self._optimizer.step(1e-6), budget=0.2, most=MOST_TRIALS)
        times = self._rows / self._size
        return min(least, *each) * times + min(once), median(each) * times + median(once)


def predict(measured: Measured, plan: PackPlan) -> dict[str, Any]:
    """Return plan.json: every figure that the run's end is compared with, and how it was come by."""
    config, training = measured.config, measured.config.training
    architecture, length = config.architecture, config.data.context_length
    sequences = training.steps * training.batch_size
    total = flops.training_flops(architecture, length) * sequences
    alone = "" if measured.processes == 1 else f"; {measured.processes} processes, as if none waited for another"
    estimate = memory(config, plan, measured.processes)
    if measured.step_seconds is not None:
        seconds = training.steps * measured.step_seconds
        basis = "steps x the least measured seconds of a real update, so on a machine that nothing else slows"
    else:
        seconds = total / (ASSUMED_MFU * measured.peak_flops)
        basis = f"training FLOPs / ({ASSUMED_MFU} of the measured peak); too large to try in this memory"
    return {
        "steps": training.steps,
        "sequences": sequences,
        "tokens": sequences * (length * plan.num_sequences - plan.tokens_padded) // plan.num_sequences,
        "epochs": sequences / plan.num_sequences,
        "tokens_lost_in_packing": plan.tokens_lost,
        "tokens_padded": plan.tokens_padded,
        "parameters": dataclasses.asdict(flops.count_parameters(architecture)),
        "flops": {
            "total": total,
            "per_token": flops.flops_per_token(architecture, length),
            "six_nd_all_parameters": flops.six_nd(architecture, sequences * length, "chinchilla"),
            "six_nd_without_embeddings": flops.six_nd(architecture, sequences * length, "kaplan"),
        },
        "memory_bytes": {**dataclasses.asdict(estimate), "total": estimate.total},
        "seconds": seconds,
        "seconds_basis": f"{basis}; evaluation and checkpoints not included{alone}",
        "processes": measured.processes,
        "step_seconds": measured.step_seconds,
        "peak_flops": measured.peak_flops,
        "mfu": "flops.per_token x tokens per second / peak_flops",
        "threads_tried_seconds": {str(number): value for number, value in measured.threads.items()},
        "matmul_relative_errors": measured.matmul_errors,
        "compile": None if measured.compile is None else dataclasses.asdict(measured.compile),
    }


def resident(config: PretrainConfig, plan: PackPlan, ranks: Ranks) -> float:
    """Return the bytes that a step takes of a device: a GPU's, or the machine's for all its processes."""
    each = memory(config, plan, ranks.world_size).total
    return each * (HEAP * ranks.local_size if config.training.device == "cpu" else 1)


def memory(config: PretrainConfig, plan: PackPlan, devices: int = 1) -> memories.StepMemory:
    """Return the estimate of a step on each of `devices` devices; nothing is left to 'auto' in `config`."""
    packed = config.data.packing == "documents"
    document = max(1, plan.split.num_tokens // plan.split.num_documents) if packed else None
    run = memory_plan.run_of(config, devices=devices, document=document)
    return memories.training_memory(config.architecture, run)
