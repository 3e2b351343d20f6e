"""Optimisers and schedules in a run file: a table with the name of a file and the settings of that file.

`{name = "cosine", warmup_steps = 100}` is checked against the `Settings` of `schedules/cosine.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import ModuleType
from typing import Any, Literal

from lmwright import seams
from lmwright.config import convert, without_defaults
from lmwright.errors import ConfigError

Kind = Literal["optimizers", "schedules"]


def module(kind: Kind, table: Mapping[str, Any]) -> ModuleType:
    """Import the file that `table['name']` names. Raises ConfigError with the nearest name if there is none."""
    package = f"lmwright.train.{kind}"
    if not isinstance(table.get("name"), str):
        allowed = ", ".join(seams.names(package))
        raise ConfigError(f"{kind}: the table {dict(table)!r} must give name, one of {allowed}")
    return seams.load(package, table["name"])


def settings(kind: Kind, table: Mapping[str, Any]) -> Any:
    """Return the Settings of the file that `table['name']` names, filled from the rest of the table."""
    rest = {key: value for key, value in table.items() if key != "name"}
    return convert(rest, module(kind, table).Settings, f"{kind}.{table['name']}")


def meaning(kind: Kind, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return `table` without what stands at its default, so that a setting added later changes no meaning."""
    return {"name": table["name"], **without_defaults(settings(kind, table))}


def resolved(kind: Kind, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return `table` checked and with every default filled in."""
    return {"name": table.get("name"), **asdict(settings(kind, table))}
