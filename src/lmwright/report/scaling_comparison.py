"""The figure that sets the laws of several groups beside each other, such as Transformers and LSTMs.

    groups = fit_apart(points, "family")
    comparison, why_not = compare(groups)
    comparison_figure(groups, comparison).savefig("comparison.png")

Kaplan et al. 2020, arXiv:2001.08361, figure 7: loss against parameters and against tokens, a colour for each
group. A law of two columns is a surface; what is drawn of it is a cut through the place of the comparison, and
measured losses are moved along their group's law to that cut, so that each lies off its curve by its own residual.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lmwright.inert import visible
from lmwright.report.comparison_figures import style
from lmwright.report.figures import canvas, end_labels, tick
from lmwright.report.scaling_drawing import (
    columns_of,
    counted,
    draw_law,
    frame_logs,
    last_height,
    loss_name,
    loss_of,
    scatter,
)
from lmwright.report.svg import own_settings
from lmwright.report.wording import clipped
from lmwright.scaling.groups import Comparison
from lmwright.scaling.lawfit import LawFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = 120  # places of a curve
BEYOND = 2.0  # times the ends of a group's points
LONGEST = 14  # letters of a group's name


@own_settings()
def comparison_figure(groups: Mapping[str, LawFit], found: Comparison, *, narrow: bool = False) -> Figure:
    """Loss against each column that the laws read, the others held at the place of the comparison."""
    panels = list(found.place)
    figure, all_axes = canvas(
        len(panels), height=(300 if narrow else 360) * (len(panels) if narrow else 1), narrow=narrow
    )
    first = next(iter(groups.values())).points
    for panel, (axes, against) in enumerate(zip(all_axes, panels, strict=True)):
        labels = []
        for index, (name, one) in enumerate(groups.items()):
            color, dashes = style(index)
            measured = columns_of(one.points)
            cut = {**measured, **{held: np.full(len(one.points), value) for held, value in found.place.items()}}
            cut[against] = measured[against]
            moved = _new(cut)
            at_cut = one.points.loss * loss_of(one.fitted, moved) / loss_of(one.fitted, measured)
            scatter(axes, measured[against], at_cut, color=color)
            x = np.geomspace(measured[against].min() / BEYOND, measured[against].max() * BEYOND, DRAWN)
            places = {held: np.full(DRAWN, value) for held, value in found.place.items()} | {against: x}
            draw_law(axes, one.fitted, _new(places), x, color=color, dashes=dashes)
            labels.append((last_height(axes), clipped(visible(name), LONGEST), color))
        held = ", ".join(f"{_word(other)} {tick(found.place[other])}" for other in panels if other != against)
        x_name = {"parameters": f"N, {counted(first)}", "tokens": "tokens trained on", "flops": "training FLOPs"}
        frame_logs(axes, x=f"{x_name[against]}{f'; {held}' if held else ''}", y=loss_name(first))
        if narrow or panel == len(panels) - 1:
            end_labels(axes, labels, 300 if narrow else 360)
    return figure


def _new(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns with all text new, as the comparison has it."""
    return columns | ({"unique_tokens": columns["tokens"]} if "tokens" in columns else {})


def _word(column: str) -> str:
    return "N" if column == "parameters" else column
