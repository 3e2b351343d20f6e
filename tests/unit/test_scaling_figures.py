"""Figures of a law: what is drawn is what was measured and what the law says, and axes have round numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scaling_runs import planted

from lmwright.report import scaling_drawing
from lmwright.report import scaling_figures as figures
from lmwright.report.svg import svg_text
from lmwright.scaling import laws
from lmwright.scaling.lawfit import LawFit, fit_law
from lmwright.scaling.laws.data_constrained import effective_tokens, from_natural
from lmwright.scaling.points import Points

REPEATED = {
    "A": 400.0, "B": 900.0, "E": 1.7, "alpha": 0.34, "beta": 0.31, "R_D_star": 12.0, "R_N_star": 5.0
}  # fmt: skip


@pytest.fixture(scope="module")
def found() -> LawFit:
    return fit_law(planted(0.005), draws=60, hold_out="none")


@pytest.fixture(scope="module")
def repeated() -> LawFit:
    size, epochs = (column.ravel() for column in np.meshgrid([1e6, 4e6, 1.6e7], [1.0, 4.0, 16.0, 64.0, 256.0]))
    columns = {
        "parameters": np.log(size),
        "tokens": np.log(2e7 * epochs),
        "unique_tokens": np.full(15, np.log(2e7)),
    }
    unique = np.full(15, 2e7)
    noise = 0.002 * np.random.default_rng(3).standard_normal(15)
    loss = np.exp(laws.load("data_constrained").log_loss(from_natural(REPEATED)[None], columns)[0][0] + noise)
    points = Points.of(size, unique * epochs, loss, unique_tokens=unique, convention="kaplan")
    return fit_law(points, law="data_constrained", draws=20, hold_out="none")


def drawn(axes, marker: str) -> list[tuple[float, float]]:
    """The places of the points with a marker, in the figure's own coordinates."""
    return [
        (float(x), float(y)) for line in axes.lines if line.get_marker() == marker for x, y in line.get_xydata()
    ]


def curves(axes) -> list[np.ndarray]:
    return [line.get_xydata() for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]


def test_the_frontier_is_that_of_the_fit_inside_its_band(found: LawFit) -> None:
    sizes, losses = figures.frontier_figure(found.fitted, found.points, found.frontier).axes
    flops = 6 * found.points.parameters * found.points.tokens
    wanted = np.stack([np.log10(flops), np.log10(found.points.parameters)], axis=1)
    assert np.array(drawn(sizes, "o")) == pytest.approx(wanted)
    [curve] = curves(sizes)
    assert 10 ** curve[:, 1] == pytest.approx(found.frontier.parameters(10 ** curve[:, 0]))
    assert 10 ** curve[-1, 0] == pytest.approx(30 * flops.max())
    [law] = curves(losses)
    budget = found.budgets[-1]
    assert 10 ** law[-1, 1] == pytest.approx(budget.loss)
    for axes, line in ((sizes, curve), (losses, law)):
        [band] = axes.collections
        assert all(band.get_paths()[0].contains_points(line[5:-5], radius=1e-6))


def test_residuals_are_measured_above_the_law_in_percent(found: LawFit) -> None:
    first, second = figures.residuals_figure(found.fitted, found.points).axes
    columns = found.points.logs(("parameters", "tokens"))
    law = laws.load("chinchilla").log_loss(np.array([found.fitted.theta]), columns)[0][0]
    wanted = 100 * (np.log(found.points.loss) - law)
    assert [y for _, y in drawn(first, "o")] == pytest.approx(wanted)
    assert [x for x, _ in drawn(second, "o")] == pytest.approx(
        np.log10(found.points.tokens / found.points.parameters)
    )


