"""What is told of a fitted law, as tables of text: for a terminal and for a page alike, the heads first.

No number of a law stands without its interval. Knows nothing of where it is printed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from lmwright.scaling import laws
from lmwright.scaling.approaches import Approach
from lmwright.scaling.fit import Fitted
from lmwright.scaling.groups import FARTHEST, Comparison, Number
from lmwright.scaling.lawfit import HeldOut, LawFit
from lmwright.scaling.regions import LEVEL, Regions

Rows = list[list[str]]
Limits = tuple[float, float] | None


def formula(law: str) -> str:
    """Return the equation of a law and its source: the first line of its file."""
    return (laws.load(law).__doc__ or law).splitlines()[0]


def warnings(found: LawFit) -> tuple[str, ...]:
    """Return the warnings of the fit, of its points, of the prediction and of the frontiers that are given."""
    held = () if found.held is None else found.held.warnings
    told = [
        f"approach {one.number}, {one.name}: {note}"
        for one in found.approaches
        if one.frontier is not None
        for note in one.notes
    ]
    return (*found.fitted.warnings, *found.notes, *(f"held-out rung: {warning}" for warning in held), *told)


def parameter_rows(fitted: Fitted) -> Rows:
    """Return each number of the law with its interval by profile, and by bootstrap; '-' where there is none."""
    rows = [["", "value", "interval", "by bootstrap of runs"]]
    for name, value in fitted.natural().items():
        by_profile = name in fitted.coordinates or f"ln_{name}" in fitted.coordinates
        if not by_profile and not fitted.draws:
            continue
        limits = fitted.interval(name)
        drawn = fitted.bootstrap_interval(name) if fitted.draws else None
        shown = f"[{limits.low:.5g}, {limits.high:.5g}]"
        rows.append(
            [
                name,
                f"{value:.5g}" if limits.identified else f"{value:.5g}, not identified",
                shown if by_profile else "-",
                "-" if drawn is None else f"[{drawn.low:.5g}, {drawn.high:.5g}]",
            ]
        )
    return rows


def held_rows(held: HeldOut) -> Rows:
    """Return what was predicted of the largest rung beside what was measured; epochs where text is repeated."""
    points, with_interval = held.points, not math.isnan(held.low[0])
    columns = {
        "parameters": [f"{value:.4g}" for value in points.parameters],
        "tokens": [f"{value:.4g}" for value in points.tokens],
        "epochs": [f"{value:.3g}" for value in points.tokens / points.unique_tokens],
        "FLOPs": [f"{value:.4g}" for value in points.flops],
        "predicted": [f"{value:.4f}" for value in held.loss],
        f"{100 * held.fitted.level:g}% interval": [
            f"[{low:.4f}, {high:.4f}]{'' if within else ' (outside)'}"
            for low, high, within in zip(held.low, held.high, held.within, strict=True)
        ],
        "measured": [f"{value:.4f}" for value in points.loss],
        "error": [f"{100 * value:+.2f}%" for value in held.errors],
    }
    left_out = {name for name in columns if name.endswith("interval")} if not with_interval else set()
    if (points.tokens <= points.unique_tokens).all():
        left_out.add("epochs")
    kept = {name: cells for name, cells in columns.items() if name not in left_out}
    return [list(kept), *map(list, zip(*kept.values(), strict=True))]


def held_summary(held: HeldOut) -> str:
    """Return the mean error, and how many lie in their interval."""
    count = len(held.points)
    within = "" if math.isnan(held.low[0]) else f"; {int(held.within.sum())} of {count} within their interval"
    return f"mean absolute error {100 * abs(held.errors).mean():.2f}%{within}"


def approach_name(one: Approach) -> str:
    """Return the paper's number and the name of an approach."""
    return f"{one.number} {one.name}"


