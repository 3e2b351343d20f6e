"""The Python standard library of this interpreter: 12 to 30 MB of real text on every machine, nothing to download.

The corpus named `stdlib`: its .py files, without site-packages, caches and empty files. Read as plain text; a few
test files in other encodings become rejects, as they would in any folder.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from lmwright.data.documents import Found, Limits
from lmwright.data.sources import text

SUFFIXES: tuple[str, ...] = ()
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__"}


def files() -> list[Path]:
    """Return the standard library's non-empty .py files."""
    found = []
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        paths = (Path(folder, name) for name in names if name.endswith(".py"))
        found += [path for path in paths if path.is_file() and path.stat().st_size]
    return sorted(found)


def read(path: Path, limits: Limits) -> Found:
    """Yield the documents of one module."""
    return text.read(path, limits)
