"""The figures of a comparison: groups of runs against tokens, steps, FLOPs and time, with their seeds as bands.

    figure = overview_figure(groups, "evaluation", "loss")

A group of several seeds is its mean with a band from the least to the greatest; one run is a line. A run that is
not counted in its group is a thin line of the same colour. As in `figures`, `narrow=True` is for a phone, and a
function returns None where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmwright.inert import visible
from lmwright.report.contents import RunContents
from lmwright.report.figures import POINTS_DRAWN, canvas, end_labels, frame, line, marker
from lmwright.report.groups import Group
from lmwright.report.series import Band, Curve, band, curve, smoothed
from lmwright.report.svg import SERIES, own_settings
from lmwright.report.wording import clipped, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {
    "tokens": "tokens trained on",
    "steps": "steps",
    "flops": "training FLOPs",
    "seconds": "seconds of training",
}
TITLES = {
    ("evaluation", "loss"): "validation loss, nats per token",
    ("evaluation", "bits_per_byte"): "validation, bits per byte",
    ("step", "loss"): "training loss, nats per token",
}
DASHES = ("-", "--", ":")
MOST_LABELS = 12
EARLY = 0.08  # of a curve: what is above its rest there is the fall from a random model, and is cut off


def style(index: int) -> tuple[str, str]:
    """Return colour and dashes of the group of this number; the page's legend shows the same."""
    return SERIES[index % len(SERIES)], DASHES[index // len(SERIES) % len(DASHES)]


@own_settings()
def overview_figure(groups: Sequence[Group], kind: str, key: str, *, narrow: bool = False) -> Figure | None:
    """One figure of the records of `kind` against tokens, each group named at its end."""
    height = 300 if narrow else 380
    figure, (axes,) = canvas(1, height=height, narrow=narrow)
    ends = _draw(axes, groups, kind, key, "tokens")
    if not ends:
        return None
    frame(axes, x=AXES["tokens"], y=TITLES[kind, key])
    longest = 11 if narrow else 22
    labels = [
        (y, f"{clipped(visible(groups[index].name), longest)} {significant(y, 3)}", style(index)[0])
        for index, y in ends
    ]
    if len(labels) <= MOST_LABELS:
        end_labels(axes, labels, height)
    return figure


@own_settings()
def budgets_figure(groups: Sequence[Group], kind: str, key: str, *, narrow: bool = False) -> Figure | None:
    """The same against steps, training FLOPs and time, in one row; on a phone below each other."""
    wanted = [against for against in AXES if against != "tokens" and _known(groups, kind, key, against)]
    if not wanted:
        return None
    figure, all_axes = canvas(len(wanted), height=200 * len(wanted) if narrow else 230, narrow=narrow)
    for axes, against in zip(all_axes, wanted, strict=True):
        _draw(axes, groups, kind, key, against)
        title = TITLES[kind, key]
        frame(axes, x=AXES[against], y=title if narrow else title.partition(",")[0], ticks=5 if narrow else 3)
    return figure


def _known(groups: Sequence[Group], kind: str, key: str, against: str) -> bool:
    return any(curve(run, kind, key, against=against) for group in groups for run in group.runs)


def _draw(axes: Axes, groups: Sequence[Group], kind: str, key: str, against: str) -> list[tuple[int, float]]:
    """Draw every group; return the number and the last value of each that had anything to draw."""
    ends: list[tuple[int, float]] = []
    shown: list[Band] = []
    for index, group in enumerate(groups):
        color, dashes = style(index)
        for run in group.rest:
            line(axes, _single(run, kind, key, against), color=color, width=1, alpha=0.6, dashes=dashes)
        found = band(group.counted, kind, key, against=against)
        mean = Curve(x=found.x, y=found.mean)
        if mean:
            _band(axes, found, color)
            signs = marker(mean) if kind == "evaluation" else ""
            line(axes, mean, color=color, width=1.8, dashes=dashes, marker=signs)
            ends.append((index, mean.end()[1]))
            shown.append(found)
    _cut_off_the_start(axes, shown)
    return ends


def _single(run: RunContents, kind: str, key: str, against: str) -> Curve:
    drawn = curve(run, kind, key, against=against)
    return smoothed(drawn)[0] if kind == "step" else drawn


def _band(axes: Axes, found: Band, color: str) -> None:
    """Fill from the least seed to the greatest; a long band is drawn by every so many of its points."""
    every = -(-len(found.x) // POINTS_DRAWN)
    x, low, high = (values[::every] for values in (found.x, found.low, found.high))
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def _cut_off_the_start(axes: Axes, shown: Sequence[Band]) -> None:
    """Let the scale begin below the fall from a random model, which would leave no room for what differs."""
    later = [
        (low, high)
        for found in shown
        for x, low, high in zip(found.x, found.low, found.high, strict=True)
        if x >= EARLY * found.x[-1] and math.isfinite(low)
    ]
    if later:
        least, greatest = min(low for low, _ in later), max(high for _, high in later)
        room = 0.06 * (greatest - least) or 0.06 * abs(greatest) or 1.0
        axes.set_ylim(least - room, greatest + room)
