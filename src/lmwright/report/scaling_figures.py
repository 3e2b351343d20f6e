"""The figures of a scaling law: functions from a fitted law and its points to a matplotlib figure.

    figure = frontier_figure(fitted, points, frontier)
    figure.savefig("frontier.png")

Axes and bands are those of `scaling_drawing`. As in `figures`, `narrow=True` is for a phone, and a function
returns None where there is nothing to draw. Knows nothing of how a law was fitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmwright.errors import ConfigError
from lmwright.report.figures import LETTERS, NARROW, WIDE, canvas, end_labels, frame, tick
from lmwright.report.scaling_drawing import (
    columns_of,
    counted,
    curve,
    draw_law,
    fill,
    frame_logs,
    inputs_of,
    last_height,
    log_axis,
    loss_name,
    loss_of,
    power,
    scatter,
)
from lmwright.report.svg import FAINT, INK, SERIES, own_settings, svg_text
from lmwright.report.wording import significant
from lmwright.runs import atomic_write_text, refuse_existing_file
from lmwright.scaling import regions
from lmwright.scaling.fit import Fitted
from lmwright.scaling.fit.bootstrap import percentiles
from lmwright.scaling.fit.checks import TRUSTED
from lmwright.scaling.frontier import Frontier
from lmwright.scaling.frontier.isoflop import valleys
from lmwright.scaling.laws.data_constrained import effective_tokens
from lmwright.scaling.points import Points
from lmwright.scaling.regions import REPEATED, Regions
from lmwright.scaling.valley import Valley

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURES = ("frontier", "isoflop", "residuals", "loss-against-data", "repeats")
DRAWN = 120  # places of a curve
MOST = len(SERIES)
SIZES = 3  # of which a budget has a valley
LOWEST = 0.4  # of the least loss: how low E may lie to be drawn
SAME = 0.02  # of ln N and ln U: points of one model and one corpus
LETTER = 0.52  # width of a letter by its height, about
AXES_WIDTH = 0.8  # of the figure's


@own_settings()
def frontier_figure(
    fitted: Fitted, points: Points, frontier: Frontier | None, *, narrow: bool = False
) -> Figure | None:
    """The compute-optimal N* and the least loss against FLOPs, with their bands, and what was measured."""
    if frontier is None:
        return None
    figure, (sizes, losses) = canvas(2, height=560 if narrow else 320, narrow=narrow)
    measured = 6 * points.parameters * points.tokens
    flops = np.geomspace(measured.min(), TRUSTED * measured.max(), DRAWN)
    best, budget = frontier.parameters(flops), frontier.tokens(flops)
    scatter(sizes, measured, points.parameters)
    if frontier.draws:
        low, high = frontier.band(flops)[0]
        fill(sizes, flops, low, high)
    curve(sizes, flops, best)
    scatter(losses, measured, points.loss)
    columns = {"parameters": best, "tokens": budget, "unique_tokens": budget}
    draw_law(losses, fitted, columns, flops)
    for axes, name in ((sizes, f"N*, {counted(points)}"), (losses, loss_name(points))):
        axes.axvline(math.log10(measured.max()), color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
        frame_logs(axes, x="FLOPs (6ND)", y=name)
    return figure


@own_settings()
def isoflop_figure(fitted: Fitted, points: Points, *, narrow: bool = False) -> Figure | None:
    """Loss against N at equal FLOPs: points, the law along each budget, and the bottom of each valley.

    Budgets and bottoms are those of approach 2, which reads finished points that do not repeat their data.
    """
    new_R = (points.tokens <= REPEATED * points.unique_tokens) & points.finished
    points = points.take(new_R) if new_R.any() else points
    found = _fullest(points)
    if not found or "parameters" not in inputs_of(fitted):
        return None
    height, labels = 320 if narrow else 400, []
    figure, (axes,) = canvas(1, height=height, narrow=narrow)
    reads_tokens = {"parameters", "tokens"} <= set(inputs_of(fitted))
    for color, (rows, valley) in zip(SERIES, found, strict=False):
        part = points.take(rows)
        scatter(axes, part.parameters, part.loss, color=color, alpha=0.9)
        if reads_tokens:
            product = float(np.exp(np.mean(part.log("parameters") + part.log("tokens"))))
            sizes = np.geomspace(part.parameters.min() / 1.3, part.parameters.max() * 1.3, DRAWN)
            tokens = product / sizes
            columns = {"parameters": sizes, "tokens": tokens, "unique_tokens": tokens}
            draw_law(axes, fitted, columns, sizes, color=color, banded=False)
        if valley.problem is None:
            scatter(axes, np.exp([valley.log_place]), np.array([valley.loss]), color=INK, alpha=1, marker="x")
        middle = float(np.exp(part.log("flops").mean()))
        labels.append((math.log10(part.loss[part.parameters.argmax()]), f"{power(middle)} FLOPs", color))
    frame_logs(axes, x=f"N, {counted(points)}", y=loss_name(points))
    end_labels(axes, labels, height)
    return figure


@own_settings()
def residuals_figure(fitted: Fitted, points: Points, *, narrow: bool = False) -> Figure | None:
    """Measured above predicted loss in percent, against FLOPs and against tokens a parameter; band: two noises."""
    figure, both = canvas(2, height=440 if narrow else 260, narrow=narrow)
    excess = 100 * (points.log("loss") - np.log(loss_of(fitted, columns_of(points))))
    against = {"training FLOPs": points.flops, "tokens for each parameter": points.tokens / points.parameters}
    for axes, (name, x) in zip(both, against.items(), strict=True):
        axes.axhspan(-200 * fitted.scale, 200 * fitted.scale, color=FAINT, alpha=0.14, linewidth=0)
        axes.axhline(0, color=FAINT, linewidth=1)
        for done, color in ((points.finished, SERIES[0]), (~points.finished, SERIES[1])):
            if done.any():
                scatter(axes, x[done], excess[done], color=color, log_y=False)
        frame(axes, x=name, y="measured above the law, %")
        log_axis(axes, "x")
    return figure


@own_settings()
def data_figure(fitted: Fitted, points: Points, *, narrow: bool = False) -> Figure | None:
    """Loss against tokens, sizes apart, with the law along each size, and what it never falls below.

    The regions of the model that was run for the most numbers of tokens are shaded, where its points show them.
    """
    if "tokens" not in inputs_of(fitted):
        return None
    height, labels = 320 if narrow else 400, []
    figure, (axes,) = canvas(1, height=height, narrow=narrow)
    groups = list(_sizes(points)) if "parameters" in inputs_of(fitted) else [np.arange(len(points))]
    for color, rows in zip(SERIES, groups, strict=False):
        part = points.take(rows)
        scatter(axes, part.tokens, part.loss, color=color, alpha=0.8)
        tokens = np.geomspace(part.tokens.min() / 2, part.tokens.max() * 4, DRAWN)
        size = float(np.exp(part.log("parameters").mean()))
        unique = np.minimum(tokens, part.unique_tokens.max())
        columns = {"parameters": np.full(DRAWN, size), "tokens": tokens, "unique_tokens": unique}
        draw_law(axes, fitted, columns, tokens, color=color)
        labels.append((last_height(axes), f"N {tick(size)}", color))
    floor = fitted.natural().get("E", 0.0)
    if floor > LOWEST * points.loss.min():  # one far below would press the curves together
        ends = np.array([points.tokens.min(), points.tokens.max()])
        axes.plot(np.log10(ends), np.full(2, math.log10(floor)), color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        labels.append((math.log10(floor), f"E {significant(floor, 3)}", FAINT))
    found = _regions(points)
    size_of = "" if found is None or len(groups) == 1 else f"; regions of N {tick(found[0])}"
    if found is not None:
        tokens = np.geomspace(points.tokens.min(), points.tokens.max(), DRAWN)
        curve(axes, tokens, found[1].loss(tokens), color=INK, dashes=":")
    frame_logs(axes, x=f"tokens trained on{size_of}", y=loss_name(points))
    if found is not None:
        _shade(axes, found[1], NARROW if narrow else WIDE)
    end_labels(axes, labels if len(groups) > 1 else labels[1:], height)
    return figure


@own_settings()
def repeats_figure(fitted: Fitted, points: Points, *, narrow: bool = False) -> Figure | None:
    """What epochs are worth in new ones, and the loss over them of the model that was run for the most of them."""
    if fitted.law != "data_constrained":
        return None
    figure, (worth, loss) = canvas(2, height=560 if narrow else 320, narrow=narrow)
    epochs = np.geomspace(1, max(64.0, float((points.tokens / points.unique_tokens).max())), DRAWN)
    place = fitted.coordinates.index("ln_R_D_star")
    values = [effective_tokens(1.0, epochs, math.exp(theta[place])) for theta in (fitted.theta, *fitted.draws)]
    if fitted.draws:
        low, high = percentiles(np.array(values[1:]), fitted.level, fitted.freedom)
        fill(worth, epochs, low, high)
    curve(worth, epochs, values[0])
    curve(worth, epochs[epochs <= 3 * values[0].max()], epochs[epochs <= 3 * values[0].max()], dashes=":")
    frame_logs(worth, x="epochs", y="worth in epochs of new text")
    part = points.take(_most_repeated(points))
    unique, size = (float(np.exp(part.log(name).mean())) for name in ("unique_tokens", "parameters"))
    scatter(loss, part.tokens / unique, part.loss)
    tokens = unique * epochs
    columns = {"parameters": np.full(DRAWN, size), "tokens": tokens, "unique_tokens": np.full(DRAWN, unique)}
    draw_law(loss, fitted, columns, epochs)
    new = {**columns, "unique_tokens": tokens}
    curve(loss, epochs, loss_of(fitted, new), dashes=":")
    title = f"loss; N {tick(size)}, {tick(unique)} unique tokens; dotted if new"
    frame_logs(loss, x="epochs", y=title)
    return figure


def draw(fitted: Fitted, points: Points, frontier: Frontier | None, *, narrow: bool = False) -> dict[str, Figure]:
    """Return every figure that has something to show, by the names of FIGURES."""
    found = {
        "frontier": frontier_figure(fitted, points, frontier, narrow=narrow),
        "isoflop": isoflop_figure(fitted, points, narrow=narrow),
        "residuals": residuals_figure(fitted, points, narrow=narrow),
        "loss-against-data": data_figure(fitted, points, narrow=narrow),
        "repeats": repeats_figure(fitted, points, narrow=narrow),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def refuse_places(directory: Path | None, names: Sequence[str] = FIGURES, *, force: bool) -> None:
    """Raise ConfigError unless the figures may be written into `directory`, which need not be there yet."""
    if directory is None:
        return
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory}: is no directory; name one for the figures")
    for name in names if directory.exists() else ():
        refuse_existing_file(directory / f"{name}.svg", force=force)


def write_figures(directory: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write figures as SVG files of their names into `directory`, and return where."""
    directory.mkdir(parents=True, exist_ok=True)
    places = []
    for name, figure in figures.items():
        places.append(directory / f"{name}.svg")
        atomic_write_text(places[-1], svg_text(figure))
    return places


