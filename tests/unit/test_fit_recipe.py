"""From points to a law that was tried on its largest rung: what is chosen, held out, predicted, and allocated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scaling_runs import PLANTED, planted, write_csv, write_run

from lmwright.errors import ConfigError, DataError
from lmwright.recipes.fit import gather, gather_curves
from lmwright.recipes.fit_json import as_json
from lmwright.recipes.fit_words import lines
from lmwright.report import scaling_figures
from lmwright.report.law_tables import formula
from lmwright.scaling import laws
from lmwright.scaling.fit import fit
from lmwright.scaling.frontier.parametric import best, closed_form, two_powers
from lmwright.scaling.lawfit import choose_law, fit_law, largest_rung
from lmwright.scaling.points import Points
from lmwright.scaling.published.constants import CONSTANTS


def points(parameters: list[float], tokens: list[float], **more: object) -> Points:
    return Points.of(parameters, tokens, np.linspace(5, 3, len(tokens)), convention="kaplan", **more)  # type: ignore


def test_a_planted_law_is_found_and_its_largest_rung_predicted() -> None:
    found = fit_law(planted(), draws=50)
    assert found.fitted.law == "chinchilla"
    assert found.fitted.natural() == pytest.approx(PLANTED, rel=1e-4)
    assert found.fitted.points == 15
    assert found.held is not None
    assert found.held.points.run == ("1e+08-80",)
    assert found.held.fitted.points == 14
    assert found.held.errors == pytest.approx(0, abs=1e-6)


def test_the_prediction_has_not_seen_what_it_predicts() -> None:
    honest = planted(0.01)
    column = np.where(largest_rung(honest), 2 * honest.loss, honest.loss)
    changed = replace(honest, loss=column)
    one, other = fit_law(honest, draws=50).held, fit_law(changed, draws=50).held
    assert one is not None
    assert other is not None
    assert np.array_equal(one.loss, other.loss)
    assert np.array_equal(one.low, other.low)
    assert other.errors == pytest.approx((1 + one.errors) / 2 - 1)
    assert one.within.all()
    assert not other.within.any()


def test_what_belongs_to_the_run_of_the_largest_rung_goes_with_it() -> None:
    rows = points([1e6, 1e6, 2e6, 2e6, 4e6, 4e6], [1e8, 2e8, 1e8, 2e8, 1e8, 2e8], run=list("aabbcc"))
    assert largest_rung(rows).tolist() == [False, False, False, False, True, True]
    near = points([1e6, 2e6, 4e6, 4e6], [1e8, 1e8, 1e8, 0.9e8])
    assert largest_rung(near).tolist() == [False, False, True, True], "within a budget of the most compute"


def test_a_rung_without_which_too_little_is_left_is_not_held_out() -> None:
    found = fit_law(planted().take(np.arange(6)), law="over_training", draws=20)
    assert found.held is not None
    few = fit_law(planted().take(np.arange(6)), law="chinchilla", draws=20)
    assert few.held is None
    assert "5 points of 5 runs are left, and law chinchilla has 5 coordinates" in few.not_held
    assert fit_law(planted(), hold_out="none", draws=0).not_held == "as asked"


@pytest.mark.parametrize(
    ("parameters", "tokens", "unique", "law"),
    [
        ([1e6] * 4, [1e7, 2e7, 4e7, 8e7], None, "power_data"),
        ([1e6] * 6, [1e7, 2e7, 4e7, 8e7, 2e8, 4e8], None, "power_data_floor"),
        ([1e6, 2e6, 4e6, 8e6], [1e7] * 4, None, "power_parameters"),
        ([1e6, 2e6, 4e6, 8e6], [2e7, 4e7, 8e7, 16e7], None, "power_compute"),
        ([1e6, 2e6, 4e6, 8e6], [16e7, 8e7, 4e7, 2e7], None, "chinchilla"),
        ([1e6, 2e6, 4e6, 8e6], [32e7, 8e7, 2e7, 5e6], None, "chinchilla"),
        ([1e6, 1e6, 4e6, 4e6], [2e7, 4e7, 2e7, 4e7], None, "chinchilla"),
        ([1e6, 4e6] * 5, [1e7, 1e7, 2e7, 2e7, 4e7, 4e7, 8e7, 8e7, 2e8, 2e8], 2e7, "data_constrained"),
        ([1e6, 4e6] * 4, [1e7, 1e7, 2e7, 2e7, 4e7, 4e7, 8e7, 8e7], 2e7, "chinchilla"),
    ],
)
def test_the_law_is_what_the_points_can_tell(
    parameters: list[float], tokens: list[float], unique: float | None, law: str
) -> None:
    repeated = None if unique is None else np.minimum(tokens, unique)
    assert choose_law(points(parameters, tokens, unique_tokens=repeated))[0] == law


def test_one_budget_is_no_law_of_compute_and_tells_the_planted_numbers() -> None:
    """Along D = C / 6N compute is what does not vary, though N and D lie on a line; nor where C is given so."""
    size = np.geomspace(1e7, 1e9, 9)
    tokens = 1e19 / (6 * size)
    law = laws.load("chinchilla")
    theta = law.from_natural(PLANTED)  # type: ignore[attr-defined]
    columns = {"parameters": np.log(size), "tokens": np.log(tokens)}
    rows = Points.of(size, tokens, np.exp(law.log_loss(theta[None], columns)[0][0]), convention="chinchilla")
    found = fit_law(rows, draws=0)
    assert found.fitted.law == "chinchilla"
    assert found.fitted.natural() == pytest.approx(PLANTED, rel=0.02)
    assert choose_law(points([1e6, 2e6, 4e6, 8e6], [2e7, 4e7, 8e7, 16e7], flops=[1e15] * 4))[0] == "chinchilla"


@pytest.mark.parametrize("name", ["kaplan-joint", "besiroglu"])
def test_of_the_two_laws_of_size_and_data_the_nearer_is_chosen_without_the_largest_rung(name: str) -> None:
    known, grid = CONSTANTS[name], planted()
    exact = laws.load(known.law).log_loss(np.array([known.theta()]), grid.logs(("parameters", "tokens")))[0][0]
    column = np.exp(exact + 0.002 * np.random.default_rng(5).normal(size=len(grid)))
    law, why = choose_law(replace(grid, loss=column))
    assert law == known.law
    assert ("closer to it than to chinchilla" in why) == (law == "kaplan")
    # What is held out has no say, however far it lies from the law.
    bent = np.where(largest_rung(grid), 3 * column, column)
    assert choose_law(replace(grid, loss=bent)) == (law, why)


def test_a_law_without_repeats_is_told_of_them() -> None:
    whole = planted()
    seen = replace(whole, unique_tokens=np.minimum(whole.tokens, 2e8))
    [note] = fit_law(seen, law="chinchilla", draws=0).notes
    assert note.startswith("7 points repeat their data, up to 40 epochs")
    assert fit_law(whole, law="chinchilla", draws=0).notes == ()


@pytest.mark.parametrize("name", ["besiroglu", "muennighoff", "kaplan-joint", "gadre-c4"])
def test_the_closed_form_is_the_optimum_of_each_law(name: str) -> None:
    known = CONSTANTS[name]
    powers = two_powers(known.law, known.theta())
    assert powers is not None
    ln_k, a, ln_k_tokens, b = closed_form(powers)
    for flops in (1e19, 1e23):
        wanted = best(laws.load(known.law), known.theta(), flops)
        assert np.exp(ln_k + a * np.log(flops)) == pytest.approx(wanted.parameters, rel=1e-5)
        assert np.exp(ln_k_tokens + b * np.log(flops)) == pytest.approx(wanted.tokens, rel=1e-5)


def test_every_law_that_reads_both_has_a_frontier_and_no_other() -> None:
    for name in laws.names():
        module = laws.load(name)
        theta = np.array([(low + high) / 2 for low, high in module.BOUNDS])
        assert (two_powers(name, theta) is not None) == ({"parameters", "tokens"} <= set(module.INPUTS)), name


def test_budgets_lie_on_the_frontier_with_intervals_about_them() -> None:
    found = fit_law(planted(0.005), draws=100, hold_out="none")
    assert found.frontier is not None
    assert [budget.flops / found.frontier.largest for budget in found.budgets] == pytest.approx([1, 3, 10, 30])
    for budget in found.budgets:
        assert 6 * budget.parameters * budget.tokens == pytest.approx(budget.flops)
        for name in ("parameters", "tokens", "loss"):
            low, high = getattr(budget, f"{name}_interval")
            assert low < getattr(budget, name) < high
    wanted = best(laws.load("chinchilla"), np.array(found.fitted.theta), found.budgets[2].flops)
    assert found.budgets[2].loss == pytest.approx(wanted.loss)


def test_without_draws_no_number_pretends_to_an_interval() -> None:
    found = fit_law(planted(0.005), draws=0)
    text = as_json(found)
    assert text["frontier"]["a"]["interval"] is None
    assert text["frontier"]["budgets"][0]["loss"]["interval"] is None
    assert text["held_out"][0]["interval"] == [None, None]
    assert text["held_out"][0]["within"] is None
    assert text["parameters"]["A"]["bootstrap"] is None
    assert text["parameters"]["A"]["by"] == "profile"
    assert not any("nan" in line for line in lines(found))


def test_a_number_without_any_interval_is_left_out() -> None:
    found = fit_law(planted(0.005), law="power_compute", draws=0)
    assert as_json(found)["parameters"]["C_c"] == {"value": None, "identified": None}
    assert found.frontier is None
    why = "law power_compute does not say how a budget is divided between parameters and tokens"
    assert f"  3 parametric: not told: {why}" in lines(found)


def test_the_printed_text_holds_what_was_found() -> None:
    found = fit_law(planted(0.005), draws=60)
    text = "\n".join(lines(found, published="chinchilla"))
    assert formula("chinchilla").startswith("L(N, D) = E + A / N^alpha + B / D^beta")
    assert formula("chinchilla") in text
    assert found.held is not None
    assert f"{found.held.loss[0]:.4f}     [{found.held.low[0]:.4f}, {found.held.high[0]:.4f}]" in text
    assert f"{100 * found.held.errors[0]:+.2f}%" in text
    assert "best of 256 starts agree" in text
    assert "Besiroglu et al. 2024" in text
    for name in PLANTED:
        limits = found.fitted.interval(name)
        assert f"  {name} {found.fitted.natural()[name]:.5g} [{limits.low:.5g}, {limits.high:.5g}]" in text


def test_cut_runs_are_left_out_of_the_fit_and_of_the_rung() -> None:
    whole = planted()
    done = np.arange(len(whole)) != len(whole) - 1
    found = fit_law(replace(whole, finished=done), draws=20)
    assert found.fitted.points == 14
    assert found.held is not None
    assert found.held.points.run != ("1e+08-80",)
    assert any("1 of 15 points are left out" in line for line in lines(found))


def test_files_and_runs_are_gathered_together(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "points.csv", planted())
    run = write_run(tmp_path / "runs" / "one")
    found = gather([path, run.parent], convention="kaplan")
    assert len(found) == 16
    assert found.convention == "kaplan"
    assert np.array_equal(found.loss[:15], planted().loss)
    with pytest.raises(ConfigError, match="says not how parameters are counted"):
        gather([path])
    with pytest.raises(DataError, match="is not there; give a CSV file"):
        gather([tmp_path / "none.csv"])


def test_a_metric_that_is_not_the_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("N,D,loss,metric\n1e6,2e7,3,bits/byte\n")
    assert gather([path], convention="kaplan").metric == "bits/byte"
    with pytest.raises(ConfigError, match="losses are in bits/byte, not in nats/token"):
        gather([path], convention="kaplan", metric="nats/token")
    run = write_run(tmp_path / "one")
    with pytest.raises(ConfigError, match="mixed metrics"):
        gather([path, run], convention="kaplan")


def test_the_fit_of_all_points_is_that_of_the_library() -> None:
    rows = planted(0.01)
    assert fit_law(rows, law="over_training", draws=20).fitted == fit("over_training", rows, draws=20)


def test_where_points_leave_the_optimum_open_none_is_printed() -> None:
    rows = planted(0.005)
    noise = np.random.default_rng(5).uniform(2, 5, len(rows))
    found = fit_law(replace(rows, loss=noise), law="chinchilla", draws=30)
    assert (found.frontier, found.budgets) == (None, ())
    assert "at their largest compute, 4.8e+18 FLOPs, N* is known to a factor of 10^" in "\n".join(lines(found))
    assert as_json(found)["frontier"] is None
    assert fit_law(rows, law="chinchilla", draws=30).no_frontier == ""


def test_points_of_one_run_have_no_bootstrap_and_the_refusal_says_what_to_do() -> None:
    rows = planted(0.005)
    alone = replace(rows, run=("trunk",) * len(rows))
    with pytest.raises(ConfigError, match=r"all points are of one run \(trunk\).*draws = 0"):
        fit_law(alone, draws=20)
    found = fit_law(alone, draws=0)
    assert "0 points of 0 runs are left" in found.not_held


def test_three_approaches_stand_beside_each_other_where_the_points_allow_them() -> None:
    """Valleys of equal FLOPs on the planted surface, and a curve along each size: all within a few percent."""
    size, flops = (
        column.ravel() for column in np.meshgrid(np.geomspace(3e5, 3e8, 25), np.geomspace(1e15, 1e18, 7))
    )
    tokens = flops / (6 * size)
    near = (tokens / size > 2) & (tokens / size < 500)
    size, tokens = size[near], tokens[near]
    law = laws.load("chinchilla")
    theta = law.from_natural(PLANTED)  # type: ignore[attr-defined]
    columns = {"parameters": np.log(size), "tokens": np.log(tokens)}
    loss = np.exp(law.log_loss(theta[None], columns)[0][0])
    grid = Points.of(size, tokens, loss, convention="chinchilla", run=[f"{n:.6g}" for n in size])
    found = fit_law(grid, draws=20, hold_out="none")
    wanted = closed_form(theta)
    assert [one.name for one in found.approaches] == ["envelope", "isoflop", "parametric"]
    for one, close in zip(found.approaches, (0.05, 0.03, 1e-4), strict=True):
        assert one.frontier is not None, one.why_not
        assert one.frontier.exponents[0] == pytest.approx(wanted[1], abs=close)
        best = np.exp(wanted[0] + wanted[1] * np.log(one.frontier.largest))
        assert float(one.frontier.parameters(one.frontier.largest)) == pytest.approx(best, rel=0.15)
    text = "\n".join(lines(found))
    for name in ("1 envelope", "2 isoflop", "3 parametric"):
        [row] = [line for line in text.splitlines() if line.startswith(f"  {name}")]
        assert "[" in row
    plain = as_json(found)["approaches"]
    assert [one["approach"] for one in plain] == [1, 2, 3]
    assert plain[1]["a"]["value"] == found.approaches[1].frontier.exponents[0]
    assert plain[2]["parameters"]["interval"] is not None


def test_an_approach_that_the_points_do_not_allow_says_why() -> None:
    text = lines(fit_law(planted(0.005), draws=20))
    assert "  1 envelope: not told: no run has two points or more; curves are needed, not ends of runs" in text
    assert any(line.startswith("  2 isoflop: not told: 0 of 0 budgets") for line in text)


def test_curves_along_runs_are_read_where_no_run_has_several_points_and_doubted() -> None:
    whole = planted(ratios=tuple(np.geomspace(2, 500, 40)))
    curves = replace(whole, run=tuple(f"{n:g}" for n in whole.parameters), finished=np.zeros(200, bool))
    ends = planted()
    found = fit_law(ends, draws=0, curves=curves)
    assert found.approaches[0].frontier is not None
    assert "validation losses along each run" in found.approaches[0].notes[0]
    assert any(line.startswith("warning: approach 1, envelope: its curves are") for line in lines(found))
    trunks = replace(ends, run=tuple(f"{n:g}" for n in ends.parameters))
    assert "validation losses along" not in "".join(fit_law(trunks, draws=0, curves=curves).approaches[0].notes)


def test_what_a_notebook_does_gives_figures(tmp_path: Path) -> None:
    """The words of the recipe's docstring, on a table of points."""
    points = gather([write_csv(tmp_path / "points.csv", planted(0.005))], convention="chinchilla")
    found = fit_law(points, curves=gather_curves([tmp_path / "points.csv"], points), draws=20)
    assert "\n".join(lines(found)).startswith("law chinchilla")
    for name, figure in scaling_figures.draw(found.fitted, found.points, found.frontier).items():
        figure.savefig(tmp_path / f"{name}.png")
    assert {path.stem for path in tmp_path.glob("*.png")} == {"frontier", "residuals", "loss-against-data"}


def test_regions_are_told_in_words_or_why_not() -> None:
    tokens = np.geomspace(1e4, 1e10, 25)
    rows = Points.of(np.full(25, 1e7), tokens, np.clip(40 * tokens**-0.17, 1.5, 6.0), convention="kaplan")
    found = fit_law(rows, draws=0)
    text = "\n".join(lines(found))
    assert "regions of the loss against data, of the model with N 1e+07" in text
    assert "small data: up to 7.02e+04 tokens the loss stays near 6" in text
    assert "power law: from 7.02e+04 to 2.44e+08 tokens, L ~ D^-0.1700, 95% interval [0.1700, 0.1700]" in text
    assert "irreducible: beyond 2.44e+08 tokens the loss stays near 1.5" in text
    assert as_json(found)["regions"]["end"] == pytest.approx((40 / 1.5) ** (1 / 0.17))
    few = fit_law(planted(), draws=0)
    assert as_json(few)["regions"] is None
    assert "not told: 3 different numbers of tokens; three regions take at least 4" in "\n".join(lines(few))
