"""From a budget to a run: what to train, on how much, with what settings, and what will come of it.

    plan = budget.plan("10m", Corpus.open(Path("shards")), law=Path("law.json"))
    print("\\n".join(budget_words.lines(plan)))

The law says how compute is best split between parameters and tokens, the priors say how such a run is trained, and
the machine what it takes. Without a law of one's own a published one allocates; its loss belongs to another corpus
and tokenizer, so it has no interval. Torch-free until the machine is measured. Knows nothing of how a run is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmwright.data.build import Corpus
from lmwright.model.config import ModelConfig
from lmwright.recipes import budget_run, memory_plan
from lmwright.recipes.budget_basis import (
    LawUsed,
    Predicted,
    Speed,
    doubts,
    elsewhere,
    law_of,
    predict,
    this_machine,
)  # fmt: skip
from lmwright.recipes.budget_next import SmallRun, next_runs
from lmwright.recipes.budget_run import OPTIMIZER, SCHEDULE
from lmwright.recipes.memory_plan import MemoryPlan
from lmwright.scaling.flops import flops_per_token
from lmwright.scaling.planning import allocate, budget, hyper
from lmwright.scaling.planning.hyper import Settings
from lmwright.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class BudgetPlan:
    """A planned run. tokens: steps of whole batches. seconds: of training, on what the budget names.

    corpus: its directory; source: what it was built from. best: what the law wants of the budget. spread: of ln L
    before any `next_runs`. reasons: by the name of the setting. small: a warning where no model is as small as the
    law wants. optimizer, schedule: their names.
    """

    budget: budget.Budget
    corpus: Path
    source: str
    flops: float
    flops_reason: str
    law: LawUsed
    speed: Speed | None
    best: allocate.Allocation
    architecture: ModelConfig
    length: int
    unique_tokens: int
    settings: Settings
    micro_batch_size: int
    reasons: dict[str, str]
    predicted: Predicted
    memory: MemoryPlan
    seconds: float
    spread: float | None
    next_runs: tuple[SmallRun, ...]
    small: tuple[str, ...]
    optimizer: str = OPTIMIZER
    schedule: str = SCHEDULE

    @property
    def epochs(self) -> float:
        """How often each token of the text is trained on, on average."""
        return self.tokens / self.unique_tokens

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is not to be trusted, or would be better spent."""
        return (
            *doubts(self.law, self.predicted, self.architecture, self.epochs),
            *elsewhere(
                self.law, self.architecture.family, (self.source, str(self.corpus.absolute())), self.length
            ),
            *self.small,
            *budget_run.idle(self.settings.batch_size, self.budget.devices),
            *self.predicted.warnings,
        )

    @property
    def tokens(self) -> int:
        """Tokens trained on, repeats included."""
        return self.settings.steps * self.settings.batch_size * self.length


