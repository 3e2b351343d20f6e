"""Laws of several groups of points beside each other: a family against another, or a domain against another.

    found = fit_apart(points, "family")
    comparison, why_not = compare(found)

Kaplan et al. 2020, arXiv:2001.08361, figure 7, sets LSTMs beside Transformers so. One law is fitted to each group
apart; then they are asked at one place that lies inside the ranges of all: what loss each gives, and how many
times the parameters, the tokens or the compute each needs for the loss of the best. Knows nothing of what the
groups are.
"""

# R rows (places), P coordinates, B draws

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lmwright.errors import ConfigError
from lmwright.scaling import laws
from lmwright.scaling.fit.bootstrap import percentiles
from lmwright.scaling.fit.checks import TRUSTED
from lmwright.scaling.frontier import log_along
from lmwright.scaling.lawfit import LawFit, fit_law
from lmwright.scaling.points import Floats, Points
from lmwright.seeds import numpy_generator

By = Literal["family", "domain"]
UNSAID = "not said"
FARTHEST = 1e4  # times the place: how far a need is looked for
PLACES = 801
RECURRENT = frozenset({"lstm"})  # families whose state runs on from one sequence into the next
Number = tuple[float, tuple[float, float] | None]  # with its interval; None without draws


@dataclass(frozen=True, kw_only=True)
class Row:
    """A group at the place. exponents: by the law's names; a, b: of its frontier. loss: of the law.

    needs: by column of the law, and compute: how many times it takes for the loss of the best group, all else
    equal; infinite where no FARTHEST times are enough.
    """

    name: str
    exponents: dict[str, Number]
    loss: Number
    needs: dict[str, Number]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Groups at one place: the largest of each column that all groups reach. best: the group with the least loss.

    flops: 6ND of the place, where the law reads both. rows: a group each. warnings: what to doubt.
    """

    law: str
    level: float
    place: dict[str, float]
    flops: float | None
    best: str
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]


def fit_apart(
    points: Points, by: By, *, law: str = "auto", curves: Points | None = None, **settings: Any
) -> dict[str, LawFit]:
    """Fit a law to the points of each label, in order of appearance. law, settings: as `fit_law` takes them.

    Raises ConfigError where all points have one label, or the points of one cannot be fitted.
    """
    names = points.labels(by)
    if len(names) < 2:
        raise ConfigError(
            f"fit: every point has the {by} {names[0] or UNSAID!r}, so there is nothing to compare; leave --by "
            f"away, or add points of another {by}"
        )
    found = {}
    for name in names:
        part = points.take([label == name for label in getattr(points, by)])
        mask = [] if curves is None else [label == name for label in getattr(curves, by)]
        along_runs = curves.take(mask) if curves is not None and any(mask) else None
        try:
            found[name or UNSAID] = fit_law(part, law=law, curves=along_runs, **settings)
        except ConfigError as error:
            raise ConfigError(f"{by} {name or UNSAID!r}: {error}") from None
    return found


def compare(groups: Mapping[str, LawFit]) -> tuple[Comparison | None, str]:
    """Return the groups at one place; None, and why, where they have no law or no place in common."""
    chosen = {name: one.fitted.law for name, one in groups.items()}
    if len(set(chosen.values())) > 1:
        told = ", ".join(f"{name}: {law}" for name, law in chosen.items())
        return None, f"the groups' points tell different laws ({told}); name one for all by --law"
    law = next(iter(chosen.values()))
    inputs = [name for name in laws.load(law).INPUTS if name != "unique_tokens"]
    place, apart = {}, []
    for name in inputs:
        columns = [getattr(one.points, name) for one in groups.values()]
        place[name] = min(float(column.max()) for column in columns)
        if place[name] < max(float(column.min()) for column in columns):
            apart.append(name)
    if apart:
        return None, f"the groups' ranges of {' and '.join(apart)} do not meet, so no place is inside all of them"
    return _at(law, groups, place), ""


def _at(law: str, groups: Mapping[str, LawFit], place: dict[str, float]) -> Comparison:
    columns = {**place, "unique_tokens": place.get("tokens", 1.0)}
    asked = {name: np.array([value]) for name, value in columns.items()}
    losses = {name: _log_losses(one, asked)[:, 0] for name, one in groups.items()}
    best = min(losses, key=lambda name: losses[name][0])
    flops = 6 * place["parameters"] * place["tokens"] if {"parameters", "tokens"} <= place.keys() else None
    rows, warnings = [], []
    for name, one in groups.items():
        needs: dict[str, Number] = {}
        if name != best:
            order = _pairing(name, losses, best)
            target = losses[best][order]
            for column in place:
                needs[column] = _number(_needed(one, columns, column, target), one, groups[best])
            if flops is not None and one.frontier is not None and groups[best].frontier is not None:
                goal = _frontier_losses(groups[best], np.array([flops]))[:, 0][order]
                needs["compute"] = _number(_compute_needed(one, flops, goal), one, groups[best])
            at, most = {**place, "6ND": flops or 0.0}, one.fitted.largest
            warnings += [
                f"{name}: the {what} for the loss of {best} lie over {TRUSTED:g} times beyond its points"
                for what, (times, _) in needs.items()
                if times * at[kind := "6ND" if what == "compute" else what] > TRUSTED * most[kind]
            ]
        rows.append(
            Row(name=name, exponents=_exponents(one), loss=_number(np.exp(losses[name]), one, one), needs=needs)
        )
    return Comparison(
        law=law, level=groups[best].fitted.level, place=place, flops=flops, best=best, rows=tuple(rows),
        warnings=(*_unequal(groups), *warnings),
    )  # fmt: skip


def _unequal(groups: Mapping[str, LawFit]) -> list[str]:
    """Warn of groups whose losses are of unequal contexts."""
    found = []
    known = {name: one.fitted for name, one in groups.items() if one.fitted.families}
    endless = [name for name, fitted in known.items() if RECURRENT & set(fitted.families)]
    rows = [name for name in known if name not in endless]
    if endless and rows:
        found.append(
            f"{', '.join(endless)}: the state runs on through the text, while a token of {', '.join(rows)} sees "
            "no more than its context: a part of the difference is that of contexts"
        )
    lengths = {name: one.fitted.contexts for name, one in groups.items() if one.fitted.contexts}
    if len(set(lengths.values())) > 1:
        told = "; ".join(f"{name}: {', '.join(map(str, length))}" for name, length in lengths.items())
        found.append(f"the contexts differ ({told} tokens), and a longer one lowers the loss")
    return found


def _thetas(one: LawFit) -> Floats:
    """Return the fitted coordinates and those of each draw below, [1 + B, P]."""
    return np.array([one.fitted.theta, *one.fitted.draws])


def _log_losses(one: LawFit, columns: Mapping[str, Floats]) -> Floats:
    """Return ln L of the fit and of each draw, [1 + B, R]."""
    law = laws.load(one.fitted.law)
    found: Floats = law.log_loss(_thetas(one), {name: np.log(columns[name]) for name in law.INPUTS})[0]
    return found


def _pairing(name: str, losses: Mapping[str, Floats], best: str) -> np.ndarray:
    """Return which draw of the best group stands beside each of this one's; the fits themselves stand together.

    Groups are drawn by equal random numbers, so a draw beside its twin would err as that does.
    """
    random = numpy_generator(0, f"draws of {list(losses).index(name)} beside others")
    others, own = len(losses[best]) - 1, len(losses[name]) - 1
    picked = (
        random.permutation(np.resize(np.arange(1, others + 1), own)) if others and own else np.array([], np.int64)
    )
    return np.concatenate([[0], picked]).astype(np.int64)


def _needed(one: LawFit, columns: Mapping[str, float], column: str, target: Floats) -> Floats:
    """Return how many times the column's value it takes for ln L to fall to the target of each draw, [1 + B]."""
    times = np.geomspace(1 / FARTHEST, FARTHEST, PLACES)
    asked = {name: np.full(PLACES, value) for name, value in columns.items()}
    asked[column] = asked[column] * times
    if column == "tokens":
        asked["unique_tokens"] = asked[column]
    return _crossing(np.log(times), _log_losses(one, asked), target)


