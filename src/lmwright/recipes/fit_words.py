"""A fitted law in words: the law, what it predicted of the largest rung, what it makes of a budget, the regions.

No number of the law stands without its interval. Knows nothing of how it was fitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from lmwright.inert import inert
from lmwright.report.terminal import table
from lmwright.scaling import laws
from lmwright.scaling.approaches import Approach
from lmwright.scaling.lawfit import HeldOut, LawFit
from lmwright.scaling.published.constants import CONSTANTS
from lmwright.scaling.regions import LEVEL, Regions

MOST_ROWS = 12  # of held-out points that are printed
PUBLISHED_FITS = {"chinchilla": ("hoffmann", "besiroglu"), "data-constrained": ("muennighoff",)}


def lines(found: LawFit, *, published: str | None = None) -> list[str]:
    """Return what is printed. published: the name of the points, where the literature has fits of its own."""
    fitted = found.fitted
    first, *rest = fitted.lines()
    text = [
        first,
        f"chosen: {found.why}",
        formula(fitted.law),
        *(line for line in rest if not line.startswith("warning: ")),
        *_published(published),
        "",
        *_held_out(found.held, found.not_held),
        "",
        *_approaches(found),
        *_allocation(found),
        "",
        *_regions(found),
        *(f"warning: {warning}" for warning in warnings(found)),
    ]
    return [inert(line) for line in text]


def short_lines(found: LawFit) -> list[str]:
    """Return what matters most: the law and its points, and how well it foretold the largest of them."""
    text = [found.fitted.lines()[0], formula(found.fitted.law), *_held_out(found.held, found.not_held)]
    return [inert(line) for line in text]


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


def _published(name: str | None) -> Iterable[str]:
    for fit in PUBLISHED_FITS.get(name or "", ()):
        known = CONSTANTS[fit]
        values = ", ".join(f"{key} {value:.5g}" for key, value in known.constants.items())
        yield f"published: {values} ({known.source})"


def _held_out(held: HeldOut | None, why: str) -> Iterable[str]:
    if held is None:
        yield f"the largest rung was not held out: {why}"
        return
    count = len(held.points)
    yield (
        f"held out: the largest rung, {count} point{'s' if count > 1 else ''} of up to "
        f"{held.points.flops.max():.4g} FLOPs, predicted from the {held.fitted.points} others"
    )
    with_interval = not math.isnan(held.low[0])
    columns = _held_columns(held, with_interval)
    yield from table([list(columns), *zip(*columns.values(), strict=True)][: 1 + MOST_ROWS])
    if count > MOST_ROWS:
        yield f"  and {count - MOST_ROWS} more"
    if count > 1:
        yield f"  mean absolute error {100 * abs(held.errors).mean():.2f}%" + (
            f"; {int(held.within.sum())} of {count} within their interval" if with_interval else ""
        )


def _held_columns(held: HeldOut, with_interval: bool) -> dict[str, list[str]]:
    """Return the columns of the table by their heads."""
    points, level = held.points, f"{100 * held.fitted.level:g}% interval"
    columns = {
        "  parameters": [f"  {value:.4g}" for value in points.parameters],
        "tokens": [f"{value:.4g}" for value in points.tokens],
        "epochs": [f"{value:.3g}" for value in points.tokens / points.unique_tokens],
        "FLOPs": [f"{value:.4g}" for value in points.flops],
        "predicted": [f"{value:.4f}" for value in held.loss],
        level: [
            f"[{low:.4f}, {high:.4f}]{'' if within else ' (outside)'}"
            for low, high, within in zip(held.low, held.high, held.within, strict=True)
        ],
        "measured": [f"{value:.4f}" for value in points.loss],
        "error": [f"{100 * value:+.2f}%" for value in held.errors],
    }
    if not with_interval:
        del columns[level]
    if (points.tokens <= points.unique_tokens).all():
        del columns["epochs"]
    return columns


def _approaches(found: LawFit) -> Iterable[str]:
    """Yield exponents and optimum of each approach at the largest compute, then why the others are not told."""
    told = [one for one in found.approaches if one.frontier is not None]
    if told:
        yield (
            f"compute-optimal, N* ~ C^a and D* ~ C^b with N counted as {found.fitted.convention}, at the largest "
            "compute (1 and 2: FLOPs as counted; 3: C = 6ND and new data)"
        )
        yield from table([["  approach", "a", "b", "FLOPs", "N*", "D*"], *(_approach_row(one) for one in told)])
    for one in found.approaches:
        if one.frontier is None:
            yield inert(f"  {_approach_name(one)}: not told: {one.why_not}")


def _approach_name(one: Approach) -> str:
    return f"{one.number} {one.name}"


def _approach_row(one: Approach) -> list[str]:
    frontier = one.frontier
    assert frontier is not None
    c = frontier.largest
    exponents: list[tuple[float, float] | None] = [None, None]
    optima: list[tuple[float, float] | None] = [None, None]
    if frontier.draws:
        exponents = [frontier.interval("a"), frontier.interval("b")]
        optima = [(float(low), float(high)) for low, high in frontier.band(c)]
    a, b = frontier.exponents
    return [
        f"  {_approach_name(one)}",
        _with(a, exponents[0], ".4f"),
        _with(b, exponents[1], ".4f"),
        f"{c:.3g}",
        _with(float(frontier.parameters(c)), optima[0], ".4g"),
        _with(float(frontier.tokens(c)), optima[1], ".4g"),
    ]


def _allocation(found: LawFit) -> Iterable[str]:
    if not found.budgets:
        return
    yield "budgets by the law itself, C = 6ND and new data"
    rows = [["  FLOPs", "N*", "D*", "D*/N*", "loss"]]
    for budget in found.budgets:
        ratio = f"{budget.tokens / budget.parameters:.3g}"
        rows.append(
            [
                f"  {budget.flops:.3g}",
                _with(budget.parameters, budget.parameters_interval, ".4g"),
                _with(budget.tokens, budget.tokens_interval, ".4g"),
                ratio,
                _with(budget.loss, budget.loss_interval, ".4f"),
            ]
        )
    yield from table(rows)


def _regions(found: LawFit) -> Iterable[str]:
    if found.regions is None:
        yield f"regions of the loss against data: not told: {found.no_regions}"
        return
    size, regions = found.regions
    yield f"regions of the loss against data, of the model with N {size:.4g}"
    yield from (f"  {line}" for line in region_lines(regions))


def region_lines(regions: Regions) -> Iterable[str]:
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


def _with(value: float, interval: tuple[float, float] | None, digits: str) -> str:
    return f"{value:{digits}}" + ("" if interval is None else f" [{interval[0]:{digits}}, {interval[1]:{digits}}]")
