"""A fitted law in words: the law, what it predicted of the largest rung, what it makes of a budget, the regions.

No number of the law stands without its interval. Knows nothing of how it was fitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lmwright.inert import inert
from lmwright.report.law_tables import (
    approach_name,
    approach_rows,
    budget_rows,
    formula,
    held_rows,
    held_summary,
    region_lines,
    warnings,
)
from lmwright.report.terminal import table
from lmwright.scaling.lawfit import HeldOut, LawFit
from lmwright.scaling.published.constants import CONSTANTS

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
    yield from indented(held_rows(held)[: 1 + MOST_ROWS])
    if count > MOST_ROWS:
        yield f"  and {count - MOST_ROWS} more"
    if count > 1:
        yield f"  {held_summary(held)}"


def _approaches(found: LawFit) -> Iterable[str]:
    """Yield exponents and optimum of each approach at the largest compute, then why the others are not told."""
    told = [one for one in found.approaches if one.frontier is not None]
    if told:
        yield (
            f"compute-optimal, N* ~ C^a and D* ~ C^b with N counted as {found.fitted.convention}, at the largest "
            "compute (1 and 2: FLOPs as counted; 3: C = 6ND and new data)"
        )
        yield from indented(approach_rows(found))
    for one in found.approaches:
        if one.frontier is None:
            yield f"  {approach_name(one)}: not told: {one.why_not}"


def _allocation(found: LawFit) -> Iterable[str]:
    if found.budgets:
        yield "budgets by the law itself, C = 6ND and new data"
        yield from indented(budget_rows(found))


def _regions(found: LawFit) -> Iterable[str]:
    if found.regions is None:
        yield f"regions of the loss against data: not told: {found.no_regions}"
        return
    size, regions = found.regions
    yield f"regions of the loss against data, of the model with N {size:.4g}"
    yield from (f"  {line}" for line in region_lines(regions))


def indented(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table whose lines begin a little to the right."""
    return [f"  {line}" for line in table(rows)]
