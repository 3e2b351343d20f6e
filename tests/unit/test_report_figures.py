"""Curves and figures: what is drawn is what was logged."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from report_runs import make_run

from lmwright.report import figures
from lmwright.report.comparison_figures import overview_figure
from lmwright.report.contents import read_run
from lmwright.report.groups import Group
from lmwright.report.series import Curve, curve, smoothed, thinned
from lmwright.report.svg import inline_svg, svg_text


@pytest.fixture
def run(tmp_path: Path):
    return read_run(make_run(tmp_path / "run"))


def test_curves_are_the_records(run):
    steps = [record for record in run.metrics if record["kind"] == "step"]
    found = curve(run, "step", "loss")
    assert found.x == tuple(record["tokens"] for record in steps)
    assert found.y == tuple(record["loss"] for record in steps)


def test_records_without_tokens_stand_where_their_step_does(tmp_path):
    path = make_run(tmp_path / "run")
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    sparse = [line for line in lines if line["kind"] != "step" or line["step"] % 50 == 0]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in sparse))
    found = curve(read_run(path), "evaluation", "loss")
    assert found.x == pytest.approx((30 * 4096, 60 * 4096, 90 * 4096))  # 120 is after the last step logged


def test_smoothing_is_a_running_mean_with_gaps_left_out(run):
    y = tuple(math.sin(i) if i % 17 else math.nan for i in range(400))
    mean, window = smoothed(Curve(x=tuple(range(400)), y=y))
    assert window == 11
    for i in (0, 3, 200, 397):
        low, high = (0, 2 * i + 1) if i < 5 else (i - 5, i + 6)
        near = [value for value in y[low:high] if not math.isnan(value)]
        wanted = sum(near) / len(near) if near else math.nan
        assert mean.y[i] == pytest.approx(wanted, nan_ok=True)
    short = Curve(x=(1, 2), y=(3, 4))
    assert smoothed(short) == (short, 1)


def test_a_thinned_curve_keeps_every_spike_and_every_gap():
    y = [math.sin(i / 500) for i in range(20_001)]
    y[7_003], y[12_345], y[15_000] = 9.0, -9.0, math.nan
    whole = Curve(x=tuple(range(len(y))), y=tuple(y))
    thin = thinned(whole, 1500)
    assert len(thin.y) < 1600
    assert {(7_003, 9.0), (12_345, -9.0)} <= set(zip(thin.x, thin.y, strict=True))
    assert thin.gaps == 1
    assert list(thin.x) == sorted(thin.x)
    assert all(whole.y[x] == value or math.isnan(value) for x, value in zip(thin.x, thin.y, strict=True))
    assert thinned(whole, len(y)) is whole


def test_the_lines_of_the_loss_figure_are_the_curves(run):
    figure = figures.loss_figure(run)
    lines = {len(line.get_xdata()): line for line in figure.axes[0].lines}
    assert sorted(lines) == [2, 4, 120]
    assert list(lines[4].get_ydata()) == list(curve(run, "evaluation", "loss").y)
    xz = 2.1043 * 43_210 * math.log(2) / 12_345
    assert lines[2].get_ydata() == [pytest.approx(xz)] * 2
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert f"xz {xz:.2f}" in texts


def test_labels_of_curves_that_end_together_do_not_touch(tmp_path):
    groups = [
        Group(name=run.name, runs=(run,), counted=(run,))
        for run in (read_run(make_run(tmp_path / f"run{number}")) for number in range(5))
    ]
    figure = overview_figure(groups, "evaluation", "loss")
    axes = figure.axes[0]
    svg_text(figure)
    heights = sorted(axes.transData.transform((0, text.xy[1]))[1] for text in axes.texts)
    points = [height * 72 / figure.dpi for height in heights]
    assert min(b - a for a, b in itertools.pairwise(points)) > figures.LETTERS


@pytest.mark.parametrize("draw", [figures.loss_figure, figures.schedule_figure, figures.throughput_figure])
def test_a_run_with_nothing_to_draw_gives_no_figure(tmp_path, draw):
    empty = read_run(make_run(tmp_path / "run", leave_out=("metrics.jsonl",)))
    assert draw(empty) is None
    assert figures.bits_figure(read_run(make_run(tmp_path / "b", leave_out=("evaluation.json",)))) is None


def test_a_run_whose_every_loss_is_not_finite_gives_no_figure(tmp_path):
    path = make_run(tmp_path / "run")
    record = {"kind": "step", "step": 1, "tokens": 10, "loss": math.nan, "lr": 1.0}
    (path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    assert figures.loss_figure(read_run(path)) is None
    assert figures.schedule_figure(read_run(path)) is not None


def test_equal_figures_give_equal_bytes_and_carry_no_date(run):
    one, two = (svg_text(figures.loss_figure(run)) for _ in range(2))
    assert one == two
    assert "date" not in one.lower()


def test_an_inline_figure_keeps_what_it_shows(run):
    drawn = inline_svg(figures.bits_figure(run), prefix="p", label='say "this" & <that>')
    assert drawn.startswith("<svg")
    assert "say &quot;this&quot; &amp; &lt;that&gt;" in drawn
    for shown in ("byte unigram", "xz", "this model", "4.71", "2.10"):
        assert f">{shown}</text>" in drawn
