"""A polite stop: the first SIGTERM or SIGINT asks the run to save and end, the second ends it at once.

A handler that raised anywhere could tear an update in half. So it raises only inside `interruptible()`, where
nothing that is saved is changed (a forward and backward pass, an evaluation), and elsewhere leaves a mark.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """Raised inside `interruptible()`; not an Exception, so that nothing on the way takes it for a failure."""


class StopSignals:
    """While entered, catches SIGTERM and SIGINT; does nothing outside the main thread: Python allows none."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._interruptible = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A stretch that a signal may leave at any point, by `Stopped`: it must change nothing that is saved."""
        self._interruptible = True
        try:
            if self.received is not None:
                raise Stopped
            yield
        finally:
            self._interruptible = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
        if self._interruptible:
            raise Stopped
