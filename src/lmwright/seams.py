"""Seams: adding one thing is adding one file.

A part (a family, a schedule, a source, a processor, a verb) is a file in the folder of its kind; its name is the
file's name. Folders are listed, and a file is imported only when its part is used. There are no registries.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

from lmwright.config import closest
from lmwright.errors import ConfigError


@cache
def names(package: str) -> tuple[str, ...]:
    """Return the parts in the folder of `package` ('lmwright.train.schedules'), sorted; imports none of them.

    Files that start with _ are helpers of the others, and are left out.
    """
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    return tuple(sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")))


@cache
def load(package: str, name: str) -> ModuleType:
    """Import the part `name` of `package`. Raises ConfigError with the nearest name if there is none."""
    if name not in names(package):
        kind = package.rpartition(".")[2]
        allowed = names(package)
        raise ConfigError(f"{kind}: no {name!r}{closest(name, allowed)}; allowed: {', '.join(allowed)}")
    return importlib.import_module(f"{package}.{name}")
