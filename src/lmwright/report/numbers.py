"""Computes the numbers of `rules` for one run, each with the values that went in.

Where the inputs of a rule are absent the number is left out. A division by zero or an overflow gives a number that
is not finite, and it is said to be so; nothing is invented for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lmwright.inert import visible
from lmwright.report.contents import RunContents
from lmwright.report.rules import RULES, Rule
from lmwright.report.wording import all_digits, write

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Number:
    """A computed number. inputs: symbol of the formula -> (address, value)."""

    name: str
    label: str
    value: float
    unit: str
    style: str
    formula: str
    inputs: dict[str, tuple[str, float]]

    @property
    def text(self) -> str:
        """The value as the report prints it."""
        return write(self.value, self.style)

    @property
    def exact(self) -> str:
        """The value with every digit it has."""
        return all_digits(self.value)

    @property
    def sources(self) -> list[tuple[str, str, str, str]]:
        """Each input as symbol, value with every digit, file, and key in the file."""
        parts = ((symbol, value, place.partition(":")) for symbol, (place, value) in self.inputs.items())
        return [(symbol, all_digits(value), file, key) for symbol, value, (file, _, key) in parts]

    def to_dict(self) -> dict[str, Any]:
        """Return the number as JSON holds it; a value that is not finite is null, and `text` says so."""
        inputs = {
            symbol: {"source": place, "value": _finite(value)} for symbol, (place, value) in self.inputs.items()
        }
        return {
            "label": self.label,
            "value": _finite(self.value),
            "text": self.text,
            "unit": self.unit,
            "formula": self.formula,
            "inputs": inputs,
        }


def numbers(run: RunContents) -> dict[str, Number]:
    """Return the numbers that the run's files give, by name, in the order of the rules."""
    found: dict[str, Number] = {}
    for rule in RULES:
        number = None if rule.name in found else _apply(rule, run)
        if number is not None:
            found[rule.name] = number
    return found


def summarise(run: RunContents) -> dict[str, Any]:
    """Return what summary.json holds: each number with value, unit, formula and the sources of its inputs."""
    return {
        "format": FORMAT,
        "run": visible(run.name),
        "files": [name for name in (*run.files, *(["metrics.jsonl"] if run.metrics else []))],
        "numbers": {name: number.to_dict() for name, number in numbers(run).items()},
    }


def _apply(rule: Rule, run: RunContents) -> Number | None:
    values = {symbol: run.number(address) for symbol, address in rule.inputs.items()}
    known = {symbol: value for symbol, value in values.items() if value is not None}
    if len(known) < len(values):
        return None
    try:
        value = rule.compute(**known)
    except ZeroDivisionError:
        value = math.nan
    except OverflowError:
        value = math.inf
    inputs = {symbol: (rule.inputs[symbol], number) for symbol, number in known.items()}
    return Number(
        name=rule.name,
        label=rule.label,
        value=value,
        unit=rule.unit,
        style=rule.style,
        formula=rule.formula,
        inputs=inputs,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
