"""The name under which a run is known elsewhere: made once and kept with it, so a resume finds it again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from lmwright.runs import atomic_write_text
from lmwright.train.trackers import FOLDER

PROJECT = "lmwright"
LONGEST = 40


def folder(run: Path, tracker: str) -> Path:
    """Return the folder of a tracker in the run directory, made if it is not there."""
    place = run / FOLDER / tracker
    place.mkdir(parents=True, exist_ok=True)
    return place


def identity(run: Path, tracker: str) -> str:
    """Return the run's id: its name and a hash of its place and of when it was made.

    A run that is made anew in the same place is another one, for a tracker takes no step twice.
    """
    kept = folder(run, tracker) / "id"
    if kept.is_file():
        return kept.read_text(encoding="utf-8").strip()
    place = run.resolve()
    facts = f"{place} {(run / 'env.json').stat().st_mtime_ns}".encode("utf-8", "surrogateescape")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", place.name)[:LONGEST].strip("-") or "run"
    made = f"{name}-{hashlib.sha256(facts).hexdigest()[:8]}"
    atomic_write_text(kept, made + "\n")
    return made
