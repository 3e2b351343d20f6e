"""The stages of a quickstart: each is announced, and its seconds are kept in OUT/quickstart.json."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from lmwright.recipes.budget_words import row
from lmwright.runs import atomic_write_json, read_json

Say = Callable[[str], None]
STAGES = (
    *("gather", "tokenizer", "shards", "ladder", "fit", "plan"),
    *("pretrain", "evaluate", "sample", "export", "report"),
)
RECORD = "quickstart.json"


class Stages:
    """Tells which stage begins. What a stage took is known once the next one begins, or at the end.

    A stage that an earlier quickstart in the same place ended has the seconds of then, until it is run again.
    """

    def __init__(self, out: Path, say: Say) -> None:
        self._place, self._say = out / RECORD, say
        self._name: str | None = None
        self._begun = 0.0

    def __call__(self, name: str, what: str) -> None:
        """Begin a stage."""
        self._ended()
        self._say(f"\n[{STAGES.index(name) + 1}/{len(STAGES)}] {name}: {what}")
        self._name, self._begun = name, time.monotonic()

    def end(self) -> None:
        """End the last stage, and say what all of them took."""
        self._ended()
        seconds = self._seconds()
        each = ", ".join(f"{name} {seconds[name]:,.1f}" for name in STAGES if name in seconds)
        self._say(row("seconds", f"{each}; {sum(seconds.values()):,.0f} in all"))

    def _ended(self) -> None:
        if self._name is not None:
            took = {self._name: round(time.monotonic() - self._begun, 3)}
            atomic_write_json(self._place, {"seconds": {**self._seconds(), **took}})

    def _seconds(self) -> dict[str, float]:
        return dict(read_json(self._place)["seconds"]) if self._place.is_file() else {}
