"""Trackio: the project lmwright in the user's trackio folder; `trackio show --project lmwright` shows it.

A run that is resumed goes on under its name; steps that it redoes are the same, and are kept twice. What trackio
says of itself goes to standard error.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmwright.train.trackers import hyperparameters, numbers
from lmwright.train.trackers._identity import PROJECT, identity

LIBRARY = "trackio"


def open_tracker(run: Path, config: Mapping[str, Any]) -> Trackio:
    """Begin the run in trackio, or go on with it."""
    trackio = importlib.import_module(LIBRARY)
    with contextlib.redirect_stdout(sys.stderr):
        handle = trackio.init(
            project=PROJECT,
            name=identity(run, "trackio"),
            config=hyperparameters(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
    return Trackio(trackio, handle)


class Trackio:
    """Keeps the numbers of each record. library: trackio. handle: of the run, as `trackio.init` gives it."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    def write(self, record: Mapping[str, Any]) -> None:
        """Keep the numbers of a record at its step."""
        if found := numbers(record):
            self._handle.log(found, step=record["step"])

    def close(self) -> None:
        """Write what is left and end the run."""
        with contextlib.redirect_stdout(sys.stderr):
            self._library.finish()  # of the handle, it would be finished again as the process ends