def approach_rows(found: LawFit) -> Rows:
    """Return exponents and optimum at the largest compute of each approach that is told."""
    rows = [["approach", "a", "b", "FLOPs", "N*", "D*"]]
    for one in found.approaches:
        frontier = one.frontier
        if frontier is None:
            continue
        c = frontier.largest
        exponents: list[Limits] = [None, None]
        optima: list[Limits] = [None, None]
        if frontier.draws:
            exponents = [frontier.interval("a"), frontier.interval("b")]
            optima = [(float(low), float(high)) for low, high in frontier.band(c)]
        a, b = frontier.exponents
        rows.append(
            [
                approach_name(one),
                with_interval(a, exponents[0], ".4f"),
                with_interval(b, exponents[1], ".4f"),
                f"{c:.3g}",
                with_interval(float(frontier.parameters(c)), optima[0], ".4g"),
                with_interval(float(frontier.tokens(c)), optima[1], ".4g"),
            ]
        )
    return rows


def budget_rows(found: LawFit) -> Rows:
    """Return the best use of some budgets, by the law's own frontier."""
    rows = [["FLOPs", "N*", "D*", "D*/N*", "loss"]]
    for budget in found.budgets:
        rows.append(
            [
                f"{budget.flops:.3g}",
                with_interval(budget.parameters, budget.parameters_interval, ".4g"),
                with_interval(budget.tokens, budget.tokens_interval, ".4g"),
                f"{budget.tokens / budget.parameters:.3g}",
                with_interval(budget.loss, budget.loss_interval, ".4f"),
            ]
        )
    return rows


def region_lines(regions: Regions) -> Iterator[str]:
    """Yield the regions that were found in words, from small data up."""
    if regions.begin is None or regions.small is None:
        yield "small data: the points show none"
    else:
        yield f"small data: up to {regions.begin:.3g} tokens the loss stays near {regions.small:.4g}"
    low, high = regions.exponent_interval
    where = [
        f"from {regions.begin:.3g}" if regions.begin is not None else "",
        f"to {regions.end:.3g} tokens" if regions.end is not None else "",
    ]
    yield (
        f"power law: {' '.join(filter(None, where)) or 'throughout'}, L ~ D^-{regions.exponent:.4f}, "
        f"{100 * LEVEL:g}% interval [{low:.4f}, {high:.4f}] by least squares"
    )
    if regions.end is None or regions.floor is None:
        yield "irreducible: the points show no end of the fall"
    else:
        yield f"irreducible: beyond {regions.end:.3g} tokens the loss stays near {regions.floor:.4g}"


def comparison_rows(by: str, found: Comparison) -> Rows:
    """Return the table of a comparison, its heads first."""
    exponents = list(dict.fromkeys(name for row in found.rows for name in row.exponents))
    needs = list(dict.fromkeys(name for row in found.rows for name in row.needs))
    heads = [by, "loss", *(f"times the {name}" for name in needs), *exponents]
    cells = [
        [
            row.name,
            _cell(row.loss, ".4f"),
            *("1" if row.name == found.best else _times(row.needs.get(name)) for name in needs),
            *(_cell(row.exponents.get(name), ".4f") for name in exponents),
        ]
        for row in found.rows
    ]
    return [heads, *cells]


def with_interval(value: float, limits: Limits, digits: str) -> str:
    """Return a number with the ends of its interval, where it has one."""
    return f"{value:{digits}}" + ("" if limits is None else f" [{limits[0]:{digits}}, {limits[1]:{digits}}]")


def _cell(number: Number | None, digits: str) -> str:
    return "not told" if number is None else with_interval(*number, digits)


def _times(number: Number | None) -> str:
    """Return how many times, where that is known; what no FARTHEST times suffice for is said so."""
    if number is None:
        return "not told"

    def one(value: float) -> str:
        return f"{value:.3g}" if math.isfinite(value) else f"over {FARTHEST:g}"

    value, interval = number
    return one(value) + ("" if interval is None else f" [{one(interval[0])}, {one(interval[1])}]")
