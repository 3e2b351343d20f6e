"""Shapes: exact counts, near the size and the ratio, refused where there is none."""

from __future__ import annotations

import math

import pytest

from lmwright.errors import ConfigError
from lmwright.model.config import ModelConfig
from lmwright.scaling.flops import count_parameters
from lmwright.scaling.planning.shape import shape, widths

SIZES = [1e6, 4e6, 3e7, 1.2e8, 1e9, 7e9, 7e10]


@pytest.mark.parametrize("convention", ["kaplan", "chinchilla"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("size", SIZES)
def test_a_shape_is_near_what_was_asked_and_counted_exactly(size, family, convention):
    made = shape(size, vocab_size=2048, length=256, convention=convention, family=family)
    count = count_parameters(made.config)
    assert made.parameters == (count.non_embedding if convention == "kaplan" else count.total)
    assert made.parameters == pytest.approx(size, rel=0.15 if size < 1e7 else 0.1 if size < 1e8 else 0.05)
    assert 32 <= made.config.hidden_size / made.config.num_layers <= 128
    assert made.config.family == family
    assert made.config.max_positions == 256
    assert f"{made.parameters:,} parameters" in made.reason
    assert made == shape(size, vocab_size=2048, length=256, convention=convention, family=family)


def test_no_other_width_and_depth_is_nearer():
    """Against every width and depth, by counting each."""
    size, vocabulary = 2.4e7, 4096

    def distance(config: ModelConfig) -> float:
        ratio = config.hidden_size / config.num_layers / 64
        return 16 * math.log(count_parameters(config).total / size) ** 2 + math.log(ratio) ** 2

    every = [
        ModelConfig.llama(
            hidden_size=width,
            num_layers=layers,
            num_heads=width // (32 if width < 256 else 64),
            vocab_size=vocabulary,
            max_positions=128,
        )
        for width in widths()
        if width <= 1024
        for layers in range(2, 33)
        if 32 <= width / layers <= 128
    ]
    made = shape(size, vocab_size=vocabulary, length=128, convention="chinchilla")
    assert made.config == min(every, key=distance)


def test_gpt2_small_is_found_from_its_size():
    made = shape(124_439_808, vocab_size=50257, length=1024, convention="chinchilla", family="gpt2")
    assert (made.config.hidden_size, made.config.num_layers, made.config.num_heads) == (768, 12, 12)
    assert made.config.ffn_size == 3072
    assert made.parameters == 124_439_808


def test_sizes_rise_with_what_is_asked_and_widths_suit_matrix_units():
    made = [
        shape(size, vocab_size=256, length=64, convention="kaplan").parameters for size in (1e6, 1e7, 1e8, 1e9)
    ]
    assert made == sorted(made)
    assert all(width % (32 if width < 256 else 64 if width < 1024 else 128) == 0 for width in widths())


def test_other_ratios_and_fields_are_taken():
    deep = shape(1e8, vocab_size=4096, length=256, convention="kaplan", aspect=32)
    wide = shape(1e8, vocab_size=4096, length=256, convention="kaplan", aspect=128)
    assert deep.config.num_layers > wide.config.num_layers
    tied = shape(1e7, vocab_size=4096, length=256, convention="chinchilla", tie_embeddings=True)
    assert tied.config.tie_embeddings
    assert tied.parameters == pytest.approx(1e7, rel=0.1)


def test_an_lstm_is_told_without_heads_and_feed_forward():
    reasons = [
        shape(1e6, vocab_size=256, length=64, convention="kaplan", family=one).reason for one in ("lstm", "gpt2")
    ]
    assert (
        ["heads of" in reason for reason in reasons] == ["feed-forward" in one for one in reasons] == [False, True]
    )
    assert reasons[0].endswith("on which loss hardly depends (Kaplan et al. 2020)")


def test_a_size_that_no_model_has_is_refused():
    with pytest.raises(ConfigError, match=r"vocabulary of 50,257; the nearest has 3,2"):
        shape(1e5, vocab_size=50257, length=256, convention="chinchilla")
    with pytest.raises(ConfigError, match="the nearest has"):
        shape(1e16, vocab_size=256, length=64, convention="kaplan")
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="positive and finite"):
            shape(wrong, vocab_size=256, length=64, convention="kaplan")
    with pytest.raises(ConfigError, match="families"):
        shape(1e7, vocab_size=256, length=64, convention="kaplan", family="lama")
