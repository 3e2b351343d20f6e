"""Power Lines: batch in proportion to D^0.383, whatever the size of the model; no learning rate.

Bergsma et al. 2025, arXiv:2505.13738. The paper's coefficient belongs to its tokenizer and sequence length, so
the rule is anchored where nanochat (github.com/karpathy/nanochat, scripts/base_train.py) measured its optimum:
2^19 tokens at 10.5 tokens for each of 135,267,456 parameters (12 layers). The paper's models have 111M to 3.3B
parameters; the range of D is as remembered, not read again. Its weight decay, from the time scale of AdamW's
average: `timescale`.
"""

from __future__ import annotations

from lmwright.scaling.priors import Scale

SOURCE = "Bergsma et al. 2025 (Power Lines), arXiv:2505.13738, anchored at nanochat's 12 layers"
HOLDS_FOR = "D in tokens, batch in tokens; N of all parameters in the time scale"
FITTED = {"D": (1e9, 2e11)}
ANCHOR_TOKENS, ANCHOR_BATCH = 10.5 * 135_267_456, 2.0**19


def reads(scale: Scale) -> dict[str, float]:
    """Return D."""
    return {"D": scale.tokens}


def learning_rate(scale: Scale) -> None:
    """Return None: the paper tunes the rate of one small model and carries it over by muP."""


def batch_tokens(scale: Scale) -> float:
    """Return tokens in an update."""
    tokens: float = ANCHOR_BATCH * (scale.tokens / ANCHOR_TOKENS) ** 0.383
    return tokens


def timescale(scale: Scale) -> float:
    """Return B / (rate x decay x D) at its best, 1.084 (D/N)^-0.527: the share of a run that AdamW remembers."""
    share: float = 1.084 * (scale.tokens / scale.total) ** -0.527
    return share
