"""Jobs in processes of this machine. A process does one job after another, for starting torch costs seconds.

A process that dies fails the one job that it had; the next job gets a new one. A process whose parent has died
stops itself, as after SIGTERM, so a run under way is saved and its lock is released.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from lmwright.recipes.workers import Pool, attempt


class _Child:
    """One process, and the pipe to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would take over torch's threads as they stand
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def carry_out(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        try:
            self.pipe.send((function, arguments))
            found: tuple[bool, Any] = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            return False, f"its process ended early, with {how}"
        return found


class Processes(Pool):
    """As many processes as jobs at a time, started when they are first needed."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._mine = threading.local()
        self._children: list[_Child] = []
        self._starting = threading.Lock()
        self._stopped = False

    def carry_out(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        """Have this thread's process do the job; see Pool."""
        with self._starting:
            if self._stopped:
                return False, "was stopped before it began"
            child: _Child | None = getattr(self._mine, "child", None)
            if child is None or not child.process.is_alive():
                child = self._mine.child = _Child()
                self._children.append(child)
        return child.carry_out(function, arguments)

    def stop(self) -> None:
        """Send SIGTERM to every process: a run under way saves its state first."""
        with self._starting:
            self._stopped = True
            for child in self._children:
                child.process.terminate()

    def release(self) -> None:
        """Let the processes end."""
        for child in self._children:
            child.pipe.close()
            child.process.join()


def open_pool(workers: int) -> Processes:
    """Return a pool of so many processes."""
    return Processes(workers)


def _serve(pipe: Connection) -> None:
    """Do job after job until the pipe is closed."""
    os.setpgrp()  # the terminal's Ctrl-C is the parent's, which tells its processes by itself
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # training saves itself first
    threading.Thread(target=_watch_parent, daemon=True).start()
    try:
        while True:
            pipe.send(attempt(*pipe.recv()))
    except (EOFError, ConnectionError):
        return
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to save


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
