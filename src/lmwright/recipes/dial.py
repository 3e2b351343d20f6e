"""One dial: from a budget alone to settings of a run, each printed with its reason, and to the run.

Settings that are given beside the budget go over the plan, and are said. A budget of time is kept by what a real
update is seen to take, for the rate that a plan reckons with is only assumed: where the two are far apart the
model is planned again, and the steps follow from the time. It is the median of some updates at the start: other
work on the machine slows a run as it slows them. A deadline in the loop would keep the time better and the run
worse: the schedule would have to know its end before the time is up, and a resumed run would end elsewhere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmwright.config import merge
from lmwright.data.build import Corpus
from lmwright.errors import ConfigError
from lmwright.recipes import budget, budget_words, pretrain
from lmwright.recipes.budget import BudgetPlan
from lmwright.recipes.budget_basis import Speed
from lmwright.recipes.budget_run import OPTIMIZER, SCHEDULE
from lmwright.recipes.pretrain import Planned, Say
from lmwright.recipes.pretrain_config import resolve
from lmwright.scaling.flops import flops_per_token
from lmwright.scaling.planning import hyper
from lmwright.scaling.planning.budget import parse
from lmwright.train.checkpoint import State
from lmwright.train.ranks import of_environment

TRAINING_SHARE = 0.9  # of the time, for updates: the rest is for saving and for what else runs on the machine
EVALUATION_SHARE, MOST_EVALUATIONS = 0.1, 10  # of the time, at most, and how often
FAR, LONG = 1.5, 60.0  # a rate so many times off is planned with again, where there are so many seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialled:
    """A run that follows from a budget. settings: of `pretrain`. planned: by pretrain's own measurement."""

    plan: BudgetPlan
    settings: dict[str, Any]
    planned: Planned


def dial(
    text: str | None,
    given: Mapping[str, Any],
    where: str,
    *,
    law: Path | None = None,
    inference_tokens: float = 0.0,
    out: Path | None = None,
    must_fit: bool = True,
    verify: bool = False,
    say: Say = print,
) -> Dialled:
    """Plan a run within the budget, measure it, fit its steps to the time; writes nothing.

    text: the budget; None: what the model and the steps in `given` cost. given: settings beside the budget. The
    rest as `budget.plan` and `pretrain.plan_run`. Raises ConfigError for a budget of other devices, several
    processes, or steps beside the budget.
    """
    corpus = _checked(text, given, where)
    text = _cost(given, where) if text is None else text
    seconds = parse(text).seconds
    asked: dict[str, Any] = {"law": law, "inference_tokens": inference_tokens}
    trial: dict[str, Any] = {"out": out, "seconds": seconds, "must_fit": must_fit, "verify": verify}
    plan = _plan(text, corpus, given, where, {**asked, "speed": None})
    settings, data = _settings(plan, corpus, given), None
    if seconds is not None and seconds >= LONG:
        tried = pretrain.plan_run(merge({"training": {"compile": False}}, settings), where, **trial)
        speed, data = _measured_speed(plan, tried), tried.data
        assert plan.speed is not None
        off = 1.0 if speed is None else speed.rate / plan.speed.rate
        if not 1 / FAR <= off <= FAR:
            say(f"an update runs at {off:.2g} times the rate that was assumed; planned again with this one")
            plan = _plan(text, corpus, given, where, {**asked, "speed": speed})
            settings = _settings(plan, corpus, given)
    planned = pretrain.plan_run(settings, where, data=data, **trial)
    speed = _measured_speed(plan, planned)
    by_steps = "steps" in _table(given, "training")
    share = _training_share(plan, inference_tokens)
    kept, evaluate = _kept(plan, planned, seconds, speed, share=share, given=by_steps)
    settings = merge({"training": evaluate}, _settings(kept, corpus, given))
    known: dict[str, Any] = {"measured": planned.measured, "data": planned.data}
    planned = pretrain.plan_run(settings, where, out=out, must_fit=must_fit, **known)
    kept = budget.as_given(kept, planned.config.training)
    for line in budget_words.lines(kept):
        say(line)
    for line in _overridden(plan, corpus, given):
        say(line)
    return Dialled(plan=kept, settings=settings, planned=planned)