def test_loss_against_data_has_a_curve_for_each_size_and_the_floor(found: LawFit) -> None:
    [axes] = figures.data_figure(found.fitted, found.points).axes
    assert len(drawn(axes, "o")) == 15
    assert len(curves(axes)) == 5
    law = laws.load("chinchilla")
    for curve, size in zip(curves(axes), (1e6, 3e6, 1e7, 3e7, 1e8), strict=True):
        columns = {"parameters": np.full(len(curve), math.log(size)), "tokens": math.log(10) * curve[:, 0]}
        assert math.log(10) * curve[:, 1] == pytest.approx(
            law.log_loss(np.array([found.fitted.theta]), columns)[0][0]
        )
    text = svg_text(axes.figure)
    assert "N 100 M" in text
    assert f"E {found.fitted.natural()['E']:.2f}" in text


def test_the_three_regions_are_shaded_where_they_meet_and_named() -> None:
    tokens = np.geomspace(1e4, 1e10, 25)
    loss = np.clip(40 * tokens**-0.17, 1.5, 6.0)
    rows = Points.of(np.full(25, 1e7), tokens, loss, convention="kaplan")
    fitted = fit_law(rows, draws=0, hold_out="none").fitted
    for narrow in (False, True):
        [axes] = figures.data_figure(fitted, rows, narrow=narrow).axes
        boxes = [patch.get_window_extent().transformed(axes.transData.inverted()) for patch in axes.patches]
        small, floor = sorted((box.x0, box.x1) for box in boxes)
        begin, end = (np.log10((40 / height) ** (1 / 0.17)) for height in (6.0, 1.5))
        assert small == pytest.approx((axes.get_xlim()[0], begin), abs=1e-6)
        assert floor == pytest.approx((end, axes.get_xlim()[1]), abs=1e-6)
        [dotted] = [line for line in axes.lines if line.get_linestyle() == ":"]
        wanted = np.log10(np.clip(40 * (10 ** dotted.get_xdata()) ** -0.17, 1.5, 6.0))
        assert dotted.get_ydata() == pytest.approx(wanted, abs=1e-6)
        names = [text.get_text() for text in axes.texts]
        assert names[:3] == ["small data", "power law", "irreducible"]
    few = rows.take(np.arange(10, 13))
    axes = figures.data_figure(fitted, few).axes[0]
    assert not axes.patches, "three lengths show no region"


def test_valleys_are_of_equal_flops_and_their_bottoms_marked() -> None:
    size, flops = (column.ravel() for column in np.meshgrid([1e6, 2e6, 4e6, 8e6, 1.6e7], [4e15, 4e16]))
    tokens = flops / (6 * size)
    columns = {"parameters": np.log(size), "tokens": np.log(tokens)}
    theta = laws.load("chinchilla").from_natural({"A": 400.0, "B": 900.0, "E": 1.7, "alpha": 0.34, "beta": 0.31})
    loss = np.exp(laws.load("chinchilla").log_loss(theta[None], columns)[0][0])
    points = Points.of(size, tokens, loss, convention="kaplan")
    found = fit_law(points, draws=0, hold_out="none")
    [axes] = figures.isoflop_figure(found.fitted, points).axes
    assert len(curves(axes)) == 2
    assert len(drawn(axes, "o")) == 10
    for curve, budget in zip(curves(axes), (4e15, 4e16), strict=True):
        size = 10 ** curve[:, 0]
        columns = {"parameters": np.log(size), "tokens": np.log(budget / 6 / size)}
        wanted = laws.load("chinchilla").log_loss(np.array([found.fitted.theta]), columns)[0][0]
        assert math.log(10) * curve[:, 1] == pytest.approx(wanted)
    assert "4 × 10¹⁵ FLOPs" in svg_text(axes.figure)


