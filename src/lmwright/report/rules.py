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
XZ, UNIGRAM = "corpus.json:xz_bits_per_byte", "corpus.json:byte_unigram_bits_per_byte"
STEPS, TRAINED, SECONDS = (f"metrics.jsonl:last step.{key}" for key in ("step", "tokens", "seconds"))
N, N_INNER = "plan.json:parameters.total", "plan.json:parameters.non_embedding"
FLOPS = "plan.json:flops.per_token"


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
        "bits_per_byte",
        "Bits per byte",
        "bits/byte",
        "significant",
        "−Σ log₂ p ÷ bytes, as the last validation in the run logged it",
        "metrics.jsonl:last evaluation.bits_per_byte",
    ),
    given(
        "average_loss",
        "Loss on validation text, averaged weights",
        "nats/token",
        "significant",
        "as the last validation in the run logged it, of the moving average of the weights",
        "metrics.jsonl:last evaluation.average_loss",
    ),
    given(
        "average_bits_per_byte",
        "Bits per byte, averaged weights",
        "bits/byte",
        "significant",
        "as the last validation in the run logged it, of the moving average of the weights",
        "metrics.jsonl:last evaluation.average_bits_per_byte",
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
        name="xz_loss",
        label="Loss that equals xz",
        unit="nats/token",
        style="significant",
        formula="xz × ln 2 × bytes ÷ tokens",
        inputs={"xz": XZ, "bytes": BYTES, "tokens": TOKENS},
        compute=lambda xz, bytes, tokens: xz * LN2 * bytes / tokens,
    ),
    Rule(
        name="against_xz",
        label="Bits, against xz",
        unit="",
        style="change",
        formula="nats ÷ (ln 2 × bytes × xz) − 1",
        inputs={"nats": NATS, "bytes": BYTES, "xz": XZ},
        compute=lambda nats, bytes, xz: nats / (LN2 * bytes * xz) - 1,
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
    given("parameters", "Parameters, N", "", "integer", "elements of all weights, a tied one once", N),
    given("steps", "Steps", "", "integer", "updates of the optimiser", STEPS),
    given("trained_tokens", "Tokens trained on, D", "", "integer", "labels scored, over all steps", TRAINED),
    Rule(
        name="tokens_per_parameter",
        label="Tokens per parameter",
        unit="",
        style="significant",
        formula="D ÷ N",
        inputs={"D": TRAINED, "N": N},
        compute=lambda D, N: D / N,
    ),
    Rule(
        name="epochs",
        label="Epochs",
        unit="",
        style="significant",
        formula="steps ÷ planned steps × planned epochs",
        inputs={"steps": STEPS, "planned steps": "plan.json:steps", "planned epochs": "plan.json:epochs"},
        compute=lambda steps, **planned: steps / planned["planned steps"] * planned["planned epochs"],
    ),
    Rule(
        name="training_flops",
        label="Training FLOPs, exact",
        unit="",
        style="FLOP",
        formula="F × D, with F the FLOPs of a token, counted from the architecture",
        inputs={"F": FLOPS, "D": TRAINED},
        compute=lambda F, D: F * D,
    ),
    Rule(
        name="six_nd",
        label="Training FLOPs, 6ND, all parameters",
        unit="",
        style="FLOP",
        formula="6 × N × D",
        inputs={"N": N, "D": TRAINED},
        compute=lambda N, D: 6 * N * D,
    ),
    Rule(
        name="six_nd_inner",
        label="Training FLOPs, 6ND, no embeddings",
        unit="",
        style="FLOP",
        formula="6 × N × D, N without embeddings and head",
        inputs={"N": N_INNER, "D": TRAINED},
        compute=lambda N, D: 6 * N * D,
    ),
    given(
        "compile_seconds",
        "Compilation",
        "",
        "duration",
        "seconds before the first step, of the last process of the run",
        "metrics.jsonl:last start.compile_seconds",
    ),
    given("seconds", "Training time", "", "duration", "seconds in training steps, reading included", SECONDS),
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
        formula="F × D ÷ (seconds × peak), peak in FLOP/s as measured",
        inputs={"F": FLOPS, "D": TRAINED, "seconds": SECONDS, "peak": "plan.json:peak_flops"},
        compute=lambda F, D, seconds, peak: F * D / (seconds * peak),
    ),
    given(
        "peak_memory",
        "Memory",
        "",
        "B",
        "the most that the process, or the GPU, held",
        "metrics.jsonl:last end.peak_memory_bytes",
    ),
)

