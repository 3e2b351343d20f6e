"""What differs between runs: settings, machine and outcome, side by side.

Settings are the leaves of the resolved configuration, addressed by dotted keys; the machine and the libraries'
versions are those of env.json. Equal ones are left out. Knows nothing of why a run came out as it did.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmwright.report.contents import CONFIG, ENVIRONMENT, RunContents, leaves
from lmwright.report.numbers import Number, numbers
from lmwright.report.wording import plain

NOT_SET = "–"
SEED = "training.seed"
OUTCOMES = (
    *("validation_loss", "bits_per_byte", "average_loss", "average_bits_per_byte", "best_validation_loss"),
    *("training_loss", "steps", "trained_tokens", "parameters", "training_flops"),
    *("seconds", "tokens_per_second", "mfu", "compile_seconds", "peak_memory"),
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting that is not the same in all runs. values: one a run, None where the run does not know it."""

    file: str
    key: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]


def differences(runs: Sequence[RunContents]) -> list[Difference]:
    """Return the settings, then the facts of the machines, that differ, in the order of the files."""
    return [found for file in (CONFIG, ENVIRONMENT) for found in _of_file(runs, file)]


def _of_file(runs: Sequence[RunContents], file: str) -> list[Difference]:
    known = [dict(leaves(run.table(file))) for run in runs]
    keys = dict.fromkeys(key for settings in known for key in settings)
    found = []
    for key in keys:
        # As JSON: true is not 1, and a key that is absent is not null.
        written = {json.dumps(settings[key], sort_keys=True) if key in settings else "" for settings in known}
        if len(written) > 1:
            values = tuple(settings.get(key) for settings in known)
            texts = tuple(plain(settings[key]) if key in settings else NOT_SET for settings in known)
            found.append(Difference(file=file, key=key, values=values, texts=texts))
    return found


def outcomes(runs: Sequence[RunContents]) -> list[tuple[str, str, list[Number | None]]]:
    """Return name, label and each run's number, for the outcomes that at least one run has."""
    found = [numbers(run) for run in runs]
    rows = []
    for name in OUTCOMES:
        values = [known.get(name) for known in found]
        first = next((number for number in values if number is not None), None)
        if first is not None:
            rows.append((name, first.label + (", nats/token" if first.unit == "nats/token" else ""), values))
    return rows
