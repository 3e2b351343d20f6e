"""Reading small files of a model directory that somebody else may have written.

Every read is bounded: a regular file only (a pipe would hang), of a stated size at most, decoded as JSON
with repeated keys refused. Free of torch.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from lmwright.errors import CheckpointError

CONFIG_LIMIT = 1 << 20  # bytes; a config.json has a few thousand
INDEX_LIMIT = 1 << 24  # bytes; 100,000 tensors' worth


def regular_size(path: Path) -> int:
    """Size in bytes of a regular file (links followed). CheckpointError where it is none."""
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(f"{path}: cannot be read ({reason})") from None
    if not stat.S_ISREG(facts.st_mode):
        raise CheckpointError(f"{path}: is not a regular file")
    return facts.st_size


def read_object(path: Path, limit: int) -> dict[str, Any]:
    """The JSON object in the file. CheckpointError where it is too large, not JSON or not an object."""
    size = regular_size(path)
    if size > limit:
        raise CheckpointError(f"{path}: has {size} bytes; at most {limit} are read")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    return parse_object(data, str(path))


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """JSON bytes -> dict. CheckpointError on anything else, on a repeated key and on absurd nesting."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from None
    except RecursionError:
        raise CheckpointError(f"{where}: is nested too deeply") from None
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise CheckpointError(f"{where}: is not valid JSON ({str(error)[:200]})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: must be a JSON object, not {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise CheckpointError(f"key {name[:80]!r} is there twice")
            seen.add(name)
    return table
