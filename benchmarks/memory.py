"""Claim: a step's memory is predicted to 10%; logits of a whole batch never exist; blocks can be recomputed.

Each case is a fresh process that makes real updates (gradient, clipping, optimiser) and reports one of

    tensors   bytes of all tensors alive at once, by torch's own account
    resident  the highest resident memory beyond what importing everything and updating a tiny model took, where
              the C library hands each large block back to the system
    kept      the same where it keeps what is freed for the next step, as `train.heap.keep_memory` lets it;
              that is faster, and costs the holes that are too small for the next tensor

None depends on how busy the machine is. The first two are what is predicted.

python -m benchmarks.memory [--only WORD]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import row, write
from lmwright.model.config import ModelConfig
from lmwright.recipes import memory_plan
from lmwright.scaling import memory

UPDATES = 2  # the second meets the optimiser's state
HOW = ("tensors", "resident", "kept")
BLOCK = 2**16  # bytes; larger blocks are the system's


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training run, or the loss alone. documents: packed in a row, 0 for one piece. loss: chunked or plain."""

    model: ModelConfig
    batch: int
    length: int
    micro_batch: int
    precision: str = "bf16"
    optimizer: str = "adamw"
    recompute: bool = False
    documents: int = 0
    loss: str = ""


GPT2 = ModelConfig.gpt2(vocab_size=65, hidden_size=384, num_layers=6, num_heads=6, max_positions=256)
LLAMA_4M = ModelConfig.llama(
    vocab_size=4096, hidden_size=256, num_layers=4, num_heads=4, max_positions=256, tie_embeddings=True
)
LLAMA_30M = ModelConfig.llama(
    vocab_size=8192, hidden_size=512, num_layers=8, num_heads=8, num_kv_heads=4, max_positions=1024
)
LLAMA_49K = ModelConfig.llama(
    vocab_size=49152, hidden_size=384, num_layers=6, num_heads=6, max_positions=512, tie_embeddings=True
)
SHORT = Case(model=GPT2, batch=16, micro_batch=16, length=256)
QUICK = Case(model=LLAMA_4M, batch=16, micro_batch=16, length=256)
LONG = Case(model=LLAMA_30M, batch=4, micro_batch=4, length=1024)
WIDE = Case(model=LLAMA_49K, batch=8, micro_batch=8, length=512)
CASES = {
    "10.6M GPT-2 shape, bf16": SHORT,
    "10.6M GPT-2 shape, fp32": replace(SHORT, precision="fp32"),
    "10.6M GPT-2 shape, bf16, checkpointing": replace(SHORT, recompute=True),
    "10.6M GPT-2 shape, bf16, Muon": replace(SHORT, optimizer="muon"),
    "4M Llama, V = 4096, bf16": QUICK,
    "4M Llama, V = 4096, fp32": replace(QUICK, precision="fp32"),
    "4M Llama, V = 4096, bf16, micro-batches of 4": replace(QUICK, micro_batch=4),
    "30M Llama, T = 1024, bf16": LONG,
    "30M Llama, T = 1024, fp32": replace(LONG, precision="fp32"),
    "30M Llama, T = 1024, bf16, checkpointing": replace(LONG, recompute=True),
    "30M Llama, T = 1024, fp32, checkpointing": replace(LONG, precision="fp32", recompute=True),
    "30M Llama, T = 1024, bf16, 8 documents a row": replace(LONG, documents=8),
    "29M Llama, V = 49152, bf16": WIDE,
    "29M Llama, V = 49152, fp32": replace(WIDE, precision="fp32"),
    "29M Llama, V = 49152, bf16, checkpointing": replace(WIDE, recompute=True),
    "29M Llama, V = 49152, bf16, Muon": replace(WIDE, optimizer="muon"),
}
LOSSES = {
    f"{way} loss, 4096 positions, V = 49152, D = 384, {precision}": replace(WIDE, precision=precision, loss=way)
    for precision in ("fp32", "bf16")
    for way in ("chunked", "plain")
}


HEADLINES = ("10.6M GPT-2 shape, bf16", "29M Llama, V = 49152, bf16", "30M Llama, T = 1024, bf16, checkpointing")


class Run:
    """What a case keeps from update to update."""

    def __init__(self, case: Case) -> None:
        import torch

        from lmwright.data.batch import Batch
        from lmwright.model.language_model import LanguageModel
        from lmwright.train import parts

        self.case = case
        self.model = LanguageModel(case.model)
        self.model.init_weights(torch.Generator().manual_seed(0))
        chosen = {"name": case.optimizer}
        module, settings = parts.module("optimizers", chosen), parts.settings("optimizers", chosen)
        self.optimizer = module.build(dict(self.model.named_parameters()), settings)
        ids_BT = torch.arange(case.batch * case.length).view(case.batch, -1) % case.model.vocab_size
        positions = torch.arange(case.length).expand(case.batch, -1)
        size = case.length // max(1, case.documents)
        self.batch = Batch(
            ids_BT=ids_BT,
            labels_BT=ids_BT.roll(-1, 1),
            positions_BT=positions % size if case.documents else None,
            segments_BT=positions // size if case.documents else None,
        )

    def update(self) -> None:
        """Make one update, as the package's loop does."""
        from lmwright.objectives import causal
        from lmwright.train import gradient

        gradient.compute(
            self.model,
            causal.loss,
            self.batch,
            micro_batch_size=self.case.micro_batch,
            precision=self.case.precision,
            clip_norm=1.0,
            dropout=lambda number: None,
            recompute=self.case.recompute,
        )
        self.optimizer.step(1.0)


