"""Trackers mirror a run's log elsewhere: one file each, named as the configuration names it.

    trackers = open_trackers(("tensorboard", "wandb"), run, config)
    trackers[0].write({"kind": "step", "step": 12, "loss": 3.1})      # -> train/loss = 3.1 at step 12

metrics.jsonl stays the truth: a tracker is told each record after it was written there, and nothing is read back.
A file defines LIBRARY, what must be installed, and `open_tracker(run, config) -> Tracker`. What a tracker keeps
lies in the run directory under trackers/NAME. Knows nothing of what the records mean.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lmwright import seams
from lmwright.errors import ConfigError

EXTRA = "pip install lmwright[trackers]"
FOLDER = "trackers"  # in the run directory
PREFIXES = {"step": "train"}  # of a kind of record; any other kind is its own prefix


class Tracker(Protocol):
    """Where the records of a run are mirrored to."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Mirror one record of the log: an object with kind and step."""

    def close(self) -> None:
        """Send what is left and let go."""


Warn = Callable[[str], None]


def require(names: Sequence[str]) -> None:
    """Raise ConfigError unless each tracker is known, named once, and its library is installed; imports none."""
    for number, name in enumerate(names):
        library = seams.load(__name__, name).LIBRARY
        if name in names[:number]:
            raise ConfigError(f"trackers: {name} is named twice; name it once")
        if importlib.util.find_spec(library) is None:
            raise ConfigError(f"trackers: {name} needs the package {library}: {EXTRA}, or leave it out")


def open_trackers(
    names: Sequence[str], run: Path, config: Mapping[str, Any], *, warn: Warn | None = None
) -> tuple[Tracker, ...]:
    """Open the trackers of the run directory `run`; call it before the first step.

    config: the resolved configuration, mirrored as hyperparameters. warn: is told when one fails later; None
    writes to standard error. One that fails then is left out from there on, and the training goes on.

    Raises ConfigError if one cannot be opened: a missing library, no login, no way to its server.
    """
    require(names)
    opened: list[Tracker] = []
    try:
        for name in names:
            opened.append(_Guarded(name, _open(name, run, config), warn or _to_standard_error))
    except BaseException:
        for tracker in opened:
            tracker.close()
        raise
    return tuple(opened)


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record by name: `train/` for a step, else the kind; kind and step left out."""
    prefix = PREFIXES.get(str(record["kind"]), record["kind"])
    return {
        f"{prefix}/{name}": value
        for name, value in record.items()
        if name not in ("kind", "step") and isinstance(value, int | float) and not isinstance(value, bool)
    }


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return the configuration as one level of dotted keys; what is no plain value is written as text."""
    return dict(_leaves(config, ""))


def _leaves(tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, bool | int | float | str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value if isinstance(value, bool | int | float | str) else str(value)


def _open(name: str, run: Path, config: Mapping[str, Any]) -> Tracker:
    try:
        tracker: Tracker = seams.load(__name__, name).open_tracker(run, config)
        return tracker
    except ImportError as error:  # the package is there, but not whole
        raise ConfigError(f"trackers: {name} cannot be imported ({error}); {EXTRA}, or leave it out") from None
    except Exception as error:
        raise ConfigError(
            f"trackers: {name} cannot be opened ({type(error).__name__}: {error}); see to that, or leave it out"
        ) from error


class _Guarded:
    """A tracker that may fail: then it warns once and is silent from there on."""

    def __init__(self, name: str, tracker: Tracker, warn: Warn) -> None:
        self._name = name
        self._tracker: Tracker | None = tracker
        self._warn = warn

    def write(self, record: Mapping[str, Any]) -> None:
        """Mirror the record, if the tracker still works."""
        if self._tracker is not None:
            self._try(self._tracker.write, record)

    def close(self) -> None:
        """Close the tracker, if it still works; a second time is nothing."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            self._try(tracker.close)

    def _try(self, call: Callable[..., None], *values: Any) -> None:
        # Whatever a library of others raises, the training is worth more than its mirror.
        try:
            call(*values)
        except Exception as error:
            self._tracker = None
            self._warn(
                f"{self._name}: fails ({type(error).__name__}: {error}) and is left out from here on; training "
                "goes on, and metrics.jsonl holds every record"
            )


def _to_standard_error(message: str) -> None:
    print(f"lmwright: {message}", file=sys.stderr)
