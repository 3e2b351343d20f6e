"""How the figures of scaling laws are drawn: axes of log10 with round numbers, points, curves, bands, a law.

A band is the law's own interval by bootstrap; without draws there is none. Knows nothing of which figures there
are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from lmwright.inert import visible
from lmwright.report.figures import POINTS_PER_INCH, frame, tick
from lmwright.report.svg import SERIES
from lmwright.report.wording import SUPERSCRIPT, clipped, significant
from lmwright.scaling import laws
from lmwright.scaling.fit import Fitted
from lmwright.scaling.fit.bootstrap import percentiles
from lmwright.scaling.points import Floats, Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANTISSAS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    tuple(np.arange(2, 20) / 2),
    tuple(np.arange(10, 100) / 10),
)
MOST_TICKS = 7
TICK_WIDTH = 72.0  # points of a figure for a tick and its label
Columns = Mapping[str, Floats]


def inputs_of(fitted: Fitted) -> tuple[str, ...]:
    """Return the columns that the law reads."""
    return laws.load(fitted.law).INPUTS


def loss_of(fitted: Fitted, columns: Columns) -> Floats:
    """Return the law's loss at columns, [R]; of those it reads what it needs."""
    found: Floats = np.exp(log_losses(fitted, [fitted.theta], columns)[0])
    return found


def log_losses(fitted: Fitted, thetas: Sequence[Sequence[float]], columns: Columns) -> Floats:
    """Return ln L of each of several coordinates at columns, [B, R]."""
    law = laws.load(fitted.law)
    return law.log_loss(np.array(thetas), {name: np.log(columns[name]) for name in law.INPUTS})[0]


def columns_of(points: Points) -> dict[str, Floats]:
    """Return all columns that a law may read."""
    return {name: getattr(points, name) for name in ("parameters", "tokens", "unique_tokens", "flops")}


def draw_law(
    axes: Axes, fitted: Fitted, columns: Columns, x: Floats, *, color: str = SERIES[0], dashes: str = "-",
    banded: bool = True,
) -> None:  # fmt: skip
    """Draw the law's loss at columns against x, with its band."""
    if fitted.draws and banded:
        low, high = percentiles(log_losses(fitted, fitted.draws, columns), fitted.level, fitted.freedom)
        fill(axes, x, np.exp(low), np.exp(high), color=color)
    curve(axes, x, loss_of(fitted, columns), color=color, dashes=dashes)


def scatter(
    axes: Axes, x: Floats, y: Floats, *, color: str = SERIES[1], alpha: float = 0.7, marker: str = "o",
    log_y: bool = True,
) -> None:  # fmt: skip
    """Draw points."""
    axes.plot(
        np.log10(x), np.log10(y) if log_y else y, linestyle="", marker=marker, markersize=4, color=color,
        alpha=alpha, markeredgewidth=1.6 if marker == "x" else 0,
    )  # fmt: skip


def curve(axes: Axes, x: Floats, y: Floats, *, color: str = SERIES[0], dashes: str = "-") -> None:
    """Draw a line."""
    axes.plot(np.log10(x), np.log10(y), color=color, linewidth=1.8, linestyle=dashes)


def fill(axes: Axes, x: Floats, low: Floats, high: Floats, *, color: str = SERIES[0]) -> None:
    """Draw a band."""
    axes.fill_between(np.log10(x), np.log10(low), np.log10(high), color=color, alpha=0.18, linewidth=0)


def last_height(axes: Axes) -> float:
    """Return the height at which the newest curve ends."""
    return float(np.asarray(axes.lines[-1].get_ydata())[-1])


def frame_logs(axes: Axes, *, x: str, y: str) -> None:
    """A frame about axes of log10, with round numbers as their ticks."""
    frame(axes, x=x, y=y)
    log_axis(axes, "x")
    log_axis(axes, "y")


def log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Give an axis of log10 its ticks, and a little room about what is drawn."""
    from matplotlib.ticker import FixedFormatter, FixedLocator

    low, high = axes.dataLim.intervalx if which == "x" else axes.dataLim.intervaly
    room = 0.04 * (high - low) or 0.1
    most = _most_ticks(axes) if which == "x" else MOST_TICKS
    ticks = ticks_between(low - room, high + room, most)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator([math.log10(value) for value in ticks]))
    axis.set_major_formatter(FixedFormatter([power(value) for value in ticks]))
    (axes.set_xlim if which == "x" else axes.set_ylim)(low - room, high + room)


def _most_ticks(axes: Axes) -> int:
    """Return how many ticks have room below each other's labels."""
    from matplotlib.figure import Figure

    figure, grid = axes.figure, axes.get_subplotspec()
    assert isinstance(figure, Figure)
    width = figure.get_figwidth() * POINTS_PER_INCH / (1 if grid is None else grid.get_gridspec().ncols)
    return max(3, min(MOST_TICKS, int(width / TICK_WIDTH)))


def ticks_between(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """Return round numbers whose log10 lies from low to high: from three to `most` where there are as many."""
    found: list[float] = []
    for mantissas in MANTISSAS:
        exponents = range(math.floor(low), math.ceil(high) + 1)
        values = (mantissa * 10.0**exponent for exponent in exponents for mantissa in mantissas)
        found = [value for value in values if low <= math.log10(value) <= high]
        if len(found) >= 3:
            break
    every = -(-len(found) // most)
    return found[::every] if every > 1 else found


def power(value: float) -> str:
    """A round number on an axis: 400 M, 2 × 10²¹."""
    if value < 1e15:
        return tick(value)
    exponent = math.floor(math.log10(value) + 1e-12)
    mantissa, power = (
        significant(value / 10.0**exponent, 2).removesuffix(".0"),
        f"10{str(exponent).translate(SUPERSCRIPT)}",
    )
    return power if mantissa == "1" else f"{mantissa} × {power}"


def counted(points: Points) -> str:
    """Return how N is counted, for an axis."""
    return "without embeddings" if points.convention == "kaplan" else "all parameters"


def loss_name(points: Points) -> str:
    """Return what the loss is measured in, for an axis."""
    return f"loss, {clipped(visible(points.metric), 24)}"