def test_the_crosses_are_the_optima_of_approach_two() -> None:
    """Three sizes a budget, 11% of FLOPs to both sides of its middle; cut and repeated points are of none."""
    size = np.tile([3e6, 6e6, 1.2e7], 3) * np.repeat([1.0, 2.0, 4.0], 3)
    flops = np.repeat([6e15, 2.4e16, 9.6e16], 3) * np.tile([1 / 1.11, 1.0, 1.11], 3)
    tokens = flops / (6 * size)
    theta = laws.load("chinchilla").from_natural({"A": 400.0, "B": 900.0, "E": 1.7, "alpha": 0.34, "beta": 0.31})
    columns = {"parameters": np.log(size), "tokens": np.log(tokens)}
    loss = np.exp(laws.load("chinchilla").log_loss(theta[None], columns)[0][0])
    more = {"finished": [True] * 9 + [False] * 3, "unique_tokens": [*tokens, *tokens[:3]]}
    points = Points.of(
        [*size, *size[:3]], [*tokens, *tokens[:3]], [*loss, 0.5, 9.0, 9.0], convention="kaplan", **more
    )
    found = fit_law(points, draws=0, hold_out="none")
    optima = found.approaches[1].frontier.budgets
    assert len(optima) == 3
    [axes] = figures.isoflop_figure(found.fitted, points).axes
    wanted = [(math.log10(one.parameters), math.log10(one.loss)) for one in optima]
    assert drawn(axes, "x") == [pytest.approx(place) for place in wanted]
    assert len(drawn(axes, "o")) == 9


def test_repeats_are_worth_what_the_law_says(repeated: LawFit) -> None:
    worth, loss = figures.repeats_figure(repeated.fitted, repeated.points).axes
    [curve] = curves(worth)
    star = repeated.fitted.natural()["R_D_star"]
    assert 10 ** curve[:, 1] == pytest.approx(effective_tokens(1.0, 10 ** curve[:, 0], star))
    epochs = [10**x for x, _ in drawn(loss, "o")]
    assert epochs == pytest.approx([1, 4, 16, 64, 256]), "of one model, at each number of epochs"
    dotted = [line.get_ydata() for line in loss.lines if line.get_linestyle() == ":"]
    assert (dotted[0] <= curves(loss)[0][:, 1] + 1e-12).all(), "new text is never worse under this law"


def test_what_a_law_does_not_say_is_not_drawn(found: LawFit) -> None:
    rows = planted(0.005)
    power = fit_law(rows, law="power_compute", draws=0, hold_out="none")
    assert set(figures.draw(power.fitted, rows, power.frontier)) == {"residuals"}
    assert set(figures.draw(found.fitted, rows, found.frontier)) == {"frontier", "residuals", "loss-against-data"}


def test_a_cut_run_is_another_colour_in_the_residuals(found: LawFit) -> None:
    done = np.arange(15) != 3
    axes = figures.residuals_figure(found.fitted, replace(found.points, finished=done)).axes[0]
    colours = [line.get_color() for line in axes.lines if line.get_marker() == "o"]
    assert len(set(colours)) == 2
    assert [len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"] == [14, 1]


def test_equal_fits_give_equal_bytes(found: LawFit) -> None:
    one, other = (
        figures.draw(found.fitted, found.points, found.frontier, narrow=narrow) for narrow in (False, True)
    )
    again = figures.draw(found.fitted, found.points, found.frontier)
    for name, figure in one.items():
        assert svg_text(figure) == svg_text(again[name])
        assert svg_text(figure) != svg_text(other[name])


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 2, [1, 10, 100]),
        (0, 1.5, [1, 3, 10, 30]),
        (math.log10(2), math.log10(5), [2, 3, 4, 5]),
        (math.log10(5), math.log10(9.2), [5, 6, 7, 8, 9]),
        (18, 24.5, [1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24]),
        (0, 13.5, [1, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12]),
    ],
)
def test_ticks_are_round(low: float, high: float, wanted: list[float]) -> None:
    assert scaling_drawing.ticks_between(low, high) == pytest.approx(wanted)


def test_every_axis_of_logs_has_ticks_inside_it(found: LawFit, repeated: LawFit) -> None:
    for fit in (found, repeated):
        for figure in figures.draw(fit.fitted, fit.points, fit.frontier).values():
            for axes in figure.axes:
                low, high = axes.get_xlim()
                inside = [tick for tick in axes.get_xticks() if low <= tick <= high]
                assert 2 <= len(inside) <= 7
