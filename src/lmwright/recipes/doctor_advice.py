"""What `lmwright doctor` says: a machine's figures in aligned lines, and warnings with cause and remedy.

Works on what was measured (`recipes.doctor`) and what is free this moment; measures nothing itself.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmwright.recipes.doctor import LIMITS, Machine, Rate, torch_came_first

NOISE = 0.2  # spread of the rounds above which a machine is called busy
GAIN = 1.05  # a thread pays if it makes things at least this much faster
LITTLE_DISK, LITTLE_MEMORY = 10 * 2**30, 2 * 2**30
SPIN_LONGEST = 100_000
GIGA = 1e9
# Those that decide how fast products are; --json has all.
ABILITIES = (
    *("avx2", "avx512_f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_fp16", "amx_int8"),
    *("neon", "bf16", "i8mm", "sve", "sve2"),
)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What changes from minute to minute. memory, disk: bytes free. torch_first: see `doctor.torch_came_first`."""

    memory: float
    disk: int
    spin: str | None
    torch_first: bool


def look(place: Path) -> Moment:
    """Return what is free now: memory of this process's group, disk at `place`."""
    from lmwright.train.machine import free_memory

    return Moment(
        memory=free_memory("cpu"),
        disk=shutil.disk_usage(place).free,
        spin=os.environ.get("GOMP_SPINCOUNT"),
        torch_first=torch_came_first() and "GOMP_SPINCOUNT" not in _given_environment(),
    )