def plan(
    text: str,
    corpus: Corpus,
    *,
    law: Path | None = None,
    inference_tokens: float = 0.0,
    family: str = "llama",
    context: int | None = None,
    model: ModelConfig | None = None,
    speed: Speed | None = None,
) -> BudgetPlan:
    """Plan a run on `corpus` within the budget that `text` names.

    law: JSON of `lmwright fit --out`. inference_tokens: that the finished model will read, paid from the budget.
    context: tokens in a sequence; None: by the budget and the text. model: one that is settled already. speed: of
    this machine; None: remembered or measured, where it is needed. Raises ConfigError or DataError for what
    cannot be planned.
    """
    money, used = budget.parse(text), law_of(law)
    unique = corpus.split("train").num_tokens
    if speed is None and money.device is None:
        speed = this_machine()
    rate = None if speed is None else speed.rate
    flops = money.compute(rate)
    reasons: dict[str, str] = {}
    length = budget_run.context(context, flops, unique, reasons)
    common: dict[str, Any] = {
        "unique_tokens": unique if used.knows_repeats else None,
        "inference_tokens": inference_tokens,
    }
    vocab = corpus.tokenizer.vocab_size
    per_token = allocate.smooth_per_token(
        family if model is None else model.family,
        vocab_size=vocab, length=length, convention=used.convention, tied=True,
    )  # fmt: skip
    best = allocate.allocate(used.name, used.theta_P, flops, per_token=per_token, **common)
    if model is None:
        model, reasons["architecture"], small = budget_run.shaped(
            best.parameters, vocab, length, used.convention, family
        )
    else:
        reasons["architecture"], small = budget_run.described(model), ()
    spent = allocate.spend(
        used.name, used.theta_P, flops, model, length=length, convention=used.convention, **common
    )
    settings = hyper.choose(model, spent.tokens, length, rules=used.rules())
    settings = budget_run.within(settings, model, spent.tokens, unique // length, length)
    micro = budget_run.micro_batch(settings.batch_size, length, reasons)
    planned = budget_run.memory(corpus, money, speed, model, settings, micro, length)
    tokens = settings.steps * settings.batch_size * length
    predicted = predict(used, model, tokens, length, unique)
    spread, small_runs = next_runs(used, flops, best, vocab, length, family, unique)
    return BudgetPlan(
        budget=money,
        corpus=corpus.directory,
        source=corpus.facts.source,
        flops=flops,
        flops_reason=_flops_reason(money, speed),
        law=used,
        speed=speed,
        best=best,
        architecture=model,
        length=length,
        unique_tokens=unique,
        settings=settings,
        micro_batch_size=micro,
        reasons={**reasons, **settings.reasons},
        predicted=predicted,
        memory=planned,
        seconds=_seconds(money, speed, flops_per_token(model, length) * tokens),
        spread=spread,
        next_runs=small_runs,
        small=small,
    )


def with_steps(
    made: BudgetPlan, batch_size: int, micro_batch_size: int, steps: int, *, reason: str, speed: Speed
) -> BudgetPlan:
    """Return the plan as it will be run: its tokens, time and loss are those of so many steps.

    reason: for the steps. speed: as it was measured.
    """
    tokens = steps * batch_size * made.length
    reasons = {"steps": reason}
    if batch_size != made.settings.batch_size:
        reasons["batch_size"] = "as given"
    if micro_batch_size != made.micro_batch_size:
        reasons["micro_batch_size"] = "as given, or all of the batch"
    settings = hyper.moved(
        made.settings, made.architecture, made.length, batch_size=batch_size, steps=steps, reasons=reasons
    )
    return replace(
        made,
        speed=speed,
        settings=settings,
        micro_batch_size=micro_batch_size,
        reasons={**made.reasons, **reasons, **settings.reasons},
        predicted=predict(made.law, made.architecture, tokens, made.length, made.unique_tokens),
        seconds=_seconds(made.budget, speed, flops_per_token(made.architecture, made.length) * tokens),
    )


def as_given(made: BudgetPlan, training: TrainConfig) -> BudgetPlan:
    """Return the plan with the rate, the warm-up, the decay and the memory of what is trained with."""
    name = training.optimizer["name"]
    trained = {
        "learning_rate": training.optimizer["lr"],
        "weight_decay": training.optimizer.get("weight_decay", made.settings.weight_decay),
        "warmup_steps": training.schedule["warmup_steps"],
    }
    changed = {key: value for key, value in trained.items() if value != getattr(made.settings, key)}
    run = replace(made.memory.config, training=training)
    memory = memory_plan.plan(run, devices=made.budget.devices)
    why = "as given" if name == OPTIMIZER else f"as given, or what {name} takes by itself"
    return replace(
        made,
        settings=replace(made.settings, **changed),
        reasons={**made.reasons, **dict.fromkeys(changed, why)},
        optimizer=name,
        schedule=training.schedule["name"],
        memory=memory,
    )


def run_settings(made: BudgetPlan, corpus: Corpus) -> dict[str, Any]:
    """Return the plan as the settings of `lmwright pretrain`."""
    return budget_run.tree(made.architecture, made.settings, made.micro_batch_size, made.length, corpus)


def _flops_reason(money: budget.Budget, speed: Speed | None) -> str:
    if money.seconds is None or speed is None:
        return money.reason()
    return (
        f"{money.compute(speed.rate):.3g} FLOPs: {money.seconds:,.3g} s on this machine at {speed.rate:.3g} "
        f"FLOP/s, {speed.mfu:.0%} of its peak{'' if speed.measured else ', as assumed'}"
    )


def _seconds(money: budget.Budget, speed: Speed | None, flops: float) -> float:
    if speed is not None:
        return flops / speed.rate
    assert money.device is not None
    return flops / (money.devices * budget.PEAKS[money.device] * money.mfu)
