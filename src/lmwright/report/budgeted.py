"""A run that was planned from a budget: what was predicted before it, beside what came of it.

The plan stands in plan.json under `budget`; a plan without one has no such section. The loss is compared in the
metric of the law that predicted it. Knows nothing of how a budget is planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmwright.report.contents import CONFIG, PLAN, RunContents
from lmwright.report.numbers import Number
from lmwright.report.rules import BUDGETED
from lmwright.report.sections import PlanRow, difference
from lmwright.report.wording import shortened

LONGEST = 200
MEASURED = {"nats/token": "validation_loss", "bits/byte": "bits_per_byte"}


@dataclass(frozen=True, kw_only=True)
class Budgeted:
    """said: whether the loss came out as predicted. source: of the law that predicted it."""

    said: str
    source: str
    rows: list[PlanRow]


def budgeted(run: RunContents, numbers: Mapping[str, Number]) -> Budgeted | None:
    """Return the plan beside what came of it; None where the run was not planned from a budget."""
    predicted = numbers.get("budget_loss")
    if predicted is None:
        return None
    metric = run.text(PLAN, "budget.law.metric") or ""
    measured = numbers.get(MEASURED.get(metric, ""))
    rows = [_row(predicted, measured, "Loss on validation text")]
    for planned_name, actual_name in BUDGETED.items():
        if (planned := numbers.get(planned_name)) is not None:
            rows.append(_row(planned, numbers.get(actual_name), ""))
    if run.text(CONFIG, "training.device") != "cuda":  # a process holds much beside the tensors that were planned
        rows = [row if row.planned.name != "budget_memory" else _uncompared(row) for row in rows]
    source = shortened(run.text(PLAN, "budget.law.source") or "not said", LONGEST)
    own = run.text(PLAN, "budget.law.own") == "True"
    of_others = (
        "" if own else " It is a law of another corpus and tokenizer, so its loss is no promise for this one."
    )
    return Budgeted(
        said=_said(predicted, measured, numbers, metric),
        source=f"The law that predicted the loss: {source}.{of_others}",
        rows=rows,
    )


def _said(predicted: Number, measured: Number | None, numbers: Mapping[str, Number], metric: str) -> str:
    low, high = numbers.get("budget_loss_low"), numbers.get("budget_loss_high")
    text = f"Before training, the law foretold a loss of {predicted.text} {shortened(metric, LONGEST)}"
    if low is not None and high is not None:
        text += f", with {low.text} to {high.text} as its interval"
    if measured is None:
        return f"{text}. None was measured."
    text += f". Measured: {measured.text}."
    if low is None or high is None:
        return f"{text} Without an interval, nothing says whether that is near enough."
    inside = low.value <= measured.value <= high.value
    return f"{text} That lies {'within' if inside else 'outside'} the interval."


def _row(planned: Number, actual: Number | None, label: str) -> PlanRow:
    name = label or (actual.label if actual is not None else planned.label)
    return PlanRow(label=name, planned=planned, actual=actual, difference=difference(planned, actual))


def _uncompared(row: PlanRow) -> PlanRow:
    return PlanRow(
        label=f"{row.label} (planned: tensors alone)", planned=row.planned, actual=row.actual, difference="–"
    )
