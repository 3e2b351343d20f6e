"""A planned run in words, a line each with its reason, and as plain data. Torch-free."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Mapping
from typing import Any

from lmwright.recipes.budget import BudgetPlan
from lmwright.recipes.budget_basis import Predicted
from lmwright.recipes.budget_next import first_sizes
from lmwright.recipes.budget_run import OPTIMIZER, SCHEDULE
from lmwright.recipes.ladder_plan import Ladder
from lmwright.scaling import priors
from lmwright.scaling.flops import count_parameters, flops_per_token
from lmwright.scaling.priors import Scale
from lmwright.scaling.sweep import DEFAULT

UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def lines(plan: BudgetPlan) -> list[str]:
    """Return the plan as lines."""
    chosen, reasons = plan.settings, plan.reasons
    found = [
        *_without_a_law(plan),
        row("budget", plan.flops_reason),
        row("law", f"{plan.law.name}, {plan.law.source}"),
        row("", plan.best.reason()),
        row("parameters", reasons["architecture"]),
        row("context", f"{plan.length:,} ({reasons['context']})"),
        row(
            "tokens", f"{plan.tokens:,}, {plan.tokens / count_parameters(plan.architecture).total:.3g} a parameter"
        ),
        row("epochs", _epochs(plan)),
        row("batch", f"{chosen.batch_size:,} sequences ({reasons['batch_size']})"),
        row("micro-batch", f"{plan.micro_batch_size:,} ({reasons['micro_batch_size']})"),
        row("steps", f"{chosen.steps:,} ({reasons['steps']})"),
        row("rate", f"{chosen.learning_rate:.3g} ({reasons['learning_rate']})"),
        row("warm-up", f"{chosen.warmup_steps:,} steps ({reasons['warmup_steps']})"),
        row("weight decay", f"{chosen.weight_decay:.3g} ({reasons['weight_decay']})"),
        row("optimiser", f"{plan.optimizer} ({_optimizer(plan)})"),
        row("schedule", f"{plan.schedule} ({_schedule(plan)})"),
        row("other priors", _priors(plan)),
        row("memory", _memory(plan)),
        row("time", _time(plan)),
        row("loss", _loss(plan)),
        *_next(plan),
    ]
    return found + [row("warning", warning) for warning in plan.warnings]


def _without_a_law(plan: BudgetPlan) -> list[str]:
    """Say first, where there is no law of one's own, that the loss is not known, and how it would be."""
    if plan.law.fitted is not None:
        return []
    return [
        row(
            "no law", "what this run will reach is not known: a published law divides the budget, and its loss is"
        ),
        row(
            "", "of another corpus. For a loss to trust, train small models on your corpus first, and fit theirs:"
        ),
        row("", _ladder(plan)),
        row("", "lmwright fit runs/ladder --out law.json"),
        row("", "and then this command again with --law law.json"),
    ]


def _ladder(plan: BudgetPlan) -> str:
    """Return the command, for a shell, of a ladder whose law holds for the plan: of its family and context."""
    sizes = ",".join(f"{size / 1e6:.3g}m" for size in first_sizes(plan.architecture, plan.length))
    words = ["lmwright", "ladder", "--corpus", str(plan.corpus), "--sizes", sizes]
    if plan.architecture.family != Ladder.family:
        words += ["--family", plan.architecture.family]
    if plan.length != Ladder.context_length:
        words += ["--context", str(plan.length)]
    return shlex.join([*words, "--out", "runs/ladder"])


def row(name: str, text: str) -> str:
    """Return a line: what, and its value."""
    return f"{name:<14}{text}"


def loss(predicted: Predicted, metric: str) -> str:
    """Return a predicted loss in words, with its interval or that it has none."""
    if predicted.low is None or predicted.high is None:
        return f"{predicted.loss:.4g} {metric} by the law, without an interval"
    return f"{predicted.loss:.4g} {metric}, interval {predicted.low:.4g} to {predicted.high:.4g}"


def _loss(plan: BudgetPlan) -> str:
    """Return the predicted loss, or that a published law says nothing that could be true."""
    guess = math.log(plan.architecture.vocab_size)
    if plan.law.fitted is not None or plan.predicted.loss <= guess:
        return loss(plan.predicted, plan.law.metric)
    return (
        f"not known: the published law, of far larger runs, says {plan.predicted.loss:.3g}, more than guessing "
        f"gives ({guess:.3g})"
    )


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= 2 * size), UNITS[-1])
    return f"{seconds / size:,.1f} {unit}"


def compared(budget: Any, evaluation: Mapping[str, Any] | None) -> str:
    """Return predicted beside measured loss; '' where no budget was planned with, or nothing was evaluated.

    budget: what `figures` returned, read back from plan.json. evaluation: the last one of the run.
    """
    if not isinstance(budget, Mapping) or evaluation is None:
        return ""
    try:
        metric, own = budget["law"]["metric"], budget["law"]["own"]
        predicted = Predicted(**{**budget["loss"], "warnings": ()})
        measured = evaluation[{"nats/token": "loss", "bits/byte": "bits_per_byte"}[metric]]
        off = measured / predicted.loss - 1
    except (KeyError, TypeError, ZeroDivisionError):
        return ""
    than = f"{abs(off):.1%} {'better' if off < 0 else 'worse'} than foretold"
    text = f"{measured:.4f} {metric} on the validation split, {than}; predicted {loss(predicted, metric)}"
    if predicted.low is not None and predicted.high is not None:
        text += ": within it" if predicted.low <= measured <= predicted.high else ": outside it"
    return row("loss", text if own else f"{text}; the law is of another corpus and tokenizer")