class Loss:
    """Forward and backward of the loss alone, from given hidden states: chunked, or all logits at once."""

    def __init__(self, case: Case) -> None:
        import torch

        from lmwright.model.context import Context
        from lmwright.model.language_model import LanguageModel
        from lmwright.train.precision import DTYPES

        self.case = case
        with torch.device("meta"):
            self.model = LanguageModel(case.model)
        table = torch.zeros(case.model.vocab_size, case.model.hidden_size)
        self.model.model.embed_tokens.weight = torch.nn.Parameter(table)
        self.labels_BT = torch.zeros(case.batch, case.length, dtype=torch.int64)
        self.ctx = Context.dense(self.labels_BT, dtype=DTYPES[case.precision])
        self.hidden_BTD = torch.ones(case.batch, case.length, case.model.hidden_size, dtype=self.ctx.dtype)
        self.hidden_BTD.requires_grad_()

    def update(self) -> None:
        """Leave the gradients of hidden states and head weight."""
        import torch.nn.functional as F

        from lmwright.objectives._cross_entropy import summed_cross_entropy

        self.hidden_BTD.grad = self.model.head_weight.grad = None
        if self.case.loss == "chunked":
            loss = summed_cross_entropy(self.model, self.hidden_BTD, self.labels_BT, self.ctx)[0]
        else:
            logits_NV = self.model.logits(self.hidden_BTD).flatten(0, 1).float()
            loss = F.cross_entropy(logits_NV, self.labels_BT.flatten(), reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]


def status(field: str) -> int:
    """Return a field of /proc/self/status in bytes: VmRSS is resident now, VmHWM the most so far."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("this benchmark reads /proc/self/status: it needs Linux")


def resident(work: Callable[[], object]) -> int:
    """Return by how much resident memory rose at most while `work` ran."""
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the high-water mark, see proc(5)
    work()
    return status("VmHWM") - before


def alive(work: Callable[[], object]) -> int:
    """Return the most bytes of tensors made within `work` that were alive at once, by torch's own account."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        work()
    now = most = 0
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def measure(case: Case, how: str) -> int:
    """Return the bytes of a case; this process does nothing else."""
    import ctypes

    import torch

    from lmwright.train import heap

    if how == "kept":
        heap.keep_memory()
    elif how == "resident":
        ctypes.CDLL(None).mallopt(heap.M_MMAP_THRESHOLD, BLOCK)
    torch.set_num_threads(1)
    sizes = {"hidden_size": 64, "num_layers": 1, "num_heads": 1, "num_kv_heads": None, "ffn_size": 64}
    tiny = replace(case, model=replace(case.model, vocab_size=64, **sizes), batch=1, micro_batch=1)
    kind = Loss if case.loss else Run
    warm = kind(tiny)
    for _ in range(2):
        warm.update()

    def work() -> None:
        run = kind(case)
        for _ in range(UPDATES):
            run.update()

    return alive(work) if how == "tensors" else resident(work)


def planned(case: Case) -> memory.Run:
    """Return a case as the estimate takes it."""
    return memory.Run(
        length=case.length,
        batch_size=case.batch,
        micro_batch_size=case.micro_batch,
        precision=case.precision,
        optimizer=memory_plan.optimizer_memory(case.model, {"name": case.optimizer}),
        recompute=case.recompute,
        document=case.length // case.documents if case.documents else None,
    )


def fresh(name: str, how: str) -> float:
    """Measure a case in a process of its own; return MB."""
    line = [sys.executable, "-m", "benchmarks.memory", "--case", name, "--how", how]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return int(done.stdout) / 1e6


def compare(name: str) -> list[dict[str, Any]]:
    """Return the result lines of a training case: each way of measuring, beside the prediction."""
    case = CASES[name]
    expected = memory.training_memory(case.model, planned(case)).total / 1e6
    found = {how: fresh(name, how) for how in HOW}
    shown = ", ".join(f"{how} {value:,.0f} MB ({expected / value - 1:+.1%})" for how, value in found.items())
    print(f"{name}: predicted {expected:,.0f} MB; {shown}", file=sys.stderr, flush=True)
    return [
        row(
            f"memory of a step, {name}: {how}",
            [value],
            "MB",
            peer="predicted",
            peer_values=[expected],
            target=None if how == "kept" else "within 10%",
            headline=how == "tensors" and name in HEADLINES,
        )
        for how, value in found.items()
    ]


def compare_losses() -> list[dict[str, Any]]:
    """Return the result lines of the loss alone, chunked beside plain."""
    found = {name: fresh(name, "resident") for name in LOSSES}
    return [
        row(
            f"memory of the {name}",
            [value],
            "MB",
            peer="all logits at once",
            peer_values=[found[name.replace("chunked", "plain")]],
        )
        for name, value in found.items()
        if LOSSES[name].loss == "chunked"
    ]


def main() -> None:
    """Measure every case, each in fresh processes, and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="cases whose name holds this; nothing is written")
    parser.add_argument("--case", choices=[*CASES, *LOSSES])
    parser.add_argument("--how", choices=HOW)
    options = parser.parse_args()
    if options.case:
        print(measure((CASES | LOSSES)[options.case], options.how))
        return
    lines = [line for name in CASES if options.only in name for line in compare(name)]
    if options.only:
        return
    lines += compare_losses()
    errors = [abs(line["peer_value"] / line["value"] - 1) for line in lines if line.get("target")]
    extra = [line["ratio"] for line in lines if line["measure"].endswith(": kept")]
    write(
        "memory",
        lines,
        largest_relative_error=max(errors),
        kept_over_predicted=[min(extra), max(extra)],
        updates=UPDATES,
        threads=1,
    )


if __name__ == "__main__":
    main()
