"""Parquet: one document a row, its text in one column.

Read a few rows at a time, and dictionary-coded columns stay coded, so that a small file that stands for many long
rows never becomes them all at once. Knows nothing of the other columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmwright.config import closest
from lmwright.data.documents import Document, Found, Limits, Reject, shown, surrogate_reason

SUFFIXES = (".parquet",)
ROWS = 256
MAX_GROUP_BYTES = 2**31 - 1  # a column chunk is decompressed whole; larger ones do not fit Arrow's strings either


def read(path: Path, limits: Limits) -> Found:
    """Yield one document a row."""
    import pyarrow
    from pyarrow import parquet

    name = shown(path)
    row = 0
    try:
        if not path.is_file():
            yield Reject(name, None, "is not a regular file", "unreadable")
            return
        size = path.stat().st_size
        if not size:
            yield Reject(name, None, "is empty", "empty")
            return
        if problem := _schema_problem(parquet.read_schema(str(path)), name, limits):
            yield problem
            return
        with parquet.ParquetFile(str(path), read_dictionary=[limits.text_field]) as file:
            if problem := _size_problem(file.metadata, name, limits):
                yield problem
                return
            produced = 0
            for values in _batches(file, size, limits):
                for value in values:
                    row += 1
                    result = _result(value, name, row, limits)
                    produced += _size(value)
                    if produced > max(limits.ratio_free_bytes, limits.max_ratio * size):
                        yield Reject(name, row, f"decompression bomb: {size} bytes gave {produced}", "too-large")
                        return
                    yield result
            if not row:
                yield Reject(name, None, "has no rows", "empty")
    except (pyarrow.ArrowException, OSError, MemoryError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        yield Reject(name, row + 1 if row else None, f"cannot be read as parquet ({reason})", "damaged")


def _schema_problem(schema: Any, name: str, limits: Limits) -> Reject | None:
    import pyarrow

    if limits.text_field not in schema.names:
        some = [column[:40] for column in schema.names[:8]]
        hint = closest(limits.text_field, some)
        reason = f"has no column {limits.text_field!r}{hint}; its columns: {', '.join(some)}"
        return Reject(name, None, reason, "field")
    kind = schema.field(limits.text_field).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    types = pyarrow.types
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        return Reject(name, None, f"column {limits.text_field!r} is {kind}, not text", "field")
    return None


def _size_problem(metadata: Any, name: str, limits: Limits) -> Reject | None:
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        for column in (found.column(index) for index in range(found.num_columns)):
            if column.path_in_schema == limits.text_field and column.total_uncompressed_size > MAX_GROUP_BYTES:
                return Reject(name, None, f"row group {group} is larger than {MAX_GROUP_BYTES} bytes", "too-large")
    return None


def _batches(file: Any, size: int, limits: Limits) -> Iterator[Iterator[Any]]:
    """Yield the Arrow values of the text column, a few rows at a time."""
    groups = file.metadata.num_row_groups
    for group in range(groups):
        for batch in file.iter_batches(ROWS, row_groups=[group], columns=[limits.text_field]):
            yield iter(batch.column(0))
        limits.consumed(size // groups)


def _result(value: Any, name: str, row: int, limits: Limits) -> Document | Reject:
    if _size(value) > limits.max_line_bytes:
        return Reject(name, row, f"text is longer than {limits.max_line_bytes} bytes", "too-large")
    try:
        text = value.as_py()
    except UnicodeDecodeError as error:
        return Reject(name, row, f"is not UTF-8 (byte {error.start} of the value)", "encoding")
    if text is None:
        return Reject(name, row, f"column {limits.text_field!r} is null, not text", "field")
    if not text.strip():
        return Reject(name, row, f"column {limits.text_field!r} is empty", "empty")
    if reason := surrogate_reason(text):
        return Reject(name, row, reason, "encoding")
    return Document(text, name, row)


def _size(value: Any) -> int:
    """Return the length in bytes of an Arrow string, coded or plain, without making it a Python one."""
    plain = value.value if hasattr(value, "index") else value
    buffer = plain.as_buffer() if plain is not None and plain.is_valid else None
    return buffer.size if buffer is not None else 0
