"""A scaling law on a page: what was fitted to a ladder, what it foretold, its figures with their captions.

    found = law_of(Path("runs/quickstart/ladder"), law=Path("runs/quickstart/law.json"))
    section = law_section(found)

A ladder's runs are read as points and the law is fitted again, by the name, the convention and the draws that the
law file has: each number of the page follows from the run directories. Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmwright.errors import ConfigError, DataError
from lmwright.report import law_tables, run_points
from lmwright.report.figures import tick
from lmwright.report.law_captions import ALT, CAPTIONS
from lmwright.report.law_tables import Rows
from lmwright.report.scaling_comparison import comparison_figure
from lmwright.report.scaling_figures import FIGURES, draw
from lmwright.report.sections import Block, block
from lmwright.report.wording import shortened
from lmwright.scaling.fit import Fitted
from lmwright.scaling.groups import Comparison, compare, fit_apart
from lmwright.scaling.lawfit import LawFit, fit_law
from lmwright.scaling.points import LABELS, Floats, Points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LADDER, LAW = "ladder", "law.json"  # what a run that was planned from a ladder of its own has beside it
DRAWS = 1000  # of the bootstrap where no law file says how many
LONGEST = 60  # letters of a heading
COUNTED = {"kaplan": "without embeddings and head", "chinchilla": "all of them"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text, its heads first, below a heading; note: what to know of it."""

    title: str
    rows: Rows
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class LawSection:
    """What a page shows of a law: paragraphs, tables, figures, warnings."""

    name: str
    heading: str = "Scaling law"
    paragraphs: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    blocks: tuple[Block, ...] = ()
    warnings: tuple[str, ...] = ()


def run_section(run: Path) -> LawSection | None:
    """Return the law of the ladder that lies in a run's directory; None where there is none.

    A ladder or law that cannot be used is told in words: the run has a report all the same.
    """
    if not run_points.is_ladder(run / LADDER):
        return None
    try:
        return law_section(law_of([run / LADDER], law=_beside(run)))
    except (ConfigError, DataError) as error:
        return LawSection(name="law", paragraphs=(f"The ladder gives no law: {error}",))


def ladder_sections(ladders: Sequence[Path]) -> list[LawSection]:
    """Return the law of a ladder; of ladders of several families or domains the law of each, compared.

    Raises ConfigError or DataError where the runs give none.
    """
    points = _points(ladders, None)
    by: Any = next((label for label in LABELS if len(points.labels(label)) > 1), None)
    if by is None:
        [ladder, *more] = ladders
        return [law_section(law_of(ladders, law=None if more else _beside(ladder)))]
    groups = fit_apart(points, by, draws=DRAWS, curves=run_points.curves_of(ladders, points))
    found, why_not = compare(groups)
    sections = [
        law_section(one, name=f"law-{place}", heading=shortened(name, LONGEST))
        for place, (name, one) in enumerate(groups.items())
    ]
    return [_comparison(by, groups, found, why_not), *sections]


def _beside(directory: Path) -> Path | None:
    return directory / LAW if (directory / LAW).is_file() else None


def law_of(ladders: Sequence[Path], *, law: Path | None) -> LawFit:
    """Return the fit of ladders' runs, as the law file says or, without one, as `lmwright fit` does unasked.

    Raises ConfigError or DataError for a damaged law, or runs that give none.
    """
    known = None if law is None else Fitted.from_json(law.read_text(encoding="utf-8"), str(law))
    points = _points(ladders, known)
    asked: dict[str, Any] = {"draws": DRAWS} if known is None else {"law": known.law, "draws": len(known.draws)}
    found = fit_law(points, curves=run_points.curves_of(ladders, points), **asked)
    if known is None or np.allclose(found.fitted.theta, known.theta, rtol=1e-6):  # machines round differently
        return found
    return replace(found, notes=(*found.notes, f"{LAW} holds another fit than these runs give now"))


def _points(ladders: Sequence[Path], known: Fitted | None) -> Points:
    if known is None:
        return run_points.measured(ladders, convention="chinchilla")
    return run_points.measured(ladders, convention=known.convention, metric=known.metric)