def train(
    text: str,
    given: Mapping[str, Any],
    out: Path,
    *,
    where: str,
    law: Path | None = None,
    force: bool = False,
    go_on: str | None = None,
    say: Say = print,
) -> State:
    """Plan a run within the budget and train it into `out`. Raises as `dial` and `pretrain.pretrain`."""
    found = dial(text, given, where, law=law, out=out, verify=True, say=say)
    return train_planned(found, out, where=where, force=force, go_on=go_on, say=say)


def train_planned(
    found: Dialled, out: Path, *, where: str, force: bool = False, go_on: str | None = None, say: Say = print
) -> State:
    """Train what `dial` planned, with `verify`, into `out`. Raises as `pretrain.pretrain`."""
    return pretrain.pretrain(
        found.settings,
        out,
        where=where,
        force=force,
        measured=found.planned.measured,
        data=found.planned.data,
        budget=budget_words.figures(found.plan),
        go_on=go_on,
        say=say,
    )


def _checked(text: str | None, given: Mapping[str, Any], where: str) -> Corpus:
    """Return the corpus. Raises ConfigError for what no budget can be planned with."""
    if of_environment().several:
        raise ConfigError(
            "budget: is planned with one process; plan with `lmwright plan`, and give its settings to torchrun"
        )
    if text is not None and parse(text).device is not None:
        raise ConfigError(
            f"budget {text!r}: names devices, and this trains on the machine it runs on; give a time or FLOPs, or "
            "plan with `lmwright plan`"
        )
    if text is not None and "steps" in _table(given, "training"):
        raise ConfigError(f"{where}: training.steps is set, but the steps follow from the budget; leave one away")
    corpus = _table(given, "data").get("corpus")
    if not isinstance(corpus, str) or not corpus:
        raise ConfigError(
            f"{where}: setting data.corpus is missing: the directory of a built corpus (--corpus DIR)"
        )
    return Corpus.open(Path(corpus))


def _cost(given: Mapping[str, Any], where: str) -> str:
    """Return the FLOPs of the model and the steps that are given, and a hair more, as a budget."""
    config = resolve(given, where)
    length, training = config.data.context_length, config.training
    tokens = training.steps * training.batch_size * length
    return f"{flops_per_token(config.architecture, length) * tokens * (1 + 1e-6):.9e}"


