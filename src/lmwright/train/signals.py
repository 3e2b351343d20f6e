"""A polite stop: the first SIGTERM or SIGINT asks the run to save and end, the second ends it at once.

A handler that raised anywhere could tear an update in half. So it raises only inside `interruptible()`, where
nothing that is saved is changed (a forward and backward pass, an evaluation), and elsewhere leaves a mark.

Where several processes train together it never raises, for the others would wait in vain: it leaves a mark, which
all see where they next `agree`. There a second signal is no insistence but the launcher's echo of the first, and
is passed over: the launcher kills what does not end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from lmwright.train.ranks import SINGLE, Ranks

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """Raised inside `interruptible()`; not an Exception, so that nothing on the way takes it for a failure."""


class StopSignals:
    """While entered, catches SIGTERM and SIGINT; does nothing outside the main thread: Python allows none.

    received: the signal that all processes of the run know of.
    """

    def __init__(self, ranks: Ranks = SINGLE) -> None:
        self.received: int | None = None
        self._mark: int | None = None
        self._ranks = ranks
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

    def agree(self) -> None:
        """Raise `Stopped` on all processes if one of several has a signal; every process must call it."""
        if self._ranks.several:
            marks = [mark for mark in self._ranks.gather(self._mark) if mark is not None]
            if marks:
                self.received = marks[0]
                raise Stopped

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A stretch that a signal may leave at any point, by `Stopped`: it must change nothing that is saved."""
        self._interruptible = not self._ranks.several
        try:
            if self.received is not None:
                raise Stopped
            yield
        finally:
            self._interruptible = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._ranks.several:
            self._mark = self._mark or number
            return
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
        if self._interruptible:
            raise Stopped
