"""A fitted law as plain data: all that `fit_words` says, at full precision; what is not finite is null."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from lmwright.report.law_tables import formula, warnings
from lmwright.scaling.approaches import Approach
from lmwright.scaling.fit import Fitted
from lmwright.scaling.frontier import Frontier
from lmwright.scaling.lawfit import BestUse, HeldOut, LawFit


def as_json(found: LawFit) -> dict[str, Any]:
    """Return a fit as plain data."""
    fitted = found.fitted
    return {
        "law": fitted.law,
        "formula": formula(fitted.law),
        "chosen": found.why,
        "convention": fitted.convention,
        "metric": fitted.metric,
        "points": fitted.points,
        "runs": fitted.runs,
        "objective": fitted.objective,
        "delta": fitted.delta,
        "starts": {"made": fitted.starts, "followed": fitted.followed, "agreed": fitted.agreed},
        "noise": fitted.scale,
        "level": fitted.level,
        "parameters": {name: _parameter(fitted, name, value) for name, value in fitted.natural().items()},
        "held_out": None if found.held is None else _held_json(found.held),
        "not_held_out": found.not_held or None,
        "frontier": _frontier_json(found),
        "approaches": [_approach_json(one) for one in found.approaches],
        "regions": _regions_json(found),
        "no_regions": found.no_regions or None,
        "no_frontier": found.no_frontier or None,
        "warnings": list(warnings(found)),
    }


def _parameter(fitted: Fitted, name: str, value: float) -> dict[str, Any]:
    """Return a number of the law with its intervals; without any, the number is left out."""
    by_profile = name in fitted.coordinates or f"ln_{name}" in fitted.coordinates
    if not by_profile and not fitted.draws:
        return {"value": None, "identified": None}
    limits = fitted.interval(name)
    drawn = fitted.bootstrap_interval(name) if fitted.draws else None
    return {
        "value": finite(value),
        "identified": limits.identified,
        "interval": [finite(limits.low), finite(limits.high)],
        "by": "profile" if by_profile else "bootstrap",
        "bootstrap": None if drawn is None else [finite(drawn.low), finite(drawn.high)],
    }


def _held_json(held: HeldOut) -> list[dict[str, Any]]:
    points = held.points
    return [
        {
            "run": points.run[row],
            "parameters": float(points.parameters[row]),
            "tokens": float(points.tokens[row]),
            "flops": float(points.flops[row]),
            "predicted": finite(float(held.loss[row])),
            "interval": [finite(float(held.low[row])), finite(float(held.high[row]))],
            "measured": float(points.loss[row]),
            "error": finite(float(held.errors[row])),
            "within": None if math.isnan(held.low[row]) else bool(held.within[row]),
        }
        for row in range(len(points))
    ]


def _frontier_json(found: LawFit) -> dict[str, Any] | None:
    frontier = found.frontier
    if frontier is None:
        return None
    return {
        "flops": "6ND",
        **_exponents_json(frontier),
        "budgets": [_budget_json(budget) for budget in found.budgets],
    }


def _exponents_json(frontier: Frontier) -> dict[str, Any]:
    return {
        name: {"value": value, "interval": list(frontier.interval(name)) if frontier.draws else None}
        for name, value in zip(("a", "b"), frontier.exponents, strict=True)
    }


def _approach_json(one: Approach) -> dict[str, Any]:
    """Return an approach with its optimum at the largest compute, or why it is not told."""
    told: dict[str, Any] = {"approach": one.number, "name": one.name, "notes": list(one.notes)}
    frontier = one.frontier
    if frontier is None:
        return {**told, "why_not": one.why_not}
    c = frontier.largest
    bands = frontier.band(c) if frontier.draws else (None, None)
    optimum = {
        name: {"value": float(value), "interval": within and [float(end) for end in within]}
        for name, value, within in zip(
            ("parameters", "tokens"), (frontier.parameters(c), frontier.tokens(c)), bands, strict=True
        )
    }
    kind = "6ND" if one.name == "parametric" else "as counted"
    return {**told, **_exponents_json(frontier), "flops": kind, "at": c, **optimum}


def _regions_json(found: LawFit) -> dict[str, Any] | None:
    if found.regions is None:
        return None
    size, regions = found.regions
    return {"parameters": size, **dataclasses.asdict(regions)}


def _budget_json(budget: BestUse) -> dict[str, Any]:
    names = ("parameters", "tokens", "loss")
    pairs = {name: (getattr(budget, name), getattr(budget, f"{name}_interval")) for name in names}
    return {
        "flops": budget.flops,
        **{name: {"value": value, "interval": within and list(within)} for name, (value, within) in pairs.items()},
    }


def finite(value: float) -> float | None:
    """Return the value, None for one that JSON has no number for."""
    return value if math.isfinite(value) else None