def _table(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = given.get(name, {})
    return found if isinstance(found, Mapping) else {}


def _plan(text: str, corpus: Corpus, given: Mapping[str, Any], where: str, asked: Mapping[str, Any]) -> BudgetPlan:
    """Plan with what is given; a model that is described is taken, and what of it is not said is planned.

    asked: law, inference_tokens and speed of `budget.plan`.
    """
    shape, context = _table(given, "architecture"), _table(given, "data").get("context_length")
    if context is not None and (not isinstance(context, int) or context < 2):
        raise ConfigError(f"{where}: data.context_length = {context!r}: must be a whole number from 2")
    family = shape.get("family", "llama")
    if not isinstance(family, str):
        raise ConfigError(f'{where}: architecture.family = {family!r}: must be the name of a family, as "llama"')
    plan = budget.plan(text, corpus, family=family, context=context, **asked)
    if set(shape) <= {"family"}:
        return plan
    model = resolve(_settings(plan, corpus, given), where).architecture
    return budget.plan(text, corpus, model=model, context=context, **{**asked, "speed": plan.speed})


def _settings(plan: BudgetPlan, corpus: Corpus, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan with the given settings over it; what belongs to a replaced part goes with it."""
    training = _table(given, "training")
    tree = budget.run_settings(_at_given(plan, training), corpus)
    if "hidden_size" in _table(given, "architecture"):
        for name in ("num_heads", "ffn_size", "initializer_range"):
            del tree["architecture"][name]
    if "batch_size" in training and "micro_batch_size" not in training:
        del tree["training"]["micro_batch_size"]
    if _table(training, "optimizer").get("name", OPTIMIZER) != OPTIMIZER:
        tree["training"]["optimizer"] = {}
    if _table(training, "schedule").get("name", SCHEDULE) != SCHEDULE:
        del tree["training"]["schedule"]["floor"]
    return merge(tree, given)


def _at_given(plan: BudgetPlan, training: Mapping[str, Any]) -> BudgetPlan:
    """Return the plan at the batch and the steps that are given; what they are is checked where they are read."""
    chosen = plan.settings
    size, steps = training.get("batch_size"), training.get("steps")
    if not (isinstance(size, int) and size > 0):
        size = chosen.batch_size
    if not (isinstance(steps, int) and steps > 0):
        steps = chosen.steps if size == chosen.batch_size else max(1, plan.tokens // (size * plan.length))
    moved = hyper.moved(chosen, plan.architecture, plan.length, batch_size=size, steps=steps, reasons={})
    return replace(plan, settings=moved)


def _measured_speed(plan: BudgetPlan, planned: Planned) -> Speed | None:
    """Return the rate of real updates; None where the model was too large to try."""
    seconds, training = planned.measured.typical_seconds, planned.config.training
    if seconds is None or plan.speed is None:
        return None
    cost = flops_per_token(plan.architecture, plan.length) * training.batch_size * plan.length
    peak = max(plan.speed.peak, planned.measured.peak_flops)
    source = "as updates of the model were seen to take"
    return replace(plan.speed, peak=peak, mfu=cost / seconds / peak, source=source, measured=True)


def _training_share(plan: BudgetPlan, inference_tokens: float) -> float:
    """Return the part of the budget that is left for training once the model's own reading is paid from it."""
    reading = inference_tokens / 3 * flops_per_token(plan.architecture, plan.length)  # a forward pass is a third
    return 1 - reading / plan.flops


def _kept(
    plan: BudgetPlan,
    planned: Planned,
    seconds: float | None,
    speed: Speed | None,
    *,
    share: float,
    given: bool,
) -> tuple[BudgetPlan, dict[str, int]]:
    """Return the plan with as many steps as the time allows, or its own where it names none; and when to evaluate.

    share: of the time, for training. given: whether the steps are.
    """
    each, training = planned.measured.typical_seconds, planned.config.training
    reckoned = speed or plan.speed
    assert reckoned is not None
    sizes = (training.batch_size, training.micro_batch_size or training.batch_size)
    if seconds is None or each is None:
        reason = plan.reasons["steps"]
        if training.batch_size != plan.settings.batch_size:
            reason = f"{plan.tokens:,} tokens in updates of {training.batch_size} sequences, rounded down"
        if given:
            reason = "as given"
        return budget.with_steps(plan, *sizes, training.steps, reason=reason, speed=reckoned), {}
    whole, seconds = seconds, share * seconds
    evaluations, reading = 0, 0.0
    if planned.data.validation is not None:
        tokens = planned.data.validation.num_tokens
        reading = each * tokens / (training.batch_size * plan.length) / 3  # a forward pass is a third
        evaluations = min(MOST_EVALUATIONS, max(1, math.floor(EVALUATION_SHARE * seconds / reading)))
    steps = max(1, math.floor((TRAINING_SHARE * seconds - evaluations * reading) / each))
    left = f", what the model's own reading leaves of {whole:,.3g} s," if share < 1 else ""
    reason = (
        f"{seconds:,.3g} s{left} hold so many updates of {each:.3g} s, the median as measured, beside "
        f"{evaluations} evaluations of {reading:.2g} s; a tenth is kept for saving and for other work"
    )
    kept = budget.with_steps(plan, *sizes, steps, reason=reason, speed=reckoned)
    return kept, {"eval_every": math.ceil(steps / evaluations)} if evaluations else {}


def _overridden(plan: BudgetPlan, corpus: Corpus, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each setting that was given, with what the plan had in its place."""
    planned = dict(_leaves(budget.run_settings(plan, corpus)))
    for place, value in _leaves(given):
        if place == "data.corpus":
            continue
        before = planned.get(place)
        was = "" if before is None or before == value else f", in place of {before!r}"
        yield budget_words.row("given", f"{place} = {value!r}{was}")


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
