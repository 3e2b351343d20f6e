"""The figures of a report: functions from a run, or several, to a matplotlib figure.

    figure = loss_figure(read_run(Path("runs/quickstart")))
    figure.savefig("loss.png")

Each takes `narrow=True` for a phone: another shape with letters of the same size, not the same picture shrunk. A
function returns None where the run has nothing to draw. Colours and letters are set on the objects, so neither a
user's matplotlibrc nor pyplot's state changes a figure. matplotlib is imported on use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmwright.report.contents import RunContents
from lmwright.report.numbers import numbers
from lmwright.report.series import Curve, curve, smoothed, thinned
from lmwright.report.svg import FAINT, INK, RULE, SERIES, own_settings
from lmwright.report.wording import si, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS_PER_INCH = 72
WIDE, NARROW = 720, 350
LETTERS = 12.5
LABEL_GAP = 17
POINTS_DRAWN = 1500
EXACT = ("learning rate",)
MARKED = 40
AXES_SHARE = 0.74  # of the height of a figure with one plot, the rest is its title and its ticks


@own_settings()
def loss_figure(run: RunContents, *, narrow: bool = False) -> Figure | None:
    """Training and validation loss (nats/token) against tokens, of the averaged weights too, and xz's equal."""
    train, validation = curve(run, "step", "loss"), curve(run, "evaluation", "loss")
    average = curve(run, "evaluation", "average_loss")
    if not train and not validation:
        return None
    height = 290 if narrow else 340
    figure, (axes,) = canvas(1, height=height, narrow=narrow)
    labels: list[tuple[float, str, str]] = []
    if train:
        mean = _noisy(axes, train, color=SERIES[0])
        labels.append((mean.end()[1], "training", SERIES[0]))
    if validation:
        line(axes, validation, color=SERIES[1], width=1.8, marker=marker(validation))
        labels.append((validation.end()[1], "validation", SERIES[1]))
    if average:
        line(axes, average, color=SERIES[2], width=1.8, marker=marker(average))
        labels.append((average.end()[1], "averaged", SERIES[2]))
    xz = numbers(run).get("xz_loss")
    if xz is not None and xz.value <= max(train.finite() + validation.finite()):
        axes.axhline(xz.value, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        labels.append((xz.value, "xz", FAINT))
    frame(axes, x="tokens trained on", y="loss, nats per token")
    end_labels(axes, [(y, f"{name} {significant(y, 3)}", color) for y, name, color in labels], height)
    return figure


@own_settings()
def schedule_figure(run: RunContents, *, narrow: bool = False) -> Figure | None:
    """Learning rate, and the norm of the gradient before clipping, against tokens."""
    panels = [("learning rate", curve(run, "step", "lr")), ("gradient norm", curve(run, "step", "grad_norm"))]
    return _panels(panels, narrow=narrow)


@own_settings()
def throughput_figure(run: RunContents, *, narrow: bool = False) -> Figure | None:
    """Tokens per second and model FLOPs utilisation against tokens."""
    speed, share = curve(run, "step", "tokens_per_second"), curve(run, "step", "mfu")
    percents = Curve(x=share.x, y=tuple(100 * value for value in share.y))
    return _panels([("tokens per second", speed), ("MFU, %", percents)], narrow=narrow)


@own_settings()
def bits_figure(run: RunContents, *, narrow: bool = False) -> Figure | None:
    """Bits per byte of the validation text: a byte unigram, xz, and the model, as bars."""
    bars = (
        ("byte unigram", "unigram_bits_per_byte", FAINT),
        ("xz", "xz_bits_per_byte", FAINT),
        ("this model", "bits_per_byte", SERIES[1]),
        ("averaged weights", "average_bits_per_byte", SERIES[2]),
    )
    values = {name: number.value for name, number in numbers(run).items() if math.isfinite(number.value)}
    known = [(name, values[key], color) for name, key, color in bars if key in values]
    if "bits_per_byte" not in values or len(known) < 2:
        return None
    figure, (axes,) = canvas(1, height=34 * len(known) + 12, narrow=narrow, pad=0.02)
    rows = range(len(known), 0, -1)
    axes.barh(rows, [value for _, value, _ in known], color=[color for *_, color in known], height=0.62)
    for row, (_, value, color) in zip(rows, known, strict=True):
        axes.annotate(
            significant(value, 3), (value, row), xytext=(6, 0), textcoords="offset points", va="center",
            fontsize=LETTERS, color=INK, fontweight="normal" if color == FAINT else "bold",
        )  # fmt: skip
    axes.set_yticks(list(rows), [name for name, *_ in known], fontsize=LETTERS, color=INK)
    axes.set_xticks([])
    axes.tick_params(length=0, pad=8)
    axes.set_xlim(0, max(value for _, value, _ in known) * 1.12)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _panels(panels: Sequence[tuple[str, Curve]], *, narrow: bool) -> Figure | None:
    """Draw curves beside each other, or on a phone below each other; each on its own scale from zero."""
    shown = [(title, points) for title, points in panels if points]
    if not shown:
        return None
    figure, all_axes = canvas(len(shown), height=200 * len(shown) if narrow else 230, narrow=narrow)
    for axes, (title, points) in zip(all_axes, shown, strict=True):
        _noisy(axes, points, color=SERIES[0], exact=title in EXACT)
        frame(axes, x="tokens trained on", y=title)
        axes.set_ylim(0, max(points.finite()) * 1.08 or 1)
    return figure


def canvas(count: int, *, height: float, narrow: bool, pad: float = 0.06) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` plots, beside each other or on a phone below each other; height in points."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    size = ((NARROW if narrow else WIDE) / POINTS_PER_INCH, height / POINTS_PER_INCH)
    figure = Figure(
        figsize=size, layout=ConstrainedLayoutEngine(h_pad=pad, w_pad=pad, wspace=0.06, hspace=0.08)
    )  # fmt: skip
    shape = (count, 1) if narrow else (1, count)
    return figure, [axes for row in figure.subplots(*shape, squeeze=False) for axes in row]


def marker(points: Curve) -> str:
    """Return the sign for each point, none where they would touch."""
    return "o" if len(points.y) <= MARKED else ""


def line(
    axes: Axes, points: Curve, *, color: str, width: float, alpha: float = 1, marker: str = "", dashes: str = "-"
) -> None:
    """Draw a curve, thinned to what can be seen."""
    drawn = thinned(points, POINTS_DRAWN)
    axes.plot(
        drawn.x, drawn.y, color=color, linewidth=width, alpha=alpha, marker=marker, markersize=4,
        linestyle=dashes, solid_joinstyle="round", solid_capstyle="round",
    )  # fmt: skip


def _noisy(axes: Axes, points: Curve, *, color: str, exact: bool = False) -> Curve:
    """Draw each point thin and their running mean thick, and return the mean; an exact curve needs none."""
    mean, window = (points, 1) if exact else smoothed(points)
    if window > 1:
        line(axes, points, color=color, width=0.8, alpha=0.35)
    line(axes, mean, color=color, width=1.8)
    return mean


def frame(axes: Axes, *, x: str, y: str, ticks: int = 5) -> None:
    """A quiet frame: a rule below, faint lines across, the name of the y axis written level above it.

    ticks: about how many there are on the x axis.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_title(y, loc="left", fontsize=LETTERS, color=INK, pad=9)
    axes.set_xlabel(x, fontsize=LETTERS, color=FAINT, labelpad=5)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, min_n_ticks=2, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, min_n_ticks=2, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=LETTERS - 0.5, labelcolor=FAINT, pad=5)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(FAINT)
    axes.margins(x=0.01)
    axes.set_xlim(left=0)


def tick(value: float) -> str:
    """A round number without the zeros behind its point: 600.0 k -> 600 k, 2.50 -> 2.5."""
    number, _, prefix = si(value).partition(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {prefix}".rstrip()


def end_labels(axes: Axes, labels: Sequence[tuple[float, str, str]], height: float) -> None:
    """Write each curve's name at its end, right of the plot, moved apart where they would touch."""
    low, high = axes.get_ylim()
    unit = (high - low) / (height * AXES_SHARE)
    place = -math.inf
    for y, text, color in sorted(labels, key=lambda label: label[0]):
        place = max(y, place + LABEL_GAP * unit)
        options: dict[str, Any] = {"va": "center", "ha": "left", "color": color, "fontsize": LETTERS}
        axes.annotate(
            text, (1, place), xycoords=axes.get_yaxis_transform(), xytext=(7, 0), textcoords="offset points",
            annotation_clip=False, **options,
        )  # fmt: skip
