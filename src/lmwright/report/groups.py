"""Runs that differ only in their seed are one group: its mean is drawn, and its spread is the noise of the seed.

Settings that do not touch what is learned (threads, what is kept, who is told) may differ too. A mean is taken
over the runs that have ended, one for each seed. Knows nothing of what is compared.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lmwright.report.contents import CONFIG, RunContents, leaves
from lmwright.report.difference import SEED

ASIDE = {SEED} | {
    f"training.{name}"
    for name in ("threads", "parallel", "checkpoint_every", "keep_checkpoints", "keep_best", "trackers")
}
SEED_NAME = re.compile(r"([-_. =/]+(seed|s)?|seed)[-_. =/]*\d*$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one configuration. counted: those of `runs` that figures are taken over, one a seed."""

    name: str
    runs: tuple[RunContents, ...]
    counted: tuple[RunContents, ...]

    @property
    def rest(self) -> list[RunContents]:
        """The runs that are not counted."""
        return [run for run in self.runs if all(run is not one for one in self.counted)]

    @property
    def seeds(self) -> list[str]:
        """The seeds of the counted runs."""
        return [run.text(CONFIG, SEED) or "none" for run in self.counted]


def group(runs: Sequence[RunContents]) -> list[Group]:
    """Return the runs in groups, in the order in which each group's first run stands."""
    alike: dict[str, list[RunContents]] = {}
    for run in runs:
        settings = sorted((key, value) for key, value in leaves(run.table(CONFIG)) if key not in ASIDE)
        alike.setdefault(json.dumps(settings), []).append(run)
    names = dict(zip(map(id, runs), run_names(runs), strict=True))
    found: list[Group] = []
    for members in alike.values():
        name = group_name([names[id(run)] for run in members])
        taken = sum(name == other.name for other in found)
        found.append(
            Group(name=f"{name} ({taken + 1})" if taken else name, runs=tuple(members), counted=_counted(members))
        )
    return found


def _counted(runs: Sequence[RunContents]) -> tuple[RunContents, ...]:
    """Return one run a seed, of those that have ended, or of all where none has."""
    ended = [run for run in runs if run.records("end")]
    by_seed: dict[str | None, RunContents] = {}
    for run in ended or runs:
        by_seed.setdefault(run.text(CONFIG, SEED), run)
    return tuple(by_seed.values())


def run_names(runs: Sequence[RunContents]) -> list[str]:
    """Return each run's own name or, where two share one, its path below the folder that all are in."""
    names = [run.name for run in runs]
    places = [run.path.resolve() for run in runs]
    if len(set(names)) == len(set(places)):
        return names
    above = os.path.commonpath([place.parent for place in places])
    return [os.path.relpath(place, above) for place in places]


def group_name(names: Sequence[str]) -> str:
    """Return what the names begin with alike, without what leads to a seed: base-s0, base-s1 -> base."""
    if len(set(names)) == 1:
        return names[0]
    alike = 0
    while len({name[: alike + 1] for name in names}) == 1:
        alike += 1
    return SEED_NAME.sub("", names[0][:alike]) or names[0]
