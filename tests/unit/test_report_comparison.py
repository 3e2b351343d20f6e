"""Comparing runs: seeds are one group, a band is its least and greatest, and the seeds bound what is said."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from report_runs import Page, make_run, write
from scipy import stats

from lmwright.cli.report import command
from lmwright.report import comparison_figures as drawn
from lmwright.report.comparison import as_json, compare
from lmwright.report.contents import RunContents, read_run
from lmwright.report.groups import Group, group, group_name, run_names
from lmwright.report.noise import interval, spread, student
from lmwright.report.page import render_comparison
from lmwright.report.series import band, curve, smoothed
from lmwright.report.svg import SERIES, svg_text
from lmwright.report.verdicts import Side, judge
from lmwright.runs import write_manifest


def made(
    place: Path, *, seed: int = 0, lr: float = 1e-3, shift: float = 0.0, ended: bool = True, vocab: int = 512,
    bits: bool = True, text_bytes: int = 40_000, **training: Any,
) -> RunContents:  # fmt: skip
    """A run whose every loss is `shift` above the usual; its validation text has `text_bytes` bytes."""
    path = make_run(place, leave_out=("evaluation.json", "corpus.json", "samples.json"))
    config = json.loads((path / "config.json").read_text())
    config["training"] |= {"seed": seed, "threads": 1 + seed, "lr": lr, **training}
    config["architecture"]["vocab_size"] = vocab
    write(path, "config.json", config)
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        if "loss" in record:
            record["loss"] += shift
        if record["kind"] == "evaluation" and bits:
            nats = record["loss"] * 10_000
            record |= {"scored_tokens": 10_000, "bits_per_byte": nats / math.log(2) / text_bytes}
    kept = [record for record in records if ended or record["step"] <= 70 or record["kind"] == "start"]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))
    return read_run(path)


@pytest.fixture
def seeds(tmp_path: Path) -> list[RunContents]:
    return [made(tmp_path / f"base-s{seed}", seed=seed, shift=0.01 * seed) for seed in (0, 1, 2)]


def test_runs_that_differ_only_in_their_seed_are_one_group(tmp_path, seeds):
    aside: list[dict[str, Any]] = [{}, {"trackers": ["wandb"], "keep_best": True, "checkpoint_every": 5}]
    others = [made(tmp_path / f"high-s{seed}", seed=seed, lr=1e-2, **aside[seed]) for seed in (0, 1)]
    single = made(tmp_path / "clip", seed=0, clip_norm=2.0)
    found = group([seeds[0], others[0], seeds[1], single, others[1], seeds[2]])
    assert [(one.name, [run.name for run in one.runs]) for one in found] == [
        ("base", ["base-s0", "base-s1", "base-s2"]),
        ("high", ["high-s0", "high-s1"]),
        ("clip", ["clip"]),
    ]
    assert [one.seeds for one in found] == [["0", "1", "2"], ["0", "1"], ["0"]]
    assert all(not one.rest for one in found)


def test_a_repeat_and_an_unfinished_run_are_no_new_seed(tmp_path, seeds):
    again, short = made(tmp_path / "again", seed=1), made(tmp_path / "short", seed=3, ended=False)
    (found,) = group([*seeds, again, short])
    assert [run.name for run in found.counted] == ["base-s0", "base-s1", "base-s2"]
    assert [run.name for run in found.rest] == ["again", "short"]
    (early,) = group([short, made(tmp_path / "short2", seed=4, ended=False)])
    assert len(early.counted) == 2  # where none has ended, they are what there is
    caveats = compare([*seeds, again, short]).caveats
    assert any("again has the settings and the seed (1) of another run" in text for text in caveats)
    assert any("short has not ended (stopped at step 70 of 120)" in text for text in caveats)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["base-s0", "base-s1"], "base"),
        (["lr1-seed10", "lr1-seed11"], "lr1"),
        (["lr1/seed0", "lr1/seed1"], "lr1"),
        (["a_0", "a_1"], "a"),
        (["0", "1"], "0"),
        (["same", "same"], "same"),
        (["wide", "wider"], "wide"),
        (["class", "classes"], "class"),
        (["seed0", "seed1"], "seed0"),
    ],
)
def test_a_group_is_named_by_what_its_runs_names_begin_with(names, wanted):
    assert group_name(names) == wanted


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    runs = [made(tmp_path / lr / f"seed{seed}", seed=seed, lr=float(lr)) for lr in ("1", "2") for seed in (0, 1)]
    assert run_names(runs) == ["1/seed0", "1/seed1", "2/seed0", "2/seed1"]
    assert [one.name for one in group(runs)] == ["1", "2"]


def test_groups_never_share_a_name(tmp_path):
    runs = [made(tmp_path / f"a-s{n}", seed=n % 2, lr=float(n // 2)) for n in range(4)]
    assert [one.name for one in group(runs)] == ["a", "a (2)"]


@pytest.mark.parametrize("freedom", [1, 1.31, 2, 3.7, 10, 250, 1e5])
def test_student_agrees_with_scipy(freedom):
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-8)


@pytest.mark.parametrize(
    ("first", "second"),
    [([1.0, 1.2, 0.9], [2.0, 2.5]), ([3.0, 3.1], [3.05, 3.2]), ([1.0, 1.3, 1.1, 0.8], [1.5, 1.6, 1.55])],
)
def test_the_interval_is_welchs(first, second):
    wanted = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    assert interval(spread(first), spread(second)) == pytest.approx((wanted.low, wanted.high), rel=1e-8)


def test_an_interval_of_one_side_without_spread_and_of_huge_numbers():
    reach = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    found = interval(spread([1.0, 1.0]), spread([1.5, 1.6, 1.7]))
    assert found == pytest.approx((0.6 - reach, 0.6 + reach), rel=1e-8)
    assert all(map(math.isfinite, interval(spread([1e200, 3e200]), spread([1.0, 2.0]))))


def test_too_few_seeds_give_no_interval():
    one, two, same = spread([1.0]), spread([1.0, 1.1]), spread([1.0, 1.0])
    assert interval(one, two) is interval(two, one) is interval(one, one) is interval(same, same) is None
    assert interval(same, two) is not None


def side(name: str, *values: float, tokens: float | None = 5000) -> Side:
    return Side(name=name, figure=spread(values), tokens=tokens)


@pytest.mark.parametrize(
    ("base", "other", "said", "unsaid"),
    [
        ((2.0,), (1.0,), "With one seed each, nothing tells this from the noise", "beyond"),
        (
            (2.0, 2.1, 2.05),
            (1.0,),
            "no claim is made; the other side's 3 seeds reach from 2.000 to 2.100",
            "beyond",
        ),
        ((2.0, 2.1, 2.05), (2.07,), "the single one lies within that", "beyond"),
        ((2.0,), (2.5, 2.6), "the single one lies outside that", "beyond"),
        ((2.0, 2.1, 2.05), (1.0, 1.1, 1.05), "beyond the noise of the seeds", "no claim"),
        ((2.0, 2.1, 2.05), (2.0, 2.11, 2.05), "zero lies within, so these seeds do not tell them apart", "beyond"),
        ((2.0, 2.1), (1.8, 1.9), "zero lies within", "beyond"),  # two seeds each: every one below, yet no claim
        ((2.0, 2.0), (1.0, 1.0), "no spread to judge by, and no claim is made", "beyond"),
    ],
)
def test_no_more_is_said_than_the_seeds_allow(base, other, said, unsaid):
    found = judge(side("a", *base), side("b", *other), "nats/token")
    assert said in found.text
    assert unsaid not in found.text
    assert found.difference == pytest.approx(statistics.fmean(other) - statistics.fmean(base))
    assert found.text.startswith("b ends ")
    assert ("below a" if found.difference < 0 else "above a") in found.text


def test_different_budgets_are_said():
    assert "after 9 and 5,000 tokens" in judge(side("a", 1.0), side("b", 2.0, tokens=9), "bits/byte").text
    assert "tokens" not in judge(side("a", 1.0), side("b", 2.0), "bits/byte").text
    assert "tokens" not in judge(side("a", 1.0), side("b", 2.0, tokens=None), "bits/byte").text


@pytest.mark.parametrize("against", ["tokens", "steps", "flops", "seconds"])
def test_a_band_is_the_mean_the_least_and_the_greatest_of_the_seeds(seeds, against):
    found = band(seeds, "evaluation", "loss", against=against)
    curves = [curve(run, "evaluation", "loss", against=against) for run in seeds]
    assert len(found.x) == 4
    for index, x in enumerate(found.x):
        values = [one.y[index] for one in curves]
        assert x == pytest.approx(statistics.fmean(one.x[index] for one in curves))
        assert found.mean[index] == pytest.approx(statistics.fmean(values))
        assert (found.low[index], found.high[index]) == (min(values), max(values))
    assert found.low[0] < found.mean[0] < found.high[0]


def test_places_on_the_axes_are_those_of_the_log(seeds):
    run = seeds[0]
    steps = [record for record in run.metrics if record["kind"] == "step"]
    assert curve(run, "step", "loss", against="steps").x == tuple(record["step"] for record in steps)
    assert curve(run, "step", "loss", against="seconds").x == tuple(record["seconds"] for record in steps)
    flops = curve(run, "step", "loss", against="flops").x
    assert flops == tuple(7_512_345.5 * record["tokens"] for record in steps)
    evaluated = curve(run, "evaluation", "loss", against="seconds").x
    assert evaluated == tuple(record["seconds"] for record in steps if record["step"] % 30 == 0)


def test_a_training_band_is_of_smoothed_runs_and_only_where_all_have_the_step(tmp_path, seeds):
    short = made(tmp_path / "short", seed=9, ended=False)
    found = band([seeds[1], short], "step", "loss", against="steps")
    assert found.x == tuple(range(1, 71))
    one, two = (smoothed(curve(run, "step", "loss", against="steps"))[0] for run in (seeds[1], short))
    assert found.high[:60] == pytest.approx([max(a, b) for a, b in zip(one.y, two.y, strict=False)][:60])


def test_a_gap_of_one_seed_is_a_gap_of_the_band(tmp_path, seeds):
    path = seeds[1].path / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    next(record for record in records if record["kind"] == "evaluation")["loss"] = None
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = band([seeds[0], read_run(seeds[1].path)], "evaluation", "loss")
    assert [math.isnan(value) for value in found.mean] == [True, False, False, False]
    assert [math.isnan(value) for value in found.low] == [True, False, False, False]


def test_figures_have_mean_and_deviation_over_seeds(seeds):
    found = compare(seeds)
    row = next(row for row in found.rows if row.name == "validation_loss")
    values = [run.records("evaluation")[-1]["loss"] for run in seeds]
    (cell,) = row.cells
    assert cell.spread.values == tuple(values)
    assert cell.spread.mean == pytest.approx(sum(values) / 3)
    assert cell.spread.deviation == pytest.approx(0.01)
    assert cell.text == f"{sum(values) / 3:.3f} ± 0.010"
    steps = next(row for row in found.rows if row.name == "steps")
    assert steps.cells[0].text == "120"  # no deviation where no seed changes it


def test_other_groups_are_set_beside_the_first_in_validation_loss(tmp_path, seeds):
    high = [made(tmp_path / f"high-s{seed}", seed=seed, lr=1e-2, shift=1 + 0.01 * seed) for seed in (0, 1, 2)]
    one = made(tmp_path / "one", lr=5.0, shift=-1)
    found = compare([*seeds, *high, one])
    assert [(verdict.base, verdict.other) for verdict in found.verdicts] == [("base", "high"), ("base", "one")]
    assert found.verdicts[0].difference == pytest.approx(1.0)
    assert found.verdicts[0].interval == pytest.approx((1 - 0.0226697, 1 + 0.0226697), abs=1e-6)
    assert "beyond the noise of the seeds" in found.verdicts[0].text
    assert found.verdicts[1].interval is None
    assert {one.key for one in found.settings} == {"training.lr", "training.seed", "training.threads"}
    lr = next(one for one in found.settings if one.key == "training.lr")
    assert lr.texts == ("0.001", "0.01", "5.0")
    seed = next(one for one in found.settings if one.key == "training.seed")
    assert seed.texts == ("0, 1, 2", "0, 1, 2", "0")


def test_other_vocabularies_are_compared_in_bits_per_byte_and_it_is_said_why(tmp_path, seeds):
    other = made(tmp_path / "other", vocab=2048, shift=1.0)
    found = compare([*seeds, other])
    assert (found.measure, found.training) == ("bits_per_byte", False)
    assert "different vocabularies (of 512 and 2048 tokens)" in found.caveats[0]
    assert not any("nats" in row.label for row in found.rows)
    assert "bits/byte" in found.verdicts[0].text
    page = Page(render_comparison([*seeds, other]))
    shown = {str(attributes["id"]) for tag, attributes in page.elements if tag == "section"}
    assert "validation" in shown
    assert "training" not in shown
    assert "training_loss" not in {name for name, *_ in page.numbers}


def test_tokenizers_of_one_size_are_told_apart_by_the_checkpoints(tmp_path, seeds):
    for number, run in enumerate(seeds[:2]):
        place = run.path / "checkpoints" / "step-000120"
        place.mkdir(parents=True)
        (place / "tokenizer.json").write_text(f'{{"number": {number}}}')
        write_manifest(place)
    assert compare(seeds[:1]).training
    assert not compare(seeds[:2]).training
    place = seeds[0].path / "checkpoints" / "step-000120"
    (place / "tokenizer.json").write_text('{"number": 1}')
    write_manifest(place)
    assert compare(seeds[:2]).training


def test_other_validation_texts_are_told_by_their_size(tmp_path, seeds):
    other = made(tmp_path / "other", text_bytes=41_000, lr=2.0)
    found = compare([*seeds, other])
    assert any("different texts (of 40,000 and 41,000 bytes)" in text for text in found.caveats)
    assert found.verdicts == ()  # and so nothing is said of them
    assert not any("different texts" in text for text in compare(seeds).caveats)


def test_other_machines_are_said(tmp_path, seeds):
    other = made(tmp_path / "other", lr=2.0)
    write(other.path, "env.json", {"python": "3.11.7", "cores": 64, "versions": {"torch": "2.13.0"}})
    assert any("times do not compare" in text for text in compare([seeds[0], read_run(other.path)]).caveats)
    assert compare(seeds).caveats == ()


def groups_of(runs: list[RunContents]) -> list[Group]:
    return list(compare(runs).groups)


def test_the_figure_draws_what_the_groups_hold(tmp_path, seeds):
    single = made(tmp_path / "single", lr=2.0, shift=0.5)
    short = made(tmp_path / "base-s7", seed=7, ended=False)
    figure = drawn.overview_figure(groups_of([*seeds, short, single]), "evaluation", "loss")
    axes = figure.axes[0]
    lines = {(line.get_color(), line.get_linewidth()): list(line.get_ydata()) for line in axes.lines}
    found = band(seeds, "evaluation", "loss")
    assert lines[SERIES[0], 1.8] == list(found.mean)
    assert lines[SERIES[0], 1] == list(curve(short, "evaluation", "loss").y)
    assert lines[SERIES[1], 1.8] == list(curve(single, "evaluation", "loss").y)
    bands = [
        (min(y for _, y in path.vertices), max(y for _, y in path.vertices))
        for shape in axes.collections
        for path in shape.get_paths()
    ]
    assert (pytest.approx(min(found.low)), pytest.approx(max(found.high))) in bands
    texts = [text.get_text() for text in axes.texts]
    assert texts == [f"base {found.mean[-1]:.2f}", f"single {curve(single, 'evaluation', 'loss').y[-1]:.2f}"]


def test_the_budgets_are_steps_flops_and_time(seeds, tmp_path):
    figure = drawn.budgets_figure(groups_of(seeds), "step", "loss")
    assert [axes.get_xlabel() for axes in figure.axes] == ["steps", "training FLOPs", "seconds of training"]
    for axes, against in zip(figure.axes, ("steps", "flops", "seconds"), strict=True):
        assert axes.lines[0].get_xdata()[-1] == pytest.approx(band(seeds, "step", "loss", against=against).x[-1])
    (seeds[0].path / "plan.json").unlink()
    bare = drawn.budgets_figure(groups_of([read_run(seeds[0].path)]), "step", "loss")
    assert [axes.get_xlabel() for axes in bare.axes] == ["steps", "seconds of training"]


def test_the_start_is_cut_off_and_the_rest_is_whole(seeds):
    axes = drawn.overview_figure(groups_of(seeds), "step", "loss").axes[0]
    low, high = axes.get_ylim()
    found = band(seeds, "step", "loss")
    later = [y for x, y in zip(found.x, found.high, strict=True) if x >= 0.08 * found.x[-1]]
    assert high < max(found.high)
    assert high > max(later)
    assert low < min(found.low)


def test_many_groups_have_no_names_in_the_figure_and_a_legend_in_the_page(tmp_path):
    runs = [made(tmp_path / f"r{number}", lr=float(number)) for number in range(13)]
    figure = drawn.overview_figure(groups_of(runs), "evaluation", "loss")
    assert not figure.axes[0].texts
    styles = {drawn.style(number) for number in range(13)}
    assert len(styles) == 13
    text = render_comparison(runs)
    assert text.count('class="swatch of-1 dotted"') == 2
    assert text.count('class="swatch of-1 solid"') == 2


def test_equal_runs_give_equal_pages_and_equal_figures(seeds):
    one, two = (svg_text(drawn.overview_figure(groups_of(seeds), "step", "loss")) for _ in range(2))
    assert one == two
    assert render_comparison(seeds) == render_comparison(seeds)


def test_the_page_has_every_section_and_both_shapes_of_each_figure(tmp_path, seeds):
    other = made(tmp_path / "other", lr=2.0)
    text = render_comparison([*seeds, other])
    page = Page(text)
    shown = [str(attributes["id"]) for tag, attributes in page.elements if tag == "section"]
    assert shown == ["verdicts", "validation", "training", "numbers", "settings", "runs"]
    assert len([tag for tag, _ in page.elements if tag == "svg"]) == 8
    assert len(set(page.ids())) == len(page.ids())
    assert "base (3 seeds), other." in page.text
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)


def test_a_bad_number_in_one_run_leaves_its_cell_empty(tmp_path, seeds):
    path = seeds[2].path / "metrics.jsonl"
    path.write_text(path.read_text().replace('"peak_memory_bytes": 700000000.0', '"peak_memory_bytes": NaN'))
    found = compare([*seeds[:2], read_run(seeds[2].path)])
    assert "peak_memory" not in {row.name for row in found.rows}
    assert "peak_memory" in {row.name for row in compare(seeds[:2]).rows}
    assert json.dumps(as_json(found), allow_nan=False)


def test_the_command_prints_the_comparison_as_json(tmp_path, seeds):
    other = made(tmp_path / "other", lr=2.0)
    words = [str(run.path) for run in (*seeds, other)]
    done = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
    found = json.loads(done.output)
    assert [one["name"] for one in found["groups"]] == ["base", "other"]
    assert found["groups"][0]["seeds"] == ["0", "1", "2"]
    assert len(found["figures"]["validation_loss"][0]["values"]) == 3
    assert found["comparisons"][0]["interval"] is None
    assert [one["run"] for one in found["runs"]] == ["base-s0", "base-s1", "base-s2", "other"]
