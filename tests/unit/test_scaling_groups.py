"""Groups beside each other: what a planted pair of laws says in closed form, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scaling_runs import PLANTED, SIZES

from lmwright import seams
from lmwright.errors import ConfigError
from lmwright.inert import ACTIVE
from lmwright.model.config import ModelConfig
from lmwright.recipes.comparison_words import as_json, lines
from lmwright.report.law_tables import comparison_rows
from lmwright.report.scaling_comparison import comparison_figure
from lmwright.report.scaling_drawing import loss_of
from lmwright.report.svg import svg_text
from lmwright.scaling import laws
from lmwright.scaling.frontier.parametric import closed_form
from lmwright.scaling.groups import RECURRENT, compare, fit_apart
from lmwright.scaling.lawfit import fit_law
from lmwright.scaling.points import Points, join

CHINCHILLA = laws.load("chinchilla")
OTHER = {**PLANTED, "A": 700.0, "beta": 0.29}
SMALL = {"vocab_size": 300, "hidden_size": 32, "num_layers": 2, "num_heads": 1, "max_positions": 32}


def group(name: str, natural: dict[str, float], *, noise: float = 0.0, sizes: tuple[float, ...] = SIZES) -> Points:
    size, ratio = (column.ravel() for column in np.meshgrid(sizes, (5.0, 20.0, 80.0), indexing="ij"))
    loss = height(natural, size, size * ratio) * np.exp(
        noise * np.random.default_rng(3).standard_normal(len(size))
    )
    runs = [f"{name} {row}" for row in range(len(size))]
    return Points.of(size, size * ratio, loss, convention="chinchilla", family=[name] * len(size), run=runs)


def height(natural: dict[str, float], size: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    theta = CHINCHILLA.from_natural(natural)
    columns = {"parameters": np.log(size), "tokens": np.log(tokens)}
    found: np.ndarray = np.exp(CHINCHILLA.log_loss(theta[None], columns)[0][0])
    return found


def both(**more: float) -> Points:
    return join([group("lstm", OTHER, **more), group("llama", PLANTED, **more)])  # type: ignore[arg-type]


def test_needs_are_those_of_the_planted_laws() -> None:
    """Solved by hand for N and for D; for compute by a fine search along the closed-form frontier."""
    groups = fit_apart(both(), "family", draws=20)
    assert list(groups) == ["lstm", "llama"]
    found, why = compare(groups)
    assert found is not None
    assert why == ""
    assert (found.best, found.place) == ("llama", {"parameters": 1e8, "tokens": 8e9})
    worse, best = found.rows
    goal = PLANTED["A"] / 1e8 ** PLANTED["alpha"] + PLANTED["B"] / 8e9 ** PLANTED["beta"]
    size = (OTHER["A"] / (goal - OTHER["B"] / 8e9 ** OTHER["beta"])) ** (1 / OTHER["alpha"])
    length = (OTHER["B"] / (goal - OTHER["A"] / 1e8 ** OTHER["alpha"])) ** (1 / OTHER["beta"])
    assert worse.needs["parameters"][0] == pytest.approx(size / 1e8, rel=2e-3)
    assert worse.needs["tokens"][0] == pytest.approx(length / 8e9, rel=2e-3)
    budgets = np.geomspace(found.flops, 100 * found.flops, 20_001)
    along = [least(OTHER, budgets), least(PLANTED, budgets[:1])]
    assert worse.needs["compute"][0] == pytest.approx(
        budgets[np.argmax(along[0] <= along[1][0])] / found.flops, rel=2e-3
    )
    assert best.needs == {}
    for row, natural in ((worse, OTHER), (best, PLANTED)):
        assert row.loss[0] == pytest.approx(float(height(natural, np.array([1e8]), np.array([8e9]))[0]), rel=1e-6)
        assert row.exponents["beta"][0] == pytest.approx(natural["beta"], rel=1e-4)


def least(natural: dict[str, float], flops: np.ndarray) -> np.ndarray:
    ln_k, a, ln_k_tokens, b = closed_form(CHINCHILLA.from_natural(natural))
    return height(natural, np.exp(ln_k) * flops**a, np.exp(ln_k_tokens) * flops**b)


def test_each_group_is_fitted_as_if_it_were_alone() -> None:
    whole = both(noise=0.005)
    groups = fit_apart(whole, "family", draws=20)
    alone = fit_law(whole.take([name == "llama" for name in whole.family]), draws=20)
    assert groups["llama"].fitted == alone.fitted
    assert groups["llama"].held is not None
    assert groups["llama"].notes == ()
    assert "points of several kinds of family (lstm, llama) are mixed" in fit_law(whole, draws=20).notes[0]


@pytest.mark.parametrize(("contexts", "warned"), [((128, 256), True), ((256, 256), False), ((0, 256), False)])
def test_a_law_of_several_contexts_is_warned_of(contexts: tuple[int, int], warned: bool) -> None:
    whole = both(noise=0.005)
    length = np.where(np.arange(len(whole)) % 2, *contexts)
    notes = fit_law(replace(whole, context=length), draws=0).notes
    assert any("several contexts (128, 256 tokens)" in note for note in notes) == warned


def test_intervals_hold_the_planted_needs_and_widen_with_noise() -> None:
    widths = []
    for noise in (0.001, 0.01):
        found, _ = compare(fit_apart(both(noise=noise), "family", draws=200))
        assert found is not None
        value, interval = found.rows[0].needs["parameters"]
        assert interval is not None
        assert interval[0] < value < interval[1]
        widths.append(np.log(interval[1] / interval[0]))
    assert widths[1] > 3 * widths[0]
    without, _ = compare(fit_apart(both(), "family", draws=0))
    assert without is not None
    assert without.rows[0].needs["compute"][1] is None


def test_what_can_never_reach_the_best_loss_is_said_so() -> None:
    high = {**OTHER, "E": 4.5}
    groups = fit_apart(join([group("high", high), group("low", PLANTED)]), "family", draws=20)
    found, _ = compare(groups)
    assert found is not None
    assert found.rows[0].needs["parameters"][0] == float("inf")
    table = comparison_rows("family", found)
    place = table[0].index("times the parameters")
    assert table[1][place].startswith("over 10000 [")
    assert table[2][place] == "1"
    plain = as_json("family", groups, found, "")
    assert plain["comparison"]["rows"][0]["times"]["parameters"]["value"] is None


def test_groups_without_a_place_or_a_law_in_common_are_not_compared() -> None:
    apart = join([group("small", PLANTED), group("large", PLANTED, sizes=(1e10, 3e10, 1e11))])
    groups = fit_apart(apart, "family", draws=20)
    assert compare(groups) == (
        None, "the groups' ranges of parameters and tokens do not meet, so no place is inside all of them"
    )  # fmt: skip
    one_size = group("flat", PLANTED).take([0, 1, 2])
    groups = fit_apart(join([one_size, group("llama", PLANTED)]), "family", draws=20)
    found, why = compare(groups)
    assert found is None
    assert why == (
        "the groups' points tell different laws (flat: power_data, llama: chinchilla); name one for all by --law"
    )
    assert list(lines("family", groups, found, why))[-1] == f"not compared: {why}"


def test_what_lies_far_beyond_a_groups_points_is_warned_of() -> None:
    """At the last place of all points, so that times the place are times the largest; of compute, too."""
    for lead, told in ((0.86, []), (0.75, ["parameters", "tokens", "compute"])):
        better = PLANTED | {name: lead * PLANTED[name] for name in ("A", "B", "E")}
        found, _ = compare(fit_apart(join([group("a", better), group("b", PLANTED)]), "family", draws=0))
        assert found is not None
        assert [name for name, (times, _) in found.rows[1].needs.items() if times > 30] == told
        assert found.warnings == tuple(
            f"b: the {name} for the loss of a lie over 30 times beyond its points" for name in told
        )


def test_losses_of_unequal_contexts_are_warned_of() -> None:
    whole = both()
    found, why = compare(groups := fit_apart(whole, "family", draws=0))
    assert found is not None
    assert found.warnings[0].startswith("lstm: the state runs on through the text, while a token of llama sees")
    assert f"warning: {found.warnings[0]}" in list(lines("family", groups, found, why))
    alike = replace(whole, family=tuple("gpt2" if name == "lstm" else name for name in whole.family))
    found, _ = compare(fit_apart(alike, "family", draws=0))
    assert found is not None
    assert not any("context" in warning for warning in found.warnings)
    lengths = np.where(np.array(alike.family) == "gpt2", 512, 1024)
    found, _ = compare(fit_apart(replace(alike, context=lengths), "family", draws=0))
    assert found is not None
    assert found.warnings[0] == (
        "the contexts differ (gpt2: 512; llama: 1024 tokens), and a longer one lowers the loss"
    )


def test_the_recurrent_families_are_those_whose_models_are() -> None:
    families = {name: ModelConfig.of_family(name, **SMALL) for name in seams.names("lmwright.model.families")}
    assert {name for name, config in families.items() if config.recurrent} == RECURRENT


def test_one_label_and_a_group_that_cannot_be_fitted_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"every point has the family 'llama'.*leave --by away"):
        fit_apart(group("llama", PLANTED), "family")
    with pytest.raises(ConfigError, match=r"every point has the domain 'not said'"):
        fit_apart(group("llama", PLANTED), "domain")
    few = join([group("few", PLANTED).take([0]), group("llama", PLANTED)])
    with pytest.raises(ConfigError, match=r"^family 'few': fit"):
        fit_apart(few, "family", draws=20)


@pytest.mark.parametrize("narrow", [False, True])
def test_what_is_drawn_is_the_law_and_points_lie_off_it_by_their_residuals(narrow: bool) -> None:
    groups = fit_apart(both(noise=0.01), "family", draws=20)
    found, _ = compare(groups)
    assert found is not None
    figure = comparison_figure(groups, found, narrow=narrow)
    assert len(figure.axes) == 2
    for axes, against in zip(figure.axes, ("parameters", "tokens"), strict=True):
        solid = [line.get_xydata() for line in axes.lines if line.get_linestyle() == "-"]
        marks = [line.get_xydata() for line in axes.lines if line.get_marker() == "o"]
        assert len({line.get_color() for line in axes.lines}) == 2
        assert len(axes.collections) == 2, "a band for each group"
        for curve, dots, one in zip(solid, marks, groups.values(), strict=True):
            places = {name: np.full(len(curve), value) for name, value in found.place.items()}
            assert 10 ** curve[:, 1] == pytest.approx(loss_of(one.fitted, {**places, against: 10 ** curve[:, 0]}))
            here = {name: np.full(len(dots), value) for name, value in found.place.items()}
            off = np.log(10) * dots[:, 1] - np.log(loss_of(one.fitted, {**here, against: 10 ** dots[:, 0]}))
            own = {name: getattr(one.points, name) for name in found.place}
            assert off == pytest.approx(np.log(one.points.loss / loss_of(one.fitted, own)), abs=1e-12)
    text = svg_text(figure)
    assert "lstm" in text
    assert "llama" in text


def test_a_hostile_label_is_inert_in_words_and_figures() -> None:
    hostile = "\x1b[2J<script>\u202e&\n"
    whole = both()
    labels = tuple(hostile if name == "lstm" else name for name in whole.family)
    groups = fit_apart(replace(whole, family=labels), "family", draws=20)
    found, why = compare(groups)
    assert found is not None
    text = "\n".join(lines("family", groups, found, why))
    assert "⟨U+001B⟩[2J<script>" in text
    drawn = svg_text(comparison_figure(groups, found))
    assert "<script" not in drawn
    assert not ACTIVE.search(text)
    assert not ACTIVE.search(drawn)
