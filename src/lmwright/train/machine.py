"""What this machine does best, measured and not guessed: threads, the path of fp32 products, peak FLOP/s.

Times are the least of several: on a shared machine a disturbed moment adds to a time, and nothing takes from it.
Who has a deadline takes the median of `timed`, for other work will not stand still for it.

- Threads. A second thread makes a large model faster and, on a shared machine, a small one slower; so the actual
  workload is timed with one and with all, by turns, so that a disturbed moment does not decide.
- fp32 products. 'medium' lets oneDNN take over from MKL, which is slow on some processors (2.2 times on AMD Zen);
  but where there are AMX units it may compute in bf16. It is taken only if its error against float64 is that of
  fp32 and it is faster.
- Bandwidth. The best rate of the triad a <- b + s c over arrays far larger than any cache, three arrays a pass
  (McCalpin 1995, STREAM): what a decoding step or an optimiser is bound by.
- Free memory. What the system has left, and not more than this process's control group may still take.
- Peak. The best rate of a large square product, in the dtype and with the threads of the run: the denominator of
      MFU = training FLOPs per token x tokens per second / peak FLOP/s     (Chowdhery et al. 2022, appendix B)

Decisions are stored with the run: sums in another order differ in the last bit, and a resume is bitwise.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

MATMUL_ERROR = 1e-5
TURNS = 3


@dataclass(frozen=True, kw_only=True)
class Threads:
    """The chosen number, and the seconds of the workload for each number that was tried."""

    threads: int
    seconds: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class Matmul:
    """The chosen path, and for each path its relative error against float64 and its seconds."""

    path: Literal["highest", "medium"]
    errors: dict[str, float]
    seconds: dict[str, float]


def choose_threads(workload: Callable[[], object], *, budget: float = 1.5) -> Threads:
    """Time `workload` with one thread and with all that PyTorch would use, and set the faster number.

    budget: seconds for each, beyond the calls that warm up.
    """
    numbers = sorted({1, torch.get_num_threads()})
    seconds = dict.fromkeys(numbers, float("inf"))
    end = time.perf_counter() + budget * len(numbers)
    for turn in range(TURNS):
        if turn and time.perf_counter() > end:
            break
        for number in numbers:
            torch.set_num_threads(number)
            workload()
            seconds[number] = min(seconds[number], least_seconds(workload, budget=budget / TURNS))
    best = min(seconds, key=lambda number: seconds[number])
    torch.set_num_threads(best)
    return Threads(threads=best, seconds=seconds)


def least_seconds(workload: Callable[[], object], *, budget: float, most: int = 25) -> float:
    """Return the least time of up to `most` calls, as many as fit into the budget and at least one."""
    return min(timed(workload, budget=budget, most=most))


def timed(workload: Callable[[], object], *, budget: float, most: int) -> list[float]:
    """Return the times of up to `most` calls, as many as fit into the budget and at least one."""
    times: list[float] = []
    while not times or (len(times) < most and sum(times) < budget):
        start = time.perf_counter()
        workload()
        times.append(time.perf_counter() - start)
    return times


def choose_matmul(size: int = 256) -> Matmul:
    """Return the CPU's path of fp32 products: 'medium' only if as exact as fp32 and faster. Sets nothing."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(size, size, generator=generator)
    right = torch.randn(size, size, generator=generator)
    before = torch.get_float32_matmul_precision()
    errors, seconds = {}, {}
    try:
        for path in ("highest", "medium"):
            torch.set_float32_matmul_precision(path)
            errors[path] = relative_error(left, right)
            seconds[path] = least_seconds(lambda: torch.nn.functional.linear(left, right), budget=0.1, most=25)
    finally:
        torch.set_float32_matmul_precision(before)
    faster = errors["medium"] < MATMUL_ERROR and seconds["medium"] < seconds["highest"]
    return Matmul(path="medium" if faster else "highest", errors=errors, seconds=seconds)


def relative_error(left: torch.Tensor, right: torch.Tensor) -> float:
    """Return the largest error of a linear layer's product against float64, relative to the largest entry."""
    linear = torch.nn.functional.linear
    exact = linear(left.double(), right.double())
    return float((linear(left, right).double() - exact).abs().max() / exact.abs().max())


def peak_flops(dtype: torch.dtype, device: str, *, size: int = 1024, budget: float = 0.25) -> float:
    """Return the best FLOP/s of a square product of `size` in `dtype` with the current number of threads."""
    if device == "cuda":
        size *= 8
    left, right = (torch.full((size, size), 0.5, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    end = time.perf_counter() + budget
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        torch.nn.functional.linear(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


def memory_bandwidth(device: str, *, size: int = 2**28, budget: float = 0.25) -> float:
    """Return the best bytes/s of the triad a <- b + s c over three arrays of `size` bytes each.

    As in STREAM, a write counts once, though a processor may read the line before it writes it.
    """
    a, b, c = (torch.full((size // 4,), 0.5, device=device) for _ in range(3))

    def triad() -> None:
        torch.add(b, c, alpha=3.0, out=a)
        if device == "cuda":
            torch.cuda.synchronize()

    triad()  # maps the pages
    return 3 * 4 * a.numel() / least_seconds(triad, budget=budget, most=1000)


def free_memory(device: str) -> float:
    """Return the bytes that can still be taken: of the GPU, or of this process; infinity where unknown."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    free = math.inf
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                free = 1024.0 * int(line.split()[1])
    return max(0.0, min([free, *_groups_free(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]))


def _groups_free(membership: Path, root: Path) -> Iterator[float]:
    """Yield what this process's control group, and each above it, may still take; versions 1 and 2.

    Pages of files that the kernel would drop first count as free, as they do in MemAvailable.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        place, limit, used, cached = (
            (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else (root, "memory.max", "memory.current", "inactive_file")
        )
        inner = place / path.lstrip("/")
        for group in (inner, *inner.parents):
            # A container may see its own group as the root, and not the path that the host gave it.
            with contextlib.suppress(OSError, ValueError):  # 'max': no limit
                most = int((group / limit).read_text())
                taken = int((group / used).read_text())
                yield float(most - taken + _statistic(group / "memory.stat", cached))
            if group == place:
                break


def _statistic(path: Path, name: str) -> int:
    words = path.read_text().split()
    return int(words[words.index(name) + 1]) if name in words else 0


def current_memory(device: str) -> int:
    """Return the bytes held now: of the GPU, or of this process (where the system tells, else 0)."""
    if device == "cuda":
        return int(torch.cuda.memory_allocated())
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def peak_memory(device: str) -> int:
    """Return the most bytes held so far: of the GPU, or of this process."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
