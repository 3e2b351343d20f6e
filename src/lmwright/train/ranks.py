"""The processes of one run: who this one is, and how they agree. Torch is imported only where there are several.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and where the first process listens; without it there
is one process, and nothing here costs or changes anything. Everything small that processes tell each other is JSON
in a tensor of bytes, gathered by gloo on the CPU, in the order of ranks: nothing is pickled, and a number arrives
with all its bits.

A process that fails alone would leave the others waiting for it. So what can fail on one is done in `together`,
where all fail with its message; one that is gone altogether ends the others with `ProcessLost`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from lmwright import errors
from lmwright.errors import ConfigError, LmwrightError

T = TypeVar("T")

# While the first process checks a corpus and tries settings, the others wait as long as that takes; if it ends,
# its closed connection tells them at once. Later, one that does not answer hangs: the longest that the first one
# does alone is to write, sync and hash a checkpoint, under ddp of the whole model.
START_TIMEOUT = timedelta(hours=24)
TIMEOUT = timedelta(minutes=30)
BLOCK = 2048  # bytes that go in one message; what is longer takes a second one
# A process group that goes away waits for its thread, which may wait for Python's lock to free a tensor, while the
# one who lets the group go holds that lock (torch 2.13: ~ProcessGroupGloo joins, ~AsyncAllgatherWork frees): a
# deadlock, seen in one of ten runs whose other process was killed. So none goes before the process ends.
_KEPT: list[Any] = []
# Whoever is the last to let a piece of work go frees its tensors, and takes Python's lock for it. If that is a
# thread of the group while the interpreter ends, the process aborts (Python ends the thread within a destructor,
# which may not be left so). So the latest pieces are let go here, by the end of the process or by newer ones.
_LATEST: deque[Any] = deque(maxlen=16)
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


class ProcessLost(LmwrightError):
    """Another process of the run has ended, or does not answer."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. local: among those of this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1

    def gather(self, value: Any) -> list[Any]:
        """Return what each process gave, in the order of ranks; JSON values, NaN and infinity among them."""
        if not self.several:
            return [value]
        import torch
        from torch import distributed

        data = json.dumps(value).encode()
        head = len(data).to_bytes(8, "little") + data[: BLOCK - 8]
        heads = self._exchange(head.ljust(BLOCK, b"\0"), torch, distributed)
        sizes = [int.from_bytes(one[:8], "little") for one in heads]
        found = [one[8 : 8 + size] for one, size in zip(heads, sizes, strict=True)]
        if max(sizes) > BLOCK - 8:
            tails = self._exchange(data[BLOCK - 8 :].ljust(max(sizes) - BLOCK + 8, b"\0"), torch, distributed)
            found = [(one + tail)[:size] for one, tail, size in zip(found, tails, sizes, strict=True)]
        return [json.loads(one) for one in found]

    def _exchange(self, data: bytes, torch: Any, distributed: Any) -> list[bytes]:
        mine = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        all_of_them = [torch.empty_like(mine) for _ in range(self.world_size)]
        work = distributed.all_gather(all_of_them, mine, async_op=True)
        _LATEST.append(work)
        work.wait()
        return [one.numpy().tobytes() for one in all_of_them]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A stretch that ends well on all processes or fails on all, with one message; no other call within it."""
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            if not self.several:
                raise
            failure = error
        self._agree(failure)

    def once(self, work: Callable[[], T]) -> T:
        """Let the first process alone do something; return to all what it returned (as JSON has it), or fail."""
        if not self.several:
            return work()
        result, failure = None, None
        if self.first:
            try:
                result = work()
            except Exception as error:
                failure = error
        self._agree(failure)
        value: T = self.gather(result)[0]
        return value

    def under_way(self) -> None:
        """From here on a process that does not answer within TIMEOUT is lost; every process must call it."""
        if self.several:
            _wait_at_most(TIMEOUT)

    def _agree(self, failure: Exception | None) -> None:
        """Raise the failure of the first process that has one, on all; the first of all alone will tell it."""
        if not self.several:
            return
        notes = self.gather(None if failure is None else _note(failure))
        number, note = next(((n, note) for n, note in enumerate(notes) if note is not None), (0, None))
        if note is None:
            return
        mine = failure if number == self.rank else None
        # A disk's refusal is one line on the first process, too, where its caller knows what was being written.
        keep = mine is not None and (self.first or not isinstance(mine, OSError))
        error = mine if mine is not None and keep else _rebuilt(number, note)
        if isinstance(error, LmwrightError):
            error.told = not self.first
        raise error from None


SINGLE = Ranks()


def _note(failure: Exception) -> list[str]:
    if isinstance(failure, OSError) and failure.strerror:
        place = f"{failure.filename}: " if failure.filename else ""
        return ["LmwrightError", f"{place}{failure.strerror}"]
    known = isinstance(failure, LmwrightError) and hasattr(errors, type(failure).__name__)
    return [type(failure).__name__ if known else "", str(failure) or type(failure).__name__]


def _rebuilt(number: int, note: Sequence[str]) -> LmwrightError:
    name, message = note
    kind: type[LmwrightError] = getattr(errors, name) if name else LmwrightError
    return kind(message if name else f"process {number} of this run failed: {message}")


def of_environment() -> Ranks:
    """Return this process as torchrun numbered it. Raises ConfigError for numbers that cannot be."""
    given = {name: os.environ.get(name, "") for name in _VARIABLES}
    if given["WORLD_SIZE"] in ("", "1"):
        return SINGLE
    try:
        rank, size = int(given["RANK"]), int(given["WORLD_SIZE"])
        local, local_size = int(given["LOCAL_RANK"] or rank), int(given["LOCAL_WORLD_SIZE"] or size)
    except ValueError:
        rank, size, local, local_size = -1, 0, 0, 0
    met = all(os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT"))
    if not (met and 0 <= rank < size and 0 <= local < local_size <= size):
        shown = ", ".join(f"{name} = {value!r}" for name, value in given.items())
        raise ConfigError(f"environment: {shown} do not number the processes of a run; start it by torchrun")
    return Ranks(rank, size, local, local_size)


@contextlib.contextmanager
def started() -> Iterator[Ranks]:
    """Join the processes of the run, for the time of the block.

    Where each process of a machine can have a GPU, it takes that of its local rank, and tensors there go by NCCL,
    which could not be tried where this was written. Raises ProcessLost if another process ends or does not answer
    within START_TIMEOUT; once they are `under_way`, within TIMEOUT.
    """
    ranks = of_environment()
    if not ranks.several:
        yield ranks
        return
    import torch
    from torch import distributed

    on_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= ranks.local_size
    if on_gpu:
        torch.cuda.set_device(ranks.local_rank)
    lost = True  # until all went well
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    try:
        distributed.init_process_group(backend, timeout=TIMEOUT)
        _KEPT.append(distributed.group.WORLD)
        _wait_at_most(START_TIMEOUT)
        yield ranks
        lost = False
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        raise ProcessLost(
            "another process of this run has ended or does not answer; what was saved is untouched. Its own "
            f"message says why; then go on with --resume ({' '.join(str(error).split())[:120]})"
        ) from error
    finally:
        # Destroying an NCCL group waits for members that may be gone; the end of a process that failed does it.
        if distributed.is_initialized() and not (lost and on_gpu):
            distributed.destroy_process_group()


def _wait_at_most(timeout: timedelta) -> None:
    from torch.distributed import distributed_c10d

    distributed_c10d._set_pg_timeout(timeout)  # private; a group's timeout cannot be changed otherwise


def _is_lost(error: RuntimeError) -> bool:
    from torch import distributed

    return isinstance(error, distributed.DistError) or any(
        word in str(error) for word in ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")
    )
