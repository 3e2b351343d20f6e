"""Step Law: rate 1.79 N^-0.713 D^0.307, batch 0.58 D^0.571 tokens.

Li et al. 2025, arXiv:2503.04715, eq. 1: 3,700 models, AdamW, cosine to a fixed last rate of 1e-5. Their 95%
intervals of the exponents: -0.774 to -0.655, 0.271 to 0.345, 0.534 to 0.606. The dense runs that they released
(step-law/steplaw, data) have N of 2.1e8 to 1.07e9 and D of 4e9 to 1e11; the lower ends here, 6e7 and 2e9, are
those of the paper's grid as remembered, not read again.
"""

from __future__ import annotations

from lmwright.scaling.priors import Scale

SOURCE = "Li et al. 2025 (Step Law), arXiv:2503.04715, eq. 1"
HOLDS_FOR = "N without embeddings and head, D in tokens, batch in tokens"
FITTED = {"N": (6e7, 1.1e9), "D": (2e9, 1e11)}


def reads(scale: Scale) -> dict[str, float]:
    """Return N and D."""
    return {"N": scale.non_embedding, "D": scale.tokens}


def learning_rate(scale: Scale) -> float:
    """Return the peak learning rate."""
    rate: float = 1.79 * scale.non_embedding**-0.713 * scale.tokens**0.307
    return rate


def batch_tokens(scale: Scale) -> float:
    """Return tokens in an update; the size of the model does not matter."""
    tokens: float = 0.58 * scale.tokens**0.571
    return tokens
