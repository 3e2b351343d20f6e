"""Budgets spent: against closed forms, brute force over real models, and published values of repeats."""

from __future__ import annotations

import numpy as np
import pytest

from lmwright import seams
from lmwright.errors import ConfigError
from lmwright.scaling import laws
from lmwright.scaling.flops import count_parameters, flops_per_token
from lmwright.scaling.frontier import along
from lmwright.scaling.frontier.parametric import closed_form
from lmwright.scaling.planning.allocate import allocate, smooth_per_token, spend
from lmwright.scaling.planning.shape import shape

CONSTANTS = {"A": 521.0, "B": 1488.0, "E": 1.87, "alpha": 0.353, "beta": 0.353}
THETA = laws.load("chinchilla").from_natural(CONSTANTS)
REPEATING = laws.load("data_constrained").from_natural({**CONSTANTS, "R_D_star": 15.39, "R_N_star": 5.31})


def test_without_limits_it_is_the_closed_form():
    found = allocate("chinchilla", THETA, 1e21)
    parameters, tokens = along(closed_form(THETA), 1e21)
    assert found.parameters == pytest.approx(float(parameters), rel=1e-10)
    assert found.tokens == pytest.approx(float(tokens), rel=1e-10)
    assert (found.epochs, found.worth, found.unique_tokens) == (1.0, found.tokens, found.tokens)
    assert found.loss == pytest.approx(1.87 + 521 / parameters**0.353 + 1488 / tokens**0.353, rel=1e-13)
    assert (found.inference_flops, found.warnings) == (0.0, ())
    assert "epochs" not in found.reason()


def test_a_small_corpus_is_repeated_and_more_compute_goes_into_epochs_first():
    rich = allocate("chinchilla", THETA, 1e21)
    poor = allocate("chinchilla", THETA, 1e21, unique_tokens=1e9)
    assert poor.law == "data_constrained"
    assert poor.loss > rich.loss
    assert poor.epochs == pytest.approx(poor.tokens / 1e9)
    assert 6 * poor.parameters * poor.tokens == pytest.approx(1e21, rel=1e-12)
    # Muennighoff et al. 2023: when data are few, epochs rise faster than parameters.
    assert poor.tokens > rich.tokens
    assert poor.parameters < rich.parameters
    assert poor.worth == pytest.approx(1e9 * (1 + 15.39 * (1 - np.exp(-(poor.epochs - 1) / 15.39))))
    # N' and D' by hand (Muennighoff et al. 2023, eqs. 5 to 7).
    optimal = (521 / 1488) ** (1 / 0.353) * 1e9
    extra = 5.31 * (1 - np.exp(-(poor.parameters / optimal - 1) / 5.31))
    assert poor.loss == pytest.approx(
        1.87 + 521 / (optimal * (1 + extra)) ** 0.353 + 1488 / poor.worth**0.353, rel=1e-12
    )
    assert len(poor.warnings) == 2
    assert "as published" in poor.warnings[0]
    assert "epochs" in poor.warnings[1]
    assert "worth" in poor.reason()
    own = allocate("data_constrained", REPEATING, 1e21, unique_tokens=1e9)
    assert own.parameters == poor.parameters
    assert len(own.warnings) == 1


def test_a_corpus_that_is_large_enough_changes_nothing():
    free, given = (allocate("chinchilla", THETA, 1e19, unique_tokens=unique) for unique in (None, 1e13))
    assert given.parameters == pytest.approx(free.parameters, rel=1e-6)
    assert (given.epochs, given.warnings) == (1.0, ())


def test_where_nothing_repeats_the_law_stands_as_it_is():
    """The law of repeats takes worth from models beyond the optimum of 6ND, where exact costs may want one."""
    per_token = smooth_per_token("llama", vocab_size=32_000, length=256, convention="kaplan", tied=True)
    free, given = (
        allocate("chinchilla", THETA, 1e17, per_token=per_token, unique_tokens=unique) for unique in (None, 1e15)
    )
    assert (given.law, given.parameters, given.loss) == ("chinchilla", free.parameters, free.loss)


def test_tokens_to_be_read_are_paid_for():
    found = allocate("chinchilla", THETA, 1e21, inference_tokens=2e11)
    assert found.inference_flops == pytest.approx(2 * found.parameters * 2e11)
    assert found.inference_flops + 6 * found.parameters * found.tokens == pytest.approx(1e21, rel=1e-12)
    assert "kept for reading" in found.reason()


@pytest.mark.parametrize("convention", ["kaplan", "chinchilla"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", seams.names("lmwright.model.families"))
def test_the_smooth_cost_of_a_token_is_near_that_of_real_models(family, tied, convention):
    given = {"vocab_size": 4096, "length": 256, "convention": convention}
    per_token = smooth_per_token(family, **given, tied=tied)
    for size in (3e6, 3e7, 3e8, 3e9):
        made = shape(size, **given, family=family, tie_embeddings=tied)
        smooth = float(per_token(np.array([float(made.parameters)]))[0])
        # A feed-forward is rounded, and so moves the width; an LSTM has none.
        assert smooth == pytest.approx(flops_per_token(made.config, 256), rel=0.03 if family == "lstm" else 0.06)


def test_with_exact_flops_no_real_model_is_much_better():
    """Every shape of a fine grid of sizes, each with the tokens that the budget pays for."""
    asked = {"vocab_size": 4096, "length": 256, "convention": "chinchilla"}
    flops, given = 1e16, {"length": 256, "convention": "chinchilla", "unique_tokens": 2e8, "inference_tokens": 1e8}
    per_token = smooth_per_token("llama", **asked, tied=True)
    smooth = allocate("chinchilla", THETA, flops, per_token=per_token, unique_tokens=2e8, inference_tokens=1e8)
    chosen = shape(smooth.parameters, **asked, tie_embeddings=True)
    found = spend("chinchilla", THETA, flops, chosen.config, **given)
    every = {shape(size, **asked, tie_embeddings=True).config: None for size in np.geomspace(1e6, 1.5e7, 60)}
    least = min(spend("chinchilla", THETA, flops, config, **given).loss for config in every)
    assert found.loss <= least * 1.002
    assert found.loss == pytest.approx(smooth.loss, rel=0.005)
    assert found.parameters == count_parameters(chosen.config).total
    cost = flops_per_token(chosen.config, 256)
    assert found.tokens * cost + found.inference_flops == pytest.approx(flops, rel=1e-12)


def test_what_cannot_be_spent_is_refused():
    config = shape(1e7, vocab_size=4096, length=256, convention="kaplan").config
    with pytest.raises(ConfigError, match="less than a sequence"):
        spend("chinchilla", THETA, 1e9, config, length=256, convention="kaplan")
    with pytest.raises(ConfigError, match="less than a sequence"):
        spend("chinchilla", THETA, 1e12, config, length=256, convention="kaplan", inference_tokens=1e15)
    with pytest.raises(ConfigError, match="knows nothing of repeated"):
        allocate("power_data", np.array([3.0, 0.1]), 1e18, unique_tokens=1e9)