def _regions(points: Points) -> tuple[float, Regions] | None:
    try:
        return regions.of_points(points)
    except ConfigError:
        return None


def _shade(axes: Axes, found: Regions, width: float) -> None:
    """Shade the plateaus, and name each region at the top where there is room, upright where there is little."""
    low, high = axes.get_xlim()
    begin = low if found.begin is None else math.log10(found.begin)
    end = high if found.end is None else math.log10(found.end)
    spans = {"small data": (low, begin), "power law": (begin, end), "irreducible": (end, high)}
    for name, (left, right) in spans.items():
        if name != "power law" and right > left:
            axes.axvspan(left, right, color=FAINT, alpha=0.12, linewidth=0)
        room, length = (right - left) / (high - low) * AXES_WIDTH * width, len(name) * LETTER * LETTERS
        if room > 1.2 * LETTERS:
            axes.annotate(
                name, ((left + right) / 2, 1), xycoords=axes.get_xaxis_transform(), xytext=(0, -4),
                textcoords="offset points", ha="center", va="top", color=FAINT, fontsize=LETTERS - 1,
                rotation=0 if room > length else 90,
            )  # fmt: skip


def _fullest(points: Points) -> list[tuple[np.ndarray, Valley]]:
    """Return rows and valley of the budgets, smallest first; where there are too many, of those of most sizes."""
    found = valleys(points)
    sizes = [len(np.unique(points.parameters[rows])) for rows, _ in found]
    kept = sorted((place for place, count in enumerate(sizes) if count >= SIZES), key=sizes.__getitem__)[-MOST:]
    return [found[place] for place in sorted(kept)]


def _sizes(points: Points) -> Iterator[np.ndarray]:
    """Yield the rows of each size, or of as many bands of sizes as there are colours."""
    log_n = points.log("parameters")
    sizes = np.unique(log_n)
    parts = np.array_split(sizes, min(len(sizes), MOST))
    yield from (np.flatnonzero((log_n >= part[0]) & (log_n <= part[-1])) for part in parts)


def _most_repeated(points: Points) -> np.ndarray:
    """Return the rows of the model and corpus that were run for the most different numbers of tokens."""
    log_n, log_u = points.log("parameters"), points.log("unique_tokens")
    near = (abs(log_n - log_n[:, None]) < SAME) & (abs(log_u - log_u[:, None]) < SAME)
    lengths = [len(np.unique(points.tokens[row])) for row in near]
    return np.flatnonzero(near[int(np.argmax(lengths))])