def figures(plan: BudgetPlan) -> dict[str, Any]:
    """Return the plan as plain data, at full precision."""
    count, fitted = count_parameters(plan.architecture), plan.law.fitted
    speed = plan.speed
    return {
        "budget": plan.budget.text,
        "flops": plan.flops,
        "law": {
            "name": plan.law.name,
            "source": plan.law.source,
            "convention": plan.law.convention,
            "metric": plan.law.metric,
            "own": fitted is not None,
            "level": None if fitted is None else fitted.level,
        },
        "best": dataclasses.asdict(plan.best),
        "parameters": dataclasses.asdict(count),
        "architecture": {
            name: getattr(plan.architecture, name)
            for name in ("family", "hidden_size", "num_layers", "num_heads", "ffn_size", "tie_embeddings")
        },
        "context_length": plan.length,
        "tokens": plan.tokens,
        "unique_tokens": plan.unique_tokens,
        "epochs": plan.epochs,
        "steps": plan.settings.steps,
        "batch_size": plan.settings.batch_size,
        "micro_batch_size": plan.micro_batch_size,
        "learning_rate": plan.settings.learning_rate,
        "warmup_steps": plan.settings.warmup_steps,
        "weight_decay": plan.settings.weight_decay,
        "optimizer": plan.optimizer,
        "schedule": plan.schedule,
        "reasons": plan.reasons,
        "training_flops": flops_per_token(plan.architecture, plan.length) * plan.tokens,
        "memory_bytes": plan.memory.moments[plan.memory.peak].total,
        "seconds": plan.seconds,
        "machine": None if speed is None else {**dataclasses.asdict(speed), "rate": speed.rate},
        "loss": dataclasses.asdict(plan.predicted),
        "spread_of_log_loss": plan.spread,
        "next_runs": [dataclasses.asdict(one) for one in plan.next_runs],
        "warnings": list(plan.warnings),
    }


def _epochs(plan: BudgetPlan) -> str:
    text = f"{plan.epochs:.3g} of {plan.unique_tokens:,} unique tokens"
    if plan.epochs <= 1:
        return f"{text}, so nothing repeats"
    if plan.law.knows_repeats:
        text += f"; the repeats make it worth {plan.predicted.worth:,.0f} new tokens"
    return text


def _optimizer(plan: BudgetPlan) -> str:
    if plan.optimizer == OPTIMIZER:
        return "what the rules of rate and batch were fitted to, and what ladders train with"
    return f"as given; the rules of rate and batch were fitted to {OPTIMIZER}, and so are ladders' losses"


def _schedule(plan: BudgetPlan) -> str:
    if plan.schedule == SCHEDULE:
        return "the rate is held, and let down to 0 over the last fifth: what a ladder's runs have, and so its law"
    return f"as given; a ladder's runs have {SCHEDULE}, and its law foretells no other schedule"


def _priors(plan: BudgetPlan) -> str:
    """Return what the rules say that were not asked, to be compared with."""
    scale = Scale.of(plan.architecture, plan.tokens, plan.length)
    found = []
    for said in (priors.suggest(name, scale) for name in priors.names() if name != DEFAULT):
        rate = "no rate" if said.learning_rate is None else f"{said.learning_rate:.2g}"
        batch = "no batch" if said.batch_tokens is None else f"{said.batch_tokens:,.0f}"
        found.append(f"{said.prior} {rate} at {batch}{' (beyond its range)' if said.outside else ''}")
    return f"of rate, and tokens in an update: {'; '.join(found)}"


def _memory(plan: BudgetPlan) -> str:
    size = plan.memory.moments[plan.memory.peak].total / 2**20
    where = "on this machine" if plan.budget.device is None else f"on each of {plan.budget.devices} devices"
    return f"{size:,.0f} MiB {where} at {plan.memory.peak!r}, {plan.memory.run.precision}; allocators add to it"


def _time(plan: BudgetPlan) -> str:
    text = f"{duration(plan.seconds)} of training"
    if plan.speed is None:
        return f"{text} on {plan.budget.devices} x {plan.budget.device} at {plan.budget.mfu:.0%} of their peak"
    assumed = (
        ""
        if plan.speed.measured
        else "; the share is assumed, and small models do not reach it: see plan --measure"
    )
    return (
        f"{text} at {plan.speed.rate / 1e9:,.3g} GFLOP/s: {plan.speed.mfu:.1%} of {plan.speed.peak / 1e9:,.1f} "
        f"({plan.speed.device}, {plan.speed.precision}), {plan.speed.source}{assumed}"
    )


def _next(plan: BudgetPlan) -> list[str]:
    """Return the runs that would make the prediction surer."""
    if plan.law.fitted is None:
        return [row("next runs", "small runs of your own, and `lmwright fit`: there is no law of this corpus yet")]
    if not plan.next_runs or plan.spread is None:
        return [row("next runs", "none is cheap enough under this budget, or the law has no draws to choose by")]
    found = [row("next runs", f"the law is sure of the plan's loss to {plan.spread:.2%}; it would be after")]
    found += [
        row(
            "",
            f"{one.parameters:,} parameters, {one.tokens:,.0f} tokens ({one.flops:.2g} FLOPs): {one.spread:.2%}",
        )
        for one in plan.next_runs
    ]
    return found