def _compute_needed(one: LawFit, flops: float, target: Floats) -> Floats:
    times = np.geomspace(1 / FARTHEST, FARTHEST, PLACES)
    return _crossing(np.log(times), _frontier_losses(one, flops * times), target)


def _frontier_losses(one: LawFit, flops: Floats) -> Floats:
    """Return the least ln L of budgets, by the fit and by each draw, [1 + B, R]."""
    assert one.frontier is not None
    law, rows = laws.load(one.fitted.law), []
    for theta_P, line in zip(_thetas(one), (one.frontier.line, *one.frontier.draws), strict=True):
        log_n, log_d = log_along(line, flops)
        columns = {"parameters": log_n, "tokens": log_d, "unique_tokens": log_d}
        rows.append(law.log_loss(theta_P[None], {name: columns[name] for name in law.INPUTS})[0][0])
    return np.array(rows)


def _crossing(log_times: Floats, heights_BR: Floats, target_B: Floats) -> Floats:
    """Return e to the place at which each falling curve is first at its target, infinite where it never is."""
    found = np.full(len(target_B), math.inf)
    for draw, (heights, target) in enumerate(zip(heights_BR, target_B, strict=True)):
        below = np.flatnonzero(heights <= target)
        if below.size:
            last = max(int(below[0]), 1)
            pair = slice(last - 1, last + 1)
            found[draw] = math.exp(float(np.interp(-target, -heights[pair], log_times[pair])))
    return found


def _number(values: Floats, one: LawFit, other: LawFit) -> Number:
    """Return the first value, and the interval of the rest."""
    if len(values) == 1:
        return float(values[0]), None
    freedom = min(one.fitted.freedom, other.fitted.freedom)
    (low,), (high,) = percentiles(values[1:, None], one.fitted.level, freedom)
    return float(values[0]), (float(low), float(high))


def _exponents(one: LawFit) -> dict[str, Number]:
    """Return the exponents of the law, and of its frontier where it has one."""
    fitted, natural = one.fitted, one.fitted.natural()
    found: dict[str, Number] = {}
    for name in fitted.coordinates:
        if not name.startswith("ln_"):
            limits = fitted.interval(name)
            found[name] = natural[name], (limits.low, limits.high)
    if one.frontier is not None:
        for name, value in zip(("a", "b"), one.frontier.exponents, strict=True):
            found[name] = value, one.frontier.interval(name) if one.frontier.draws else None
    return found
