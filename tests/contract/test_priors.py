"""What holds for every file in scaling/priors, present and future, and the figures of those that are there."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.scaling import priors
from lmwright.scaling.priors import Scale

NAMES = priors.names()
INSIDE = Scale(non_embedding=3e8, total=4e8, head=5e7, attention=2e8, tokens=6e9)


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_says_where_it_is_from_and_what_it_holds_for(name):
    prior = priors.load(name)
    assert "arXiv:" in prior.SOURCE
    assert prior.HOLDS_FOR
    assert set(prior.reads(INSIDE)) == set(prior.FITTED)
    assert all(0 < low < high < math.inf for low, high in prior.FITTED.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_gives_a_rate_or_a_batch_of_a_size_that_can_be_trained_with(name):
    said = priors.suggest(name, INSIDE)
    assert said.learning_rate is not None or said.batch_tokens is not None
    assert said.learning_rate is None or 1e-5 < said.learning_rate < 2e-2
    assert said.batch_tokens is None or 1e4 < said.batch_tokens < 1e7
    assert (said.prior, said.source) == (name, priors.load(name).SOURCE)


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_says_when_it_is_asked_outside_its_range_and_only_then(name):
    prior = priors.load(name)
    for times in (1e-6, 1e-3, 1, 1e3, 1e6):
        asked = Scale(**{key: value * times for key, value in dataclasses.asdict(INSIDE).items()})
        beyond = [
            quantity
            for quantity, value in prior.reads(asked).items()
            if not prior.FITTED[quantity][0] <= value <= prior.FITTED[quantity][1]
        ]
        said = priors.suggest(name, asked).outside
        assert len(said) == len(beyond)
        assert all(text.startswith(f"{quantity} ") for text, quantity in zip(said, beyond, strict=True))
    assert priors.suggest(name, dataclasses.replace(INSIDE, tokens=1e25, non_embedding=1e25)).outside


@pytest.mark.parametrize("times", [1e-3, 1])
@pytest.mark.parametrize("name", NAMES)
def test_a_rule_is_a_power_law_larger_runs_take_larger_batches(name, times):
    """On either side of 60 million parameters, where Step Law bends."""
    prior = priors.load(name)
    sizes = [
        Scale(**{key: value * times * 4.0**step for key, value in dataclasses.asdict(INSIDE).items()})
        for step in range(4)
    ]
    assert max(size.non_embedding for size in sizes) < 6e7 or min(size.non_embedding for size in sizes) > 6e7
    for read in (prior.learning_rate, prior.batch_tokens):
        logs = [math.log(value) for value in map(read, sizes) if value is not None]
        slopes = [later - earlier for earlier, later in itertools.pairwise(logs)]
        assert slopes == pytest.approx(slopes[:1] * len(slopes), rel=1e-9)
    batches = list(map(prior.batch_tokens, sizes))
    assert batches == sorted(batches)


def test_the_scale_of_a_model_counts_as_the_papers_do():
    config = ModelConfig.gpt2(vocab_size=1000, hidden_size=128, num_layers=3, num_heads=2, max_positions=256)
    scale = Scale.of(config, tokens=1e6, length=256)
    layers, width = 3, 128
    assert scale.attention == 12 * layers * width * 256  # DeepSeek's second term of M
    matrices = 12 * layers * width**2
    biases = layers * (4 * width + 4 * width + width + 4 * width) + 2 * width  # projections, FFN, norms
    assert scale.non_embedding == matrices + biases
    assert scale.head == 1000 * 128
    assert scale.total == scale.non_embedding + 1000 * 128 + 256 * 128
    assert scale.non_embedding_flops == (6 * scale.non_embedding + scale.attention) * 1e6
    with pytest.raises(ConfigError, match="0 tokens"):
        Scale.of(config, tokens=0, length=256)


def said(name: str, **given: float) -> priors.Suggestion:
    return priors.suggest(name, dataclasses.replace(INSIDE, **given))


def test_published_figures_come_out():
    # Step Law for 1B parameters and 100B tokens, by hand with logarithms to base 10.
    step = said("step_law", non_embedding=1e9, tokens=1e11)
    assert math.log10(step.learning_rate) == pytest.approx(math.log10(1.79) - 9 * 0.713 + 11 * 0.307)
    assert math.log10(step.batch_tokens) == pytest.approx(math.log10(0.58) + 11 * 0.571)
    # DeepSeek's 7B on 2T tokens: the paper trained it with 4.2e-4 and batches of 2,304 x 4,096.
    layers, width = 30, 4096
    large = said(
        "deepseek", non_embedding=12 * layers * width**2, attention=12 * layers * width * 4096, tokens=2e12
    )
    assert large.learning_rate == pytest.approx(4.2e-4, rel=0.05)
    assert large.batch_tokens == pytest.approx(2304 * 4096, rel=0.05)
    porian = said("porian", non_embedding=0.9e8, head=0.1e8)
    assert porian.batch_tokens == pytest.approx(0.7576 * 10**5.624)
    assert porian.learning_rate == pytest.approx(3.7 * 10**-2.88)
    lines = said("power_lines", tokens=10.5 * 135_267_456 * 10)
    assert lines.batch_tokens == pytest.approx(2**19 * 10**0.383)
    assert lines.learning_rate is None
    one = dataclasses.replace(INSIDE, tokens=INSIDE.total)
    assert priors.load("power_lines").timescale(one) == pytest.approx(1.084)


def test_step_law_bends_where_its_range_begins_and_meets_itself_there():
    """Below 6e7 by the power 0.15 more, as measured: a tenth of the size takes 10^-0.15 of its rate."""
    for size, bend in ((6e9, 1.0), (6e7, 1.0), (6e6, 10**-0.15), (6e5, 10**-0.30)):
        large, small = (said(name, non_embedding=size, tokens=1e9) for name in ("step_law", "step_law_small"))
        assert small.learning_rate == pytest.approx(bend * large.learning_rate, rel=1e-12)
        assert small.batch_tokens == large.batch_tokens


def test_an_unknown_rule_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="step_law"):
        priors.suggest("steplaw", INSIDE)
