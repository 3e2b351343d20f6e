"""JSON Lines: one object a line, its text in one field; also with .gz or .zst after its name.

`.json` files are read the same way, for many tools name JSON Lines so; one whose first line is no object is
rejected once, as a whole. Blank lines are skipped. Knows nothing of the other fields.
"""

from __future__ import annotations

import codecs
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmwright.config import closest
from lmwright.data.documents import Document, Found, Limits, Reject, shown, surrogate_reason
from lmwright.data.reading import Damage, Line, read_lines

LINES = (".jsonl", ".ndjson")
SUFFIXES = tuple(f"{stem}{end}" for stem in (*LINES, ".json") for end in ("", ".gz", ".zst"))
SHOWN_FIELDS = 8  # of the first line's perhaps millions
SHOWN_CHARACTERS = 40


class _Refused(Exception):
    """A line gives no document: kind and reason."""


def read(path: Path, limits: Limits) -> Found:
    """Yield one document a line."""
    name = shown(path)
    certain = any(end in path.name.lower() for end in LINES)
    number, seen = 0, False
    try:
        for line in read_lines(path, limits):
            number = line.number
            if line.data is not None and not line.data.strip():
                continue
            result = _result(line, name, limits)
            if not seen and not certain and isinstance(result, Reject) and result.kind == "malformed":
                yield Reject(name, number, f"is not JSON Lines, one object a line ({result.reason})", "malformed")
                return
            seen = True
            yield result
        if not seen:
            yield Reject(name, None, "is empty", "empty")
    except Damage as damage:
        yield Reject(name, number + 1 if number else None, damage.reason, damage.kind)


def _result(line: Line, name: str, limits: Limits) -> Document | Reject:
    try:
        return Document(_text(line, limits), name, line.number)
    except _Refused as refused:
        kind, reason = refused.args
        return Reject(name, line.number, reason, kind)


def _text(line: Line, limits: Limits) -> str:
    if line.data is None:
        raise _Refused("too-large", f"line is longer than {limits.max_line_bytes} bytes")
    record = _record(line.data.removeprefix(codecs.BOM_UTF8) if line.number == 1 else line.data)
    if not isinstance(record, dict):
        raise _Refused("malformed", f"is a JSON {_kind(record)}, not an object")
    return field_text(record, limits.text_field)


def field_text(record: Mapping[str, Any], field: str) -> str:
    """Return the text of a record. Raises _Refused if it has no usable one."""
    if field not in record:
        some = [name[:SHOWN_CHARACTERS] for name in itertools.islice(record, SHOWN_FIELDS)]
        hint = closest(field, some)
        raise _Refused("field", f"has no field {field!r}{hint}; its fields: {', '.join(some) or 'none'}")
    text = record[field]
    if not isinstance(text, str):
        raise _Refused("field", f"field {field!r} is {_kind(text)}, not text")
    if not text.strip():
        raise _Refused("empty", f"field {field!r} is empty")
    if reason := surrogate_reason(text):
        raise _Refused("encoding", reason)
    return text


def _record(data: bytes) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # msgspec is five times faster; json accepts NaN and tells more about what is wrong
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise _Refused("encoding", f"is not UTF-8 (byte {error.start} of the line)") from None
    except RecursionError:
        raise _Refused("malformed", "is nested too deeply") from None
    except ValueError as error:
        raise _Refused("malformed", f"is not valid JSON ({error})") from None


def _kind(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
