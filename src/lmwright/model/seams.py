"""Names that are file names: a part of the model is found by listing a folder, and imported on use.

Knows nothing of what the files hold; the folders' own docstrings say that.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

from lmwright.errors import ConfigError


@cache
def names(folder: str) -> tuple[str, ...]:
    """The parts in `model/<folder>/`, sorted; nothing is imported."""
    here = Path(__file__).parent / folder
    return tuple(sorted(path.stem for path in here.glob("*.py") if not path.stem.startswith("_")))


@cache
def load(folder: str, name: str) -> ModuleType:
    """The module `lmwright.model.<folder>.<name>`; ConfigError where no such file exists."""
    if name not in names(folder):
        raise ConfigError(f"model: no {name!r} in lmwright.model.{folder}; allowed: {', '.join(names(folder))}")
    return importlib.import_module(f"lmwright.model.{folder}.{name}")