def law_section(found: LawFit, *, name: str = "law", heading: str = "Scaling law") -> LawSection:
    """Return what a page shows of a fit. name: unique in the page."""
    fitted = found.fitted
    level = f"{100 * fitted.level:g}%"
    why = f" Chosen because {found.why}." if found.why != "as asked" else ""
    paragraphs = [
        f"{law_tables.formula(fitted.law)}{why}",
        f"Fitted to {fitted.points} points of {fitted.runs} independent runs: {_ends(found.points.parameters)} "
        f"parameters ({COUNTED[fitted.convention]}), {_ends(found.points.tokens)} tokens, losses in "
        f"{fitted.metric}. One run errs by about {100 * fitted.scale:.2g}%.",
    ]
    tables = [
        Table(
            title="Numbers of the law",
            rows=law_tables.parameter_rows(fitted),
            note=f"Intervals at {level}. What is not identified could be anything in its interval, or beyond.",
        ),
        *_held(found),
        *_frontiers(found),
    ]
    if found.regions is not None:
        size, regions = found.regions
        paragraphs.append(
            f"Loss against data at {tick(size)} parameters: {'; '.join(law_tables.region_lines(regions))}."
        )
    else:
        paragraphs.append(f"Regions of the loss against data are not told: {found.no_regions}.")
    return LawSection(
        name=name,
        heading=heading,
        paragraphs=tuple(paragraphs),
        tables=tuple(tables),
        blocks=tuple(_blocks(found, name)),
        warnings=law_tables.warnings(found),
    )


def _ends(column: Floats) -> str:
    return f"{tick(float(column.min()))} to {tick(float(column.max()))}"


def _held(found: LawFit) -> list[Table]:
    if found.held is None:
        return []
    return [
        Table(
            title="The largest rung, foretold",
            rows=law_tables.held_rows(found.held),
            note=f"Set aside first and predicted from the {found.held.fitted.points} other points: "
            f"{law_tables.held_summary(found.held)}. The law above is fitted to all.",
        )
    ]


def _frontiers(found: LawFit) -> list[Table]:
    left = [
        f"{law_tables.approach_name(one)} is not told: {one.why_not}"
        for one in found.approaches
        if not one.frontier
    ]
    rows, tables = law_tables.approach_rows(found), []
    tables.append(
        Table(
            title="The best use of compute, by Chinchilla’s three approaches",
            rows=rows if len(rows) > 1 else [],
            note=" ".join(
                [
                    "N* grows as C^a and D* as C^b; N* and D* are given at the largest compute that was measured.",
                    *(f"{sentence.rstrip('.')}." for sentence in left),
                ]
            ),
        )
    )
    if found.budgets:
        note = "By the law itself, with C = 6ND and new text."
        tables.append(Table(title="Budgets", rows=law_tables.budget_rows(found), note=note))
    return tables


def _blocks(found: LawFit, name: str) -> list[Block]:
    wide, narrow = (draw(found.fitted, found.points, found.frontier, narrow=one) for one in (False, True))
    level = f"{100 * found.fitted.level:g}%"
    made = [
        block(f"{name}-{kind}", _either(wide[kind], narrow[kind]), ALT[kind], CAPTIONS[kind].format(level=level))
        for kind in FIGURES
        if kind in wide
    ]
    return [one for one in made if one is not None]


def _either(wide: Figure, narrow: Figure) -> Callable[..., Figure]:
    return lambda **of: narrow if of.get("narrow") else wide


def _comparison(by: str, groups: dict[str, LawFit], found: Comparison | None, why_not: str) -> LawSection:
    if found is None:
        return LawSection(
            name="comparison", heading="Compared", paragraphs=(f"The groups are not compared: {why_not}.",)
        )
    place = " and ".join(f"{tick(value)} {name}" for name, value in found.place.items())
    drawn = block(
        "comparison",
        lambda **of: comparison_figure(groups, found, **of),
        ALT["comparison"],
        CAPTIONS["comparison"].format(level=f"{100 * found.level:g}%"),
    )
    return LawSection(
        name="comparison",
        heading="Compared",
        paragraphs=(
            f"At {place}, a place inside the ranges of all, {found.best} has the least loss. The table says how "
            "many times as much the others need for it, all else equal; of compute, each makes its own best use.",
        ),
        tables=(Table(title=f"By {by}", rows=law_tables.comparison_rows(by, found)),),
        blocks=() if drawn is None else (drawn,),
        warnings=found.warnings,
    )
