"""Settings of a planned run: from the rules by hand, bent where they must be, each with its reason."""

from __future__ import annotations

import dataclasses
import math

import pytest

from lmwright.errors import ConfigError
from lmwright.scaling.flops import count_parameters
from lmwright.scaling.planning.hyper import choose, moved
from lmwright.scaling.planning.shape import shape
from lmwright.scaling.priors import Scale
from lmwright.scaling.sweep import Trial, fit_sweep

SMALL = shape(3e6, vocab_size=4096, length=256, convention="chinchilla", tie_embeddings=True).config
LARGE = shape(5e8, vocab_size=32_000, length=2048, convention="kaplan").config


def test_within_the_range_of_the_prior_the_settings_are_its_own():
    count, tokens = count_parameters(LARGE), 1e10
    found = choose(LARGE, tokens, 2048)
    wanted = 0.58 * tokens**0.571
    assert found.batch_size == 2 ** round(math.log2(wanted / 2048))
    update = found.batch_size * 2048
    assert found.steps == int(tokens // update)
    rate = 1.79 * count.non_embedding**-0.713 * tokens**0.307 * math.sqrt(update / wanted)
    assert found.learning_rate == pytest.approx(rate)
    assert found.warmup_steps == min(math.ceil(count.total / update), found.steps // 10)
    decay = update / (rate * tokens * 1.084 * (tokens / count.total) ** -0.527)
    assert found.weight_decay == pytest.approx(min(max(decay, 0.01), 0.2))
    assert "Step Law" in found.reasons["learning_rate"]
    assert "outside" not in found.reasons["learning_rate"]


@pytest.mark.parametrize(("config", "length"), [(SMALL, 256), (LARGE, 2048)])
@pytest.mark.parametrize("tokens", [3e3, 1e5, 1e7, 1e9, 1e12])
def test_any_run_gets_settings_that_can_be_trained_with_and_a_reason_for_each(config, length, tokens):
    found = choose(config, tokens, length)
    assert found.batch_size >= 1
    assert found.steps >= 1
    assert found.steps * found.batch_size * length <= tokens
    assert (found.steps + 1) * found.batch_size * length > tokens
    assert found.steps >= 200 or found.batch_size == 1
    assert 1 <= found.warmup_steps <= max(1, found.steps // 10)
    assert 0 < found.learning_rate <= 0.02
    assert 0.01 <= found.weight_decay <= 0.2
    names = {field.name for field in dataclasses.fields(found)} - {"reasons", "wanted_rate", "ceiling"}
    assert set(found.reasons) == names
    assert all("\n" not in reason and reason for reason in found.reasons.values())


def test_a_model_below_step_law_has_less_than_its_rate():
    scale = Scale.of(SMALL, 2e7, 256)
    found = choose(SMALL, 2e7, 256)
    unbent = fit_sweep([], rate_prior="step_law")
    bend = (scale.non_embedding / 6e7) ** 0.15
    assert found.learning_rate == pytest.approx(bend * choose(SMALL, 2e7, 256, rules=unbent).learning_rate)
    assert bend < 0.8
    assert "learning-rates.md" in found.reasons["learning_rate"]
    assert "outside the range" in choose(SMALL, 2e7, 256, rules=unbent).reasons["learning_rate"]


def test_a_rate_beyond_all_experience_is_lowered_and_says_so():
    found = choose(SMALL, 1e12, 256)
    assert found.learning_rate == 2e-2
    assert "lowered to 0.02, above which no model was best" in found.reasons["learning_rate"]


def test_a_short_run_has_smaller_batches_and_enough_updates():
    long, short = (choose(SMALL, tokens, 64) for tokens in (4e6, 64 * 200 * 3.0))
    assert short.batch_size == 3  # the rule's 240 tokens are four sequences, with which 150 updates would be left
    assert short.steps == 200
    assert "200 updates" in short.reasons["batch_size"]
    assert "updates" not in long.reasons["batch_size"]
    measured = fit_sweep([]).learning_rate.value(Scale.of(SMALL, 38_400, 64))
    assert short.learning_rate == pytest.approx(measured * math.sqrt(192 / (0.58 * 38_400**0.571)))


def test_what_was_swept_goes_before_the_prior_and_is_not_lowered():
    scale = Scale.of(SMALL, 2e7, 256)
    trials = [
        Trial(
            scale=scale,
            learning_rate=5e-3 * 2.0**step,
            batch_tokens=8192 * 2.0**turn,
            loss=3 + step**2 / 50 + turn**2 / 50,
        )
        for step in range(-2, 3)
        for turn in range(-2, 3)
    ]
    found = choose(SMALL, 2e7, 256, rules=fit_sweep(trials))
    assert found.batch_size == 32
    assert found.learning_rate == pytest.approx(5e-3)
    assert "measured on 1 size" in found.reasons["learning_rate"]
    assert "measured on 1 size" in found.reasons["batch_size"]


def test_another_batch_moves_the_rate_the_warm_up_and_the_decay():
    found = choose(LARGE, 1e10, 2048)
    batch, steps = found.batch_size // 4, 4 * found.steps
    other = moved(found, LARGE, 2048, batch_size=batch, steps=steps, reasons={"batch_size": "by the test"})
    assert (other.batch_size, other.steps) == (batch, steps)
    assert other.learning_rate == pytest.approx(found.learning_rate / 2)
    assert other.warmup_steps == 4 * found.warmup_steps
    # AdamW is to remember the same share of the run: B / (rate decay D) stays.
    assert 0.01 < other.weight_decay < found.weight_decay < 0.2
    assert other.weight_decay == pytest.approx(found.weight_decay / 2, rel=1e-3)
    assert other.reasons["batch_size"] == "by the test"
    assert f"from a batch of {found.batch_size} to {batch} likewise" in other.reasons["learning_rate"]
    assert other.reasons["weight_decay"].startswith(f"{other.weight_decay:.3g} makes AdamW remember")
    again = moved(other, LARGE, 2048, batch_size=batch, steps=steps, reasons={})
    assert again == other


def test_a_rate_that_was_lowered_moves_as_the_rule_wants_and_stays_below_the_ceiling():
    model = shape(3e4, vocab_size=300, length=64, convention="chinchilla", tie_embeddings=True).config
    for tokens in (1e6, 1e7):
        found = choose(model, tokens, 64)
        rules = fit_sweep([])
        scale = Scale.of(model, tokens, 64)
        assert "lowered to 0.02" in found.reasons["learning_rate"]
        for batch in (1, found.batch_size // 4, found.batch_size // 2, 8 * found.batch_size):
            other = moved(found, model, 64, batch_size=batch, steps=100, reasons={})
            share = batch * 64 / rules.batch_tokens.value(scale)
            wanted = rules.learning_rate.value(scale) * math.sqrt(share)
            assert other.learning_rate == pytest.approx(min(wanted, 0.02))
            reason = other.reasons["learning_rate"]
            assert f"from a batch of {found.batch_size} to {batch} likewise" in reason
            assert reason.count("lowered to") == (wanted > 0.02)
            assert reason.endswith(f"; {wanted:.2g} lowered to 0.02, above which no model was best") == (
                wanted > 0.02
            )
            back = moved(other, model, 64, batch_size=found.batch_size, steps=found.steps, reasons={})
            assert back.learning_rate == pytest.approx(found.learning_rate)


def test_a_rate_that_was_measured_moves_beyond_the_ceiling():
    scale = Scale.of(SMALL, 2e7, 256)
    trials = [
        Trial(scale=scale, learning_rate=1.5e-2 * 2.0**step, batch_tokens=8192, loss=3 + step**2 / 50)
        for step in range(-2, 3)
    ]
    found = choose(SMALL, 2e7, 256, rules=fit_sweep(trials))
    other = moved(found, SMALL, 256, batch_size=16 * found.batch_size, steps=100, reasons={})
    assert other.learning_rate == pytest.approx(4 * found.learning_rate)
    assert other.learning_rate > 0.02
    assert "lowered" not in other.reasons["learning_rate"]


def test_fewer_tokens_than_a_sequence_are_refused():
    with pytest.raises(ConfigError, match="less than one sequence of 256"):
        choose(SMALL, 255, 256)
