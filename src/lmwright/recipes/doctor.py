"""What the machine can do, measured once and remembered; and what about it is wrong, with the remedy.

- FLOP/s of a large square product by device, dtype, path of fp32 products and number of threads.
- Bytes/s of the STREAM triad (McCalpin 1995) by number of threads: `train.machine.memory_bandwidth`.
- Seconds of a small matrix-vector product, as in decoding one token: where threads that wait for each other lose.

All are taken by turns, several rounds each, so that a disturbed moment does not decide; the best round counts, and
the spread of the rounds says how busy the machine was. The measurement is kept in a file of the user's cache
directory under a fingerprint of processor, cores, torch and thread limits. Knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lmwright.config import convert
from lmwright.errors import LmwrightError
from lmwright.runs import atomic_write_json, environment, read_json

FORMAT = 1
KEPT = 8  # machines in the cache: the same one under other thread limits is another
ROUNDS, BUDGET = 5, 0.1  # seconds of one round of one rate
ARRAY_BYTES = 2**28
SMALL = (2304, 576)  # the feed-forward matrix of a model of 135M parameters
LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One measured quantity. kind: 'flops' (FLOP/s), 'bandwidth' (bytes/s) or 'small' (products/s).

    what: the dtype, and for fp32 the path ('fp32 highest'). best: of all rounds. spread: by how much the median
    round fell short of the best, as a fraction.
    """

    kind: str
    device: str
    what: str
    threads: int
    best: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured, and of what machine.

    identity: processor, cores, torch, thread limits, GPUs. abilities: of the processor, as torch names them.
    native_bf16: whether bf16 products have hardware. matmul_errors: of fp32 products by path, relative to float64.
    matmul: the path that training would take. measured_at: seconds since 1970. peaks: the best FLOP/s that any
    measurement of this machine has shown, by `peak_name`; rates are those of the last one.
    """

    identity: dict[str, Any]
    abilities: list[str]
    native_bf16: bool
    matmul: str
    matmul_errors: dict[str, float]
    array_bytes: int
    rates: list[Rate]
    measured_at: float
    peaks: dict[str, float] = field(default_factory=dict)

    def best(self, kind: str, device: str, what: str) -> Rate | None:
        """Return the best rate of a kind over all numbers of threads, None if none was taken."""
        found = [rate for rate in self.rates if (rate.kind, rate.device, rate.what) == (kind, device, what)]
        return max(found, key=lambda rate: rate.best, default=None)

    def peak(self, dtype: str, device: str, threads: int) -> float | None:
        """Return the best FLOP/s ever seen for 'fp32' or 'bf16', the better path of fp32; None if none was taken.

        On a shared machine this is the honest denominator of MFU: a plan takes the greater of it and its own
        measurement.
        """
        path = self.matmul if device == "cpu" else "highest"
        what = f"fp32 {path}" if dtype == "fp32" else dtype
        return self.peaks.get(peak_name(device, what, threads))


def examine(*, again: bool = False, say: Say = print) -> Machine:
    """Return the machine from the cache, or measure it and keep it there; a few seconds.

    again: measure in any case. say: is told why the cache could not be used or written.
    """
    identity = identify()
    known = recall(identity, say=say)
    if known is not None and not again:
        return known
    machine = measure(identity)
    machine = replace(machine, peaks=_peaks(machine, {} if known is None else known.peaks))
    remember(machine, say=say)
    return machine


def remembered() -> Machine | None:
    """Return what the cache knows of this machine; measures nothing, and is quiet about a cache of no use."""
    return recall(identify(), say=lambda line: None)


def peak_name(device: str, what: str, threads: int) -> str:
    """Return the key of `Machine.peaks`; threads are the CPU's."""
    return f"{device} {what} {threads}" if device == "cpu" else f"{device} {what}"


def _peaks(machine: Machine, before: dict[str, float]) -> dict[str, float]:
    """Return the better of what was seen before and now: nothing makes a machine faster than it is."""
    peaks = dict(before)
    for rate in machine.rates:
        if rate.kind == "flops":
            name = peak_name(rate.device, rate.what, rate.threads)
            peaks[name] = max(rate.best, peaks.get(name, 0.0))
    return peaks


def identify() -> dict[str, Any]:
    """Return what a measurement belongs to."""
    import torch

    facts = environment()
    return {
        **{name: facts[name] for name in ("system", "machine", "processor", "cores")},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "limits": {name: os.environ[name] for name in LIMITS if name in os.environ},
        "gpus": _gpus(),
    }


def measure(identity: dict[str, Any]) -> Machine:
    """Measure everything; the process's threads and path of fp32 products are put back after it."""
    import torch

    from lmwright.train.machine import choose_matmul
    from lmwright.train.precision import native_bf16

    threads, path = torch.get_num_threads(), torch.get_float32_matmul_precision()
    size = array_bytes()
    try:
        matmul = choose_matmul()
        rates = [*_measured(_cpu_trials(threads, size))]
        if torch.cuda.is_available():
            rates += _measured(_gpu_trials(threads))
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(path)
    ask = getattr(torch.cpu, "get_capabilities", dict)  # not in every torch that is supported
    return Machine(
        identity=identity,
        abilities=sorted(name for name, has in ask().items() if has is True),
        native_bf16=native_bf16("cpu"),
        matmul=matmul.path,
        matmul_errors=matmul.errors,
        array_bytes=size,
        rates=rates,
        measured_at=time.time(),
    )


def array_bytes() -> int:
    """Return the size of each array of the triad: larger than any cache, and all three in a quarter of memory."""
    from lmwright.train.machine import free_memory

    return int(min(ARRAY_BYTES, free_memory("cpu") / 12)) // 4096 * 4096


