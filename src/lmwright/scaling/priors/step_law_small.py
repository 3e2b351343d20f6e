"""Step Law, bent below its smallest model: its rate times (N / 6e7)^0.15 there, its batch as it is.

Step Law (Li et al. 2025, arXiv:2503.04715) was fitted from 60 million parameters on. Carried on below, its rate is
two to three times too high from 30 thousand to 3 million, whatever the batch, as measured with AdamW on the Python
standard library (docs/results/learning-rates.md); its batch is right. The power that meets its rate where its
range begins fits what was measured to a factor of 1.35. Between 4 and 60 million nothing was measured: there the
bend is an interpolation.
"""

from __future__ import annotations

from lmwright.scaling.priors import Scale, step_law

SOURCE = "Step Law (arXiv:2503.04715), bent below 6e7 parameters as in docs/results/learning-rates.md"
HOLDS_FOR = step_law.HOLDS_FOR
FITTED = {"N": (3e4, step_law.FITTED["N"][1]), "D": (2e5, step_law.FITTED["D"][1])}
BEND = 0.15


def reads(scale: Scale) -> dict[str, float]:
    """Return N and D."""
    return step_law.reads(scale)


def learning_rate(scale: Scale) -> float:
    """Return the peak learning rate."""
    least, _ = step_law.FITTED["N"]
    bend: float = min(1.0, scale.non_embedding / least) ** BEND
    return step_law.learning_rate(scale) * bend


def batch_tokens(scale: Scale) -> float:
    """Return tokens in an update; the size of the model does not matter."""
    return step_law.batch_tokens(scale)
