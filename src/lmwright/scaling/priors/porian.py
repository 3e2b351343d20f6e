"""Porian et al.: rate 3.7 N^-0.36, batch 0.7576 N^0.703 tokens, at compute-optimal length.

Porian et al. 2024, arXiv:2406.19146, with the constants as Li et al. 2025, arXiv:2503.04715, table 1, quote them.
AdamW without decay of the rate; beta2 = 0.99 matters where the batch is small. N counts the output matrix, not the
embedding: what a token is multiplied with. Sixteen models, of 5.2M to 902M parameters so counted (paper_tables.py
of their repository, formll/resolving-scaling-law-discrepancies).
"""

from __future__ import annotations

from lmwright.scaling.priors import Scale

SOURCE = "Porian et al. 2024, arXiv:2406.19146"
HOLDS_FOR = "N without embeddings but with the head, about 20 tokens a parameter, constant rate"
FITTED = {"N": (5.18e6, 9.02e8)}


def reads(scale: Scale) -> dict[str, float]:
    """Return N."""
    return {"N": scale.non_embedding + scale.head}


def learning_rate(scale: Scale) -> float:
    """Return the peak learning rate."""
    rate: float = 3.7 * (scale.non_embedding + scale.head) ** -0.36
    return rate


def batch_tokens(scale: Scale) -> float:
    """Return tokens in an update."""
    tokens: float = 0.7576 * (scale.non_embedding + scale.head) ** 0.703
    return tokens
