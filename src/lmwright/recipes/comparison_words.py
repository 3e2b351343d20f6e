"""Laws of several groups in words: each apart, then beside each other, and as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmwright.inert import inert
from lmwright.recipes import fit_json, fit_words
from lmwright.report.law_tables import comparison_rows
from lmwright.report.terminal import table
from lmwright.scaling.groups import Comparison, Number
from lmwright.scaling.lawfit import LawFit


def lines(by: str, groups: Mapping[str, LawFit], found: Comparison | None, why_not: str) -> Iterator[str]:
    """Yield what is printed: the fit of each group, then the table that sets them beside each other."""
    for name, one in groups.items():
        yield inert(f"{by} {name}")
        yield from (f"  {line}".rstrip() for line in fit_words.lines(one))
        yield ""
    if found is None:
        yield inert(f"not compared: {why_not}")
        return
    place = ", ".join(f"{name} {value:.4g}" for name, value in found.place.items())
    at = f"{place}{'' if found.flops is None else f' ({found.flops:.3g} FLOPs, 6ND)'}"
    yield inert(
        f"compared at {at}, inside the ranges of all; times: how many times as much it takes for the loss of "
        f"{found.best} there, {100 * found.level:g}% intervals"
    )
    yield from table(comparison_rows(by, found))
    yield from (inert(f"warning: {warning}") for warning in found.warnings)


def as_json(by: str, groups: Mapping[str, LawFit], found: Comparison | None, why_not: str) -> dict[str, Any]:
    """Return the same as plain data; a need that is not finite is null."""
    return {
        "by": by,
        "groups": {name: fit_json.as_json(one) for name, one in groups.items()},
        "comparison": None if found is None else _comparison(found),
        "not_compared": why_not or None,
    }


def _comparison(found: Comparison) -> dict[str, Any]:
    return {
        "law": found.law,
        "at": {**found.place, "flops": found.flops},
        "best": found.best,
        "rows": [
            {
                "name": row.name,
                "exponents": {name: _number(number) for name, number in row.exponents.items()},
                "loss": _number(row.loss),
                "times": {name: _number(number) for name, number in row.needs.items()},
            }
            for row in found.rows
        ],
        "warnings": list(found.warnings),
    }


def _number(number: Number) -> dict[str, Any]:
    value, interval = number
    return {
        "value": fit_json.finite(value),
        "interval": interval and [fit_json.finite(end) for end in interval],
    }