def thread_numbers(most: int) -> list[int]:
    """Return 1, 2, 4 .. and `most`."""
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


@dataclass(frozen=True)
class _Trial:
    """A rate to take: how the process is set for it, and one round, which returns the rate."""

    kind: str
    device: str
    what: str
    threads: int
    path: str
    take: Callable[[], float]


def _measured(trials: Iterable[_Trial]) -> Iterator[Rate]:
    """Take all rates by turns."""
    import torch

    trials = list(trials)
    rounds: list[list[float]] = [[] for _ in trials]
    for _ in range(ROUNDS):
        for trial, seen in zip(trials, rounds, strict=True):
            torch.set_num_threads(trial.threads)
            torch.set_float32_matmul_precision(trial.path)
            seen.append(trial.take())
    for trial, seen in zip(trials, rounds, strict=True):
        best = max(seen)
        spread = 1 - statistics.median(seen) / best
        yield Rate(
            kind=trial.kind, device=trial.device, what=trial.what, threads=trial.threads, best=best, spread=spread
        )


def _cpu_trials(most: int, size: int) -> Iterator[_Trial]:
    import torch

    from lmwright.train import machine

    kinds = (("fp32 highest", torch.float32, "highest"), ("fp32 medium", torch.float32, "medium"))
    for threads in thread_numbers(most):
        for what, dtype, path in (*kinds, ("bf16", torch.bfloat16, "highest")):
            side = 1024 if threads <= 4 else 2048
            yield _Trial("flops", "cpu", what, threads, path, _peak(dtype, "cpu", side))
        yield _Trial(
            "bandwidth",
            "cpu",
            "fp32",
            threads,
            "highest",
            lambda: machine.memory_bandwidth("cpu", size=size, budget=BUDGET),
        )
        yield _Trial("small", "cpu", "fp32", threads, "highest", _small)


def _gpu_trials(threads: int) -> Iterator[_Trial]:
    import torch

    from lmwright.train import machine

    yield _Trial("flops", "cuda", "fp32 highest", threads, "highest", _peak(torch.float32, "cuda", 1024))
    if torch.cuda.get_device_capability()[0] >= 8:
        yield _Trial("flops", "cuda", "tf32", threads, "high", _peak(torch.float32, "cuda", 1024))
        yield _Trial("flops", "cuda", "bf16", threads, "highest", _peak(torch.bfloat16, "cuda", 1024))
    yield _Trial("flops", "cuda", "fp16", threads, "highest", _peak(torch.float16, "cuda", 1024))
    yield _Trial(
        "bandwidth",
        "cuda",
        "fp32",
        threads,
        "highest",
        lambda: machine.memory_bandwidth("cuda", size=ARRAY_BYTES, budget=BUDGET),
    )


def _peak(dtype: Any, device: str, side: int) -> Callable[[], float]:
    from lmwright.train import machine

    return lambda: machine.peak_flops(dtype, device, size=side, budget=BUDGET)


def _small() -> float:
    """Return matrix-vector products a second, the mean of a round: what waits is what counts here."""
    import torch

    matrix, vector = torch.full(SMALL, 0.5), torch.full((1, SMALL[1]), 0.5)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < BUDGET:
        torch.nn.functional.linear(vector, matrix)
        count += 1
    return count / (time.perf_counter() - start)


def _gpus() -> list[dict[str, Any]]:
    """Return name, compute capability and memory of each GPU; what the first can do is measured."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [
        {"name": gpu.name, "capability": f"{gpu.major}.{gpu.minor}", "memory_bytes": gpu.total_memory}
        for gpu in found
    ]


def cache_path() -> Path:
    """Return the file of the cache: in XDG_CACHE_HOME, else in ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The specification has relative paths ignored.
    base = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~")) / ".cache"
    return base / "lmwright" / "machine.json"


def recall(identity: dict[str, Any], *, say: Say) -> Machine | None:
    """Return what the cache knows of this machine, or None, with a line if the file is damaged."""
    path = cache_path()
    if not path.is_file():
        return None
    try:
        entry = _entries(path).get(_fingerprint(identity))
        return None if entry is None else convert(entry, Machine, str(path))
    except LmwrightError as error:
        say(f"{error}: measuring anew")
        return None


def remember(machine: Machine, *, say: Say) -> None:
    """Keep a measurement; the newest few are kept. A directory that cannot be written is said and no error."""
    path = cache_path()
    entries: dict[str, Any] = {}
    with contextlib.suppress(LmwrightError):
        entries = _entries(path)
    entries.pop(_fingerprint(machine.identity), None)
    entries[_fingerprint(machine.identity)] = asdict(machine)
    newest = dict(list(entries.items())[-KEPT:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_json(path, {"format": FORMAT, "machines": newest})
    except (OSError, LmwrightError) as error:
        say(f"{path}: not kept ({getattr(error, 'strerror', None) or error})")


def _entries(path: Path) -> dict[str, Any]:
    """Return the cache's entries. Raises DataError or ConfigError if the file is none; none of another format."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("machines"), dict):
        raise LmwrightError(f"{path}: is damaged: not the cache of `lmwright doctor`")
    entries: dict[str, Any] = content["machines"]
    return entries if content.get("format") == FORMAT else {}


def _fingerprint(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def torch_came_first() -> bool:
    """Return whether torch was imported before lmwright could bound the spinning of its threads."""
    order = [name for name in sys.modules if name in ("torch", "lmwright")]
    return order[:1] == ["torch"]