def describe(machine: Machine, moment: Moment) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of each line."""
    identity = machine.identity
    yield "processor", f"{identity['processor'] or identity['machine']}, {identity['cores']} cores"
    yield (
        "abilities",
        ", ".join(name for name in ABILITIES if name in machine.abilities)
        or "none of those that make products fast",
    )
    limits = ", ".join(f"{name}={identity['limits'][name]}" for name in LIMITS if name in identity["limits"])
    yield "torch", f"{identity['torch']}, {identity['threads']} threads ({limits or 'no limits set'})"
    for what in dict.fromkeys(rate.what for rate in machine.rates if _is(rate, "flops", "cpu")):
        yield what, _series(machine, "flops", "cpu", what, "GFLOP/s") + _path(machine, what)
    triad = f" (triad, three arrays of {machine.array_bytes / 2**20:,.0f} MiB)"
    yield "memory", _series(machine, "bandwidth", "cpu", "fp32", "GB/s") + triad
    small = [rate for rate in machine.rates if _is(rate, "small", "cpu")]
    times = ", ".join(f"{1e6 / rate.best:,.0f} us with {_threads(rate)}" for rate in small)
    yield "small product", f"{times} (matrix-vector, as in decoding a token)"
    yield "threads", threads_that_pay(machine)
    for gpu in identity["gpus"]:
        yield (
            "GPU",
            f"{gpu['name']}, compute capability {gpu['capability']}, {gpu['memory_bytes'] / 2**30:,.0f} GiB",
        )
    for rate in machine.rates:
        if rate.device == "cuda":
            unit = "TFLOP/s" if rate.kind == "flops" else "TB/s (triad)"
            yield f"GPU {rate.what if rate.kind == 'flops' else 'memory'}", f"{rate.best / 1e12:,.2f} {unit}"
    yield "free", f"{moment.memory / 2**30:,.1f} GiB of memory, {moment.disk / 2**30:,.1f} GiB of disk"
    yield "measured", time.strftime("%Y-%m-%d %H:%M", time.localtime(machine.measured_at))


def threads_that_pay(machine: Machine) -> str:
    """Say for large products, memory and small products which number of threads is the fastest."""
    parts = []
    for name, kind, what in (
        ("large products", "flops", f"fp32 {machine.matmul}"),
        ("memory", "bandwidth", "fp32"),
        ("small products", "small", "fp32"),
    ):
        parts.append(f"{_paying(machine, kind, what)} for {name}")
    return ", ".join(parts) + "; each run measures its own"


def warnings(machine: Machine, moment: Moment) -> Iterator[str]:
    """Yield what is wrong, why, and what to do."""
    if moment.torch_first:
        yield (
            "torch was imported before lmwright, so GOMP_SPINCOUNT came too late and waiting threads spin without "
            "bound: on a busy machine small operations slow down many times; import lmwright first, or set "
            "GOMP_SPINCOUNT=10000 in the environment"
        )
    elif moment.spin is None or not moment.spin.isdecimal() or int(moment.spin) > SPIN_LONGEST:
        yield (
            f"GOMP_SPINCOUNT = {moment.spin or 'unset'}: waiting threads spin without bound, and on a busy "
            "machine small operations slow down many times; set GOMP_SPINCOUNT=10000 before torch is imported"
        )
    elif int(moment.spin) == 0:
        yield (
            "GOMP_SPINCOUNT = 0: waiting threads sleep at once, which halves the speed of small operations on an "
            "idle machine; set GOMP_SPINCOUNT=10000"
        )
    yield from _slow_paths(machine)
    yield from _slow_threads(machine)
    yield from _noise(machine)
    if moment.disk < LITTLE_DISK:
        yield (
            f"only {moment.disk / 2**30:,.1f} GiB of disk are free here: checkpoints of a model of P parameters "
            "take 12 P bytes each; make room, or give --out on another disk"
        )
    if moment.memory < LITTLE_MEMORY:
        yield (
            f"only {moment.memory / 2**30:,.1f} GiB of memory are free: close other programs, or train with a "
            "small training.micro_batch_size"
        )


def _slow_paths(machine: Machine) -> Iterator[str]:
    bf16 = machine.best("flops", "cpu", "bf16")
    fp32 = machine.best("flops", "cpu", f"fp32 {machine.matmul}")
    if bf16 is None or fp32 is None:
        return
    if not machine.native_bf16:
        yield (
            "this processor has no bf16 products (AVX512-BF16 or AMX), so bf16 is emulated: "
            f"{bf16.best / GIGA:,.0f} GFLOP/s beside {fp32.best / GIGA:,.0f} in fp32; leave precision at "
            "'auto', which is fp32 here"
        )
    elif bf16.best < fp32.best:
        yield (
            f"bf16 is native and yet slower than fp32 ({bf16.best / GIGA:,.0f} against {fp32.best / GIGA:,.0f} "
            "GFLOP/s): torch was built without its fast path for this processor; use precision = 'fp32', or "
            "another build of torch"
        )


def _slow_threads(machine: Machine) -> Iterator[str]:
    for name, kind, what in (
        ("large products", "flops", f"fp32 {machine.matmul}"),
        ("small products", "small", "fp32"),
    ):
        by_threads = {rate.threads: rate.best for rate in machine.rates if _is(rate, kind, "cpu", what)}
        if 2 in by_threads and by_threads[1] > GAIN * by_threads[2]:
            yield (
                f"{name} are {by_threads[1] / by_threads[2]:.1f} times faster with one thread than with two: the "
                "second core is shared with others, or two threads are one core; use threads = 1 (auto finds it), "
                "and see that nothing else runs"
            )


def _noise(machine: Machine) -> Iterator[str]:
    noisy = [rate for rate in machine.rates if rate.spread > NOISE]
    if noisy:
        worst = max(noisy, key=lambda rate: rate.spread)
        yield (
            f"the machine is busy: {len(noisy)} of {len(machine.rates)} rates were usually more than {NOISE:.0%} "
            f"below their best (worst: {worst.kind} {worst.what} with {_threads(worst)}, {worst.spread:.0%}); end "
            "other programs and measure with --again; times of runs will vary as much"
        )


def _paying(machine: Machine, kind: str, what: str) -> int:
    """Return the fewest threads that no larger number beats by more than 5%."""
    rates = {rate.threads: rate.best for rate in machine.rates if _is(rate, kind, "cpu", what)}
    return min(threads for threads, rate in rates.items() if rate * GAIN >= max(rates.values()))


def _is(rate: Rate, kind: str, device: str, what: str | None = None) -> bool:
    return (rate.kind, rate.device) == (kind, device) and what in (None, rate.what)


def _series(machine: Machine, kind: str, device: str, what: str, unit: str) -> str:
    rates = [rate for rate in machine.rates if _is(rate, kind, device, what)]
    return ", ".join(f"{rate.best / GIGA:,.1f} with {_threads(rate)}" for rate in rates) + f" {unit}"


def _path(machine: Machine, what: str) -> str:
    name, _, path = what.partition(" ")
    if name != "fp32":
        return ", native" if machine.native_bf16 else ", emulated"
    error = machine.matmul_errors[path]
    if path == "highest":
        return f", relative error {error:.1e}"
    verdict = "taken" if machine.matmul == path else "refused"
    return f", relative error {error:.1e}: {verdict}"


def _threads(rate: Rate) -> str:
    return "1 thread" if rate.threads == 1 else f"{rate.threads} threads"


def _given_environment() -> set[str]:
    """Return the names of the variables that the process was started with, where the system tells."""
    try:
        found = Path("/proc/self/environ").read_bytes()
    except OSError:
        return set()
    return {entry.partition(b"=")[0].decode(errors="replace") for entry in found.split(b"\0")}