PLAN = (
    given(
        "planned_tokens", "Tokens, planned", "", "integer", "steps × batch × context length", "plan.json:tokens"
    ),
    given(
        "planned_epochs",
        "Epochs, planned",
        "",
        "significant",
        "sequences ÷ those of the split",
        "plan.json:epochs",
    ),
    given("planned_flops", "Training FLOPs, planned", "", "FLOP", "F × tokens", "plan.json:flops.total"),
    given(
        "planned_six_nd",
        "6ND, planned, all parameters",
        "",
        "FLOP",
        "6 × N × tokens",
        "plan.json:flops.six_nd_all_parameters",
    ),
    given(
        "planned_six_nd_inner",
        "6ND, planned, no embeddings",
        "",
        "FLOP",
        "6 × N × tokens, N without embeddings and head",
        "plan.json:flops.six_nd_without_embeddings",
    ),
    given(
        "planned_seconds",
        "Training time, planned",
        "",
        "duration",
        "estimate, before the first step",
        "plan.json:seconds",
    ),
    Rule(
        name="planned_tokens_per_second",
        label="Tokens per second, planned",
        unit="tokens/s",
        style="significant",
        formula="tokens ÷ seconds",
        inputs={"tokens": "plan.json:tokens", "seconds": "plan.json:seconds"},
        compute=lambda tokens, seconds: tokens / seconds,
    ),
    given(
        "planned_memory",
        "Memory, planned",
        "",
        "B",
        "weights + gradients + optimiser + activations + logits",
        "plan.json:memory_bytes.total",
    ),
)
BUDGET = (
    given(
        "budget_loss",
        "Loss, predicted from the budget",
        "",
        "significant",
        "the law at the planned parameters and tokens, in its own metric",
        "plan.json:budget.loss.loss",
    ),
    given(
        "budget_loss_low",
        "Loss, predicted, lower end",
        "",
        "significant",
        "lower end of the law’s interval for a new run",
        "plan.json:budget.loss.low",
    ),
    given(
        "budget_loss_high",
        "Loss, predicted, upper end",
        "",
        "significant",
        "upper end of the law’s interval for a new run",
        "plan.json:budget.loss.high",
    ),
    given(
        "budget_tokens",
        "Tokens, by the budget",
        "",
        "integer",
        "what the budget pays for at its best",
        "plan.json:budget.tokens",
    ),
    given(
        "budget_flops",
        "Training FLOPs, by the budget",
        "",
        "FLOP",
        "F × tokens",
        "plan.json:budget.training_flops",
    ),
    given(
        "budget_seconds",
        "Training time, by the budget",
        "",
        "duration",
        "FLOPs ÷ the speed that was reckoned with",
        "plan.json:budget.seconds",
    ),
    given(
        "budget_memory",
        "Memory, by the budget",
        "",
        "B",
        "tensors of the greatest moment of a step",
        "plan.json:budget.memory_bytes",
    ),
)
# What was planned from a budget -> what came of it; the loss by the law's metric.
BUDGETED = {
    "budget_tokens": "trained_tokens",
    "budget_flops": "training_flops",
    "budget_seconds": "seconds",
    "budget_memory": "peak_memory",
}
# What was planned -> what came of it.
PLANNED = {
    "planned_tokens": "trained_tokens",
    "planned_epochs": "epochs",
    "planned_flops": "training_flops",
    "planned_six_nd": "six_nd",
    "planned_six_nd_inner": "six_nd_inner",
    "planned_seconds": "seconds",
    "planned_tokens_per_second": "tokens_per_second",
    "planned_memory": "peak_memory",
}
# A difference would compare unlike things: the plan counts a step's tensors, the process holds much else.
UNLIKE = ("planned_memory",)
RULES = LOSS + COST + PLAN + BUDGET
RULE_NAMES = tuple(dict.fromkeys(rule.name for rule in RULES))
