"""How numbers and hostile text are written: digits grouped, units scaled, control characters made visible.

A number is written so that a reader can say it aloud: four significant digits for what was measured, all digits
for what was counted, SI prefixes for what is large. Text that a model or a file produced may hold anything;
`visible` turns what would act or deceive (control characters, direction overrides, lone surrogates) into printed
signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

NOT_FINITE = "not finite"
LONGEST_FLOAT = 12
MINUS, TIMES = "−", "×"
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def shortened(text: str, limit: int) -> str:
    """Return the first `limit` characters of `text`, and how many are not shown."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … ({integer(len(text) - limit)} more characters)"


def clipped(text: str, limit: int) -> str:
    """Return `text`, or so much of it that it has `limit` characters with an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def integer(value: float) -> str:
    """12345678 -> 12,345,678."""
    return f"{round(value):,}".replace("-", MINUS) if math.isfinite(value) else NOT_FINITE


def all_digits(value: float) -> str:
    """Every digit that the value has, so that whoever reads it can compute with it."""
    return repr(value) if math.isfinite(value) else NOT_FINITE


def significant(value: float, digits: int = 4) -> str:
    """Four significant digits: 2.43098 -> 2.431, 0.0000123 -> 1.23 × 10⁻⁵, 24767.2 -> 24,767."""
    if not math.isfinite(value):
        return NOT_FINITE
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if exponent < -4 or exponent >= 15:
        mantissa = f"{rounded / 10.0**exponent:.{digits - 1}f}".rstrip("0").rstrip(".")
        return f"{mantissa} {TIMES} 10{str(exponent).translate(SUPERSCRIPT)}".replace("-", MINUS)
    if exponent >= digits:
        return integer(value)
    return f"{rounded:,.{digits - 1 - exponent}f}".replace("-", MINUS)


def si(value: float, unit: str = "", digits: int = 4) -> str:
    """Four significant digits under an SI prefix: 8.749e11 with FLOP -> 874.9 GFLOP."""
    if not math.isfinite(value):
        return NOT_FINITE
    for size, prefix in PREFIXES:
        if abs(float(f"{value:.3e}")) >= size:
            return f"{significant(value / size, digits)} {prefix}{unit}".rstrip()
    number = integer(value) if value == round(value) else significant(value, digits)
    return f"{number} {unit}".rstrip()


def percent(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """A share as percent with three significant digits: 0.4213 -> 42.1%; signed adds + to what grew."""
    if not math.isfinite(value):
        return NOT_FINITE
    text = significant(value * 100, digits)
    return f"{'+' if signed and value > 0 else ''}{text}%"


def duration(seconds: float) -> str:
    """A time as a person says it: 0.84 -> 0.84 s, 252 -> 4 min 12 s, 11000 -> 3 h 03 min."""
    if not math.isfinite(seconds):
        return NOT_FINITE
    if seconds < 0:
        return f"{MINUS}{duration(-seconds)}"
    if seconds < 59.95:
        return f"{significant(seconds, 3)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def write_spread(value: float, style: str) -> str:
    """Write a standard deviation beside its mean, see `write`: two digits, for it is itself an estimate."""
    rounded = float(f"{value:.1e}")
    if style in ("significant", "percent"):
        return {"significant": significant, "percent": percent}[style](rounded, 2)
    return write(rounded, style) if style in ("integer", "change", "duration") else si(rounded, style, 2)


def write(value: float | None, style: str) -> str:
    """Write a number as integer, significant, percent, change or duration, or under an SI unit such as FLOP."""
    if value is None:
        return "–"
    plain: dict[str, Callable[[float], str]] = {
        "integer": integer,
        "significant": significant,
        "percent": percent,
        "change": partial(percent, signed=True),
        "duration": duration,
    }
    return plain[style](value) if style in plain else si(value, style)


def plain(value: Any) -> str:
    """Return a value of a configuration as text: none, true, 0.001, a list with commas."""
    words = {None: "none", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    if isinstance(value, list):
        return ", ".join(plain(item) if not isinstance(item, list) else "[…]" for item in value) or "[]"
    if isinstance(value, dict):
        return "{…}" if value else "{}"
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_FINITE
    text = str(value)
    return significant(value, 6) if isinstance(value, float) and len(text) > LONGEST_FLOAT else text
