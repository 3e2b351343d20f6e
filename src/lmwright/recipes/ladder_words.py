"""What a ladder would train and cost, in lines: the dry run of `lmwright ladder`; its sweep, for ladder.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lmwright.recipes import ladder_plan, ladder_sweep
from lmwright.recipes.ladder_plan import Ladder, Trunk
from lmwright.recipes.ladder_sweep import Tried
from lmwright.scaling.flops import count_parameters
from lmwright.scaling.priors import Scale

SWEEP_RUNS = (
    3 * ladder_sweep.FIRST_RATES,  # three batches
    ladder_sweep.MOST_BATCHES * ladder_sweep.MOST_RATES,
)


def dry_run(asked: Ladder, workers: int) -> Iterator[str]:
    """Yield the table of runs, the rates with their reasons, and what it all costs; writes nothing.

    An update of each size is measured, which takes seconds. Raises ConfigError or DataError for what cannot work.
    """
    corpus = ladder_plan.open_corpus(asked)
    trunks = ladder_plan.trunks(asked, corpus)
    yield from table(trunks, corpus.facts.train.tokens)
    for trunk in trunks:
        yield f"{trunk.name:<14}learning rate {trunk.settings.learning_rate:.3g}: {reason(trunk)}"
    sweep = ladder_sweep.trunks(asked, corpus)
    for trunk in sweep:
        yield (
            f"sweep         {SWEEP_RUNS[0]} to {SWEEP_RUNS[1]} runs of {trunk.tokens(0):,} tokens at the size "
            f"{trunk.name} come first; what they show corrects rate and batch"
        )
    yield from _cost(asked, trunks, sweep, workers)


def reason(trunk: Trunk) -> str:
    """Return where the rate of a trunk comes from, in words."""
    return trunk.settings.reasons["learning_rate"]


def table(trunks: Sequence[Trunk], unique: int) -> Iterator[str]:
    """Yield a row for each run, under a heading. unique: tokens of the corpus."""
    yield (
        f"{'run':<20}{'shape':>10}{'parameters':>13}{'inner':>12}{'tokens':>14}{'a param.':>9}{'epochs':>8}"
        f"{'steps':>8}{'batch':>6}{'FLOPs':>11}{'rate':>9}"
    )
    for trunk in trunks:
        count = count_parameters(trunk.config)
        shape = f"{trunk.config.hidden_size} x {trunk.config.num_layers}"
        for number in range(trunk.lengths):
            tokens = trunk.tokens(number)
            yield (
                f"{trunk.run_name(number):<20}{shape:>10}{count.total:>13,}"
                f"{count.non_embedding:>12,}{tokens:>14,}{tokens / count.total:>9.3g}{tokens / unique:>8.2f}"
                f"{trunk.steps(number):>8,}{trunk.settings.batch_size:>6}{trunk.flops(number):>11.2e}"
                f"{trunk.settings.learning_rate:>9.2g}"
            )
    most = max(trunk.tokens(trunk.lengths - 1) for trunk in trunks)
    if most > unique:
        yield (
            f"note          the longest run reads the corpus {most / unique:.1f} times; repeated text teaches"
            " less, so fit the law data_constrained, or give more text"
        )


def advice(asked: Ladder, diverged: int, others: bool) -> str:
    """Return what to do about runs that failed.

    diverged: which size diverged, the smallest being 1, the largest such where there are several; 0: none. others:
    whether runs are left that did not diverge.
    """
    again = "the same command again goes on with what is left"
    if not diverged:
        return again
    measure = f"measure the rate at that size, too (--sweep {diverged}), or " if diverged > asked.sweep else ""
    anew = f"{measure}choose other --sizes, with another --out: this ladder keeps its rates"
    return f"{again}, but not with what diverged: for that, {anew}" if others else anew


def swept(trunk: Trunk, tried: Sequence[Tried]) -> dict[str, Any]:
    """Return what ladder.json says of the sweep of one size."""
    rows = sorted((one.batch_size, one.learning_rate, one.loss) for one in tried)
    return {
        "size": trunk.name,
        "parameters": trunk.parameters,
        "tokens": trunk.tokens(0),
        "scale": asdict(Scale.of(trunk.config, trunk.tokens(0), trunk.length)),
        "trials": [
            {"batch_size": size, "learning_rate": rate, "loss": loss if math.isfinite(loss) else None}
            for size, rate, loss in rows
        ],
    }


def _cost(asked: Ladder, trunks: Sequence[Trunk], sweep: Sequence[Trunk], workers: int) -> Iterator[str]:
    """Yield the FLOPs and the seconds of everything, a size's update measured on this machine."""
    whole = sum(trunk.flops(number) for trunk in trunks for number in range(trunk.lengths))
    spent = sum(trunk.cost for trunk in trunks)
    saved = f"{1 - spent / whole:.0%} less than without trunks"
    yield f"FLOPs         {spent:.3e} in {len(trunks) * asked.lengths} runs, {saved}"
    by_model = {}
    for trunk in trunks:
        if trunk.config not in by_model:
            by_model[trunk.config] = _step_seconds(trunk, asked.corpus)
    costs = [by_model[trunk.config] for trunk in trunks]
    seconds = sum(trunk.updates * cost for trunk, cost in zip(trunks, costs, strict=True)) / workers
    longest = max(trunk.steps(trunk.lengths - 1) * cost for trunk, cost in zip(trunks, costs, strict=True))
    total = max(seconds, longest)
    for trunk in sweep:
        total += -(-SWEEP_RUNS[0] // workers) * trunk.steps(0) * by_model[trunk.config]
    side_by_side = f"{workers} worker{'s' if workers > 1 else ''}"
    yield (
        f"time          {total:,.0f} s with {side_by_side}, from a measured update of each size; starts, "
        "evaluation, checkpoints and what jobs side by side take of each other come on top"
    )


def _step_seconds(trunk: Trunk, corpus: str) -> float:
    from lmwright.recipes.pretrain import plan_run

    settings = trunk.run_file(
        str(Path(corpus).absolute()),
        steps=trunk.steps(0),
        schedule=trunk.decaying(0),
        rate=trunk.settings.learning_rate,
    )
    figures = plan_run(settings, trunk.name, must_fit=False).figures
    return float(figures["seconds"]) / trunk.steps(0)
