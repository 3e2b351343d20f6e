"""DeepSeek: rate 0.3118 C^-0.1250, batch 0.2920 C^0.3271 tokens.

DeepSeek-AI 2024, arXiv:2401.02954, eq. 1. C is M D, with M = 72 L d^2 + 12 L d T the training FLOPs of a token
without embeddings and head, attention included. Fitted on budgets of 1e17 to 2e19 FLOPs (section 3.1), to all
settings within 0.25% of the best loss, at one allocation for each budget: a run far from it is beyond the rule.
"""

from __future__ import annotations

from lmwright.scaling.priors import Scale

SOURCE = "DeepSeek-AI 2024 (DeepSeek LLM), arXiv:2401.02954, eq. 1"
HOLDS_FOR = "C = M D, M the training FLOPs of a token without embeddings and head, attention included"
FITTED = {"C": (1e17, 2e19)}


def reads(scale: Scale) -> dict[str, float]:
    """Return C."""
    return {"C": scale.non_embedding_flops}


def learning_rate(scale: Scale) -> float:
    """Return the peak learning rate."""
    rate: float = 0.3118 * scale.non_embedding_flops**-0.1250
    return rate


def batch_tokens(scale: Scale) -> float:
    """Return tokens in an update."""
    tokens: float = 0.2920 * scale.non_embedding_flops**0.3271
    return tokens
