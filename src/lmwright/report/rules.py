"""The numbers of a report: what each is called, its formula, and where its inputs stand in the run directory.

Loss in nats a token and perplexity: Jelinek et al. (1977); bits per byte: Gao et al., The Pile (2020), section
3.1; 6ND: Kaplan et al. (2020), section 2.1; MFU: Chowdhery et al., PaLM (2022), appendix B. A later rule of the
same name stands in where the inputs of the first are absent. Knows nothing of how a number is printed on a page.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

LN2 = math.log(2)
NATS, TOKENS, BYTES = "evaluation.json:nats", "evaluation.json:tokens", "evaluation.json:bytes"
XZ, UNIGRAM = "corpus.json:xz_bits_per_byte", "corpus.json:unigram_bits_per_byte"
TRAINED, SECONDS = "metrics.jsonl:last step.tokens", "metrics.jsonl:last end.seconds"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one number is computed. inputs: symbol of the formula -> address; style: see `wording.write`."""

    name: str
    label: str
    unit: str
    style: str
    formula: str
    inputs: dict[str, str]
    compute: Callable[..., float]


def given(name: str, label: str, unit: str, style: str, formula: str, address: str) -> Rule:
    """A number that is read as it stands; `formula` says how whoever wrote it measured it."""
    return Rule(
        name=name, label=label, unit=unit, style=style, formula=formula, inputs={"x": address}, compute=lambda x: x
    )


LOSS = (
    Rule(
        name="validation_loss",
        label="Loss on validation text",
        unit="nats/token",
        style="significant",
        formula="nats ÷ tokens",
        inputs={"nats": NATS, "tokens": TOKENS},
        compute=lambda nats, tokens: nats / tokens,
    ),
    given(
        "validation_loss",
        "Loss on validation text",
        "nats/token",
        "significant",
        "mean of −ln p, as the last validation in the run logged it",
        "metrics.jsonl:last evaluation.loss",
    ),
    Rule(
        name="perplexity",
        label="Perplexity",
        unit="",
        style="significant",
        formula="exp(nats ÷ tokens)",
        inputs={"nats": NATS, "tokens": TOKENS},
        compute=lambda nats, tokens: math.exp(nats / tokens),
    ),
    Rule(
        name="bits_per_byte",
        label="Bits per byte",
        unit="bits/byte",
        style="significant",
        formula="nats ÷ (ln 2 × bytes)",
        inputs={"nats": NATS, "bytes": BYTES},
        compute=lambda nats, bytes: nats / (LN2 * bytes),
    ),
    given(
        "xz_bits_per_byte",
        "Bits per byte, xz",
        "bits/byte",
        "significant",
        "8 × bytes compressed ÷ bytes, validation text as one stream",
        XZ,
    ),
    given(
        "unigram_bits_per_byte",
        "Bits per byte, byte unigram",
        "bits/byte",
        "significant",
        "−Σ log₂ p(b) ÷ bytes over validation, p counted in training text, add one",
        UNIGRAM,
    ),
    Rule(
        name="saved_against_xz",
        label="Bits saved against xz",
        unit="",
        style="percent",
        formula="1 − nats ÷ (ln 2 × bytes × xz)",
        inputs={"nats": NATS, "bytes": BYTES, "xz": XZ},
        compute=lambda nats, bytes, xz: 1 - nats / (LN2 * bytes * xz),
    ),
    given(
        "training_loss",
        "Training loss, last step logged",
        "nats/token",
        "significant",
        "−Σ ln p ÷ tokens of the step",
        "metrics.jsonl:last step.loss",
    ),
    given(
        "best_validation_loss",
        "Validation loss, least logged",
        "nats/token",
        "significant",
        "least of the validations during the run",
        "metrics.jsonl:min evaluation.loss",
    ),
)

COST = (
    given(
        "parameters",
        "Parameters, N",
        "",
        "integer",
        "elements of all weights, a tied one once",
        "plan.json:parameters.total",
    ),
    given("steps", "Steps", "", "integer", "optimiser updates", "metrics.jsonl:last step.step"),
    given("trained_tokens", "Tokens trained on, D", "", "integer", "labels scored, all steps", TRAINED),
    Rule(
        name="epochs",
        label="Epochs",
        unit="",
        style="significant",
        formula="D ÷ tokens of the training split",
        inputs={"D": TRAINED, "tokens": "corpus.json:splits.train.tokens"},
        compute=lambda D, tokens: D / tokens,
    ),
    Rule(
        name="tokens_per_parameter",
        label="Tokens per parameter",
        unit="",
        style="significant",
        formula="D ÷ N",
        inputs={"D": TRAINED, "N": "plan.json:parameters.total"},
        compute=lambda D, N: D / N,
    ),
    Rule(
        name="training_flops",
        label="Training FLOPs, exact",
        unit="FLOP",
        style="FLOP",
        formula="F × D, F counted from the architecture: see docs/equations.md",
        inputs={"F": "plan.json:flops.per_token", "D": TRAINED},
        compute=lambda F, D: F * D,
    ),
    Rule(
        name="six_nd",
        label="Training FLOPs, 6ND",
        unit="FLOP",
        style="FLOP",
        formula="6 × N × D",
        inputs={"N": "plan.json:parameters.total", "D": TRAINED},
        compute=lambda N, D: 6 * N * D,
    ),
    given("seconds", "Training time", "s", "duration", "monotonic clock, first step to last", SECONDS),
    Rule(
        name="tokens_per_second",
        label="Tokens per second",
        unit="tokens/s",
        style="significant",
        formula="D ÷ seconds",
        inputs={"D": TRAINED, "seconds": SECONDS},
        compute=lambda D, seconds: D / seconds,
    ),
    Rule(
        name="mfu",
        label="Model FLOPs utilisation (MFU)",
        unit="",
        style="percent",
        formula="F × D ÷ (seconds × peak FLOP/s)",
        inputs={
            "F": "plan.json:flops.per_token",
            "D": TRAINED,
            "seconds": SECONDS,
            "peak": "plan.json:peak_flops_per_second",
        },
        compute=lambda F, D, seconds, peak: F * D / (seconds * peak),
    ),
)

PLAN = (
    given("planned_tokens", "Tokens", "", "integer", "steps × batch × context length", "plan.json:tokens"),
    given("planned_epochs", "Epochs", "", "significant", "tokens ÷ tokens of the split", "plan.json:epochs"),
    given("planned_flops", "Training FLOPs, exact", "FLOP", "FLOP", "F × tokens", "plan.json:flops.exact"),
    given("planned_six_nd", "Training FLOPs, 6ND", "FLOP", "FLOP", "6 × N × tokens", "plan.json:flops.six_nd"),
    given(
        "planned_seconds", "Training time", "s", "duration", "estimate, before the first step", "plan.json:seconds"
    ),
)
PLANNED = (
    ("planned_tokens", "trained_tokens"),
    ("planned_epochs", "epochs"),
    ("planned_flops", "training_flops"),
    ("planned_six_nd", "six_nd"),
    ("planned_seconds", "seconds"),
)
RULES = LOSS + COST + PLAN
RULE_NAMES = tuple(dict.fromkeys(rule.name for rule in RULES))
