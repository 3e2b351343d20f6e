"""A ladder of small models as a story: sweep the rate, plan the grid, train trunks and cool-downs, keep score.

    OUT/  ladder.json (what was asked, and every run)  sweep/SIZE-BATCH-RATE  trunks/SIZE-STEPS  runs/SIZE-STEPS

Each of sweep, trunks and runs holds run directories as `pretrain` makes them; those in runs/ are the points that
`lmwright fit OUT/runs` reads. Jobs run side by side (`recipes.workers`). Stopped halfway, the same ladder goes on:
what is finished is left alone, what is not continues from its checkpoints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmwright.config import convert, to_dict
from lmwright.data.build import Corpus
from lmwright.errors import ConfigError, DataError, LmwrightError
from lmwright.recipes import ladder_job, ladder_plan, ladder_sweep, ladder_words, workers
from lmwright.recipes.ladder_plan import Ladder, Trunk
from lmwright.recipes.ladder_sweep import Tried
from lmwright.recipes.workers import JobFailed, Pool
from lmwright.runs import atomic_write_json, hold, read_json
from lmwright.scaling.flops import count_parameters
from lmwright.scaling.sweep import Swept

Say = Callable[[str], None]
RECORD = "ladder.json"
DIVERGED = "its loss was not finite"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run to be trained. path: below OUT. after: the path of the run whose checkpoint it begins in.

    cost: the dearest of those that can begin is first. may_diverge: that its loss is infinite is an answer, too.
    evaluated: on held-out text; else the loss is that of its last batch.
    """

    path: str
    steps: int
    function: Callable[..., float]
    arguments: tuple[Any, ...]
    after: str | None = None
    cost: float = 0.0
    may_diverge: bool = False
    evaluated: bool = True


def ladder(
    asked: Ladder, out: Path, *, workers_wanted: int = 1, on: str = "processes", say: Say = print
) -> dict[str, Any]:
    """Train every run of the ladder that is not yet done in `out`; return what ladder.json says at the end.

    workers_wanted: jobs at a time. on: where they run, the name of a file in `recipes.workers`. Raises ConfigError
    if `out` holds something else, JobFailed once the others have ended if one failed.
    """
    asked = _absolute(asked)
    corpus = ladder_plan.open_corpus(asked)
    ladder_plan.trunks(asked, corpus)  # or refuse, before anything is written
    _refuse_other(asked, out)
    pool = workers.open_pool(on, workers_wanted)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with hold(out / "LADDER_LOCK"):
            return _train(asked, corpus, out, pool, say)
    finally:
        pool.close()


def asked_before(out: Path) -> Ladder:
    """Return what the ladder in `out` was asked for. Raises DataError if there is none."""
    place = out / RECORD
    if not place.is_file():
        raise DataError(f"{out}: holds no ladder to go on with (no {RECORD}); name what to train")
    record = read_json(place)
    try:
        return convert(record["asked"], Ladder, str(place))
    except (ConfigError, KeyError, TypeError) as error:
        told = "asked is missing" if isinstance(error, KeyError) else error
        raise DataError(
            f"{place}: is damaged: {told}; put a sound copy in its place, or choose another --out"
        ) from None


def _absolute(asked: Ladder) -> Ladder:
    return replace(asked, corpus=str(Path(asked.corpus).absolute()))


def _refuse_other(asked: Ladder, out: Path) -> None:
    """Refuse a directory that holds anything but this very ladder."""
    if not (out / RECORD).exists():
        there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
        if [name for name in there if name != "LADDER_LOCK"]:
            raise ConfigError(f"{out}: holds {there[0]} and no ladder; choose another --out")
        return
    before, now = to_dict(asked_before(out)), to_dict(asked)
    for name, value in now.items():
        if before[name] != value:
            raise ConfigError(
                f"{out}: holds a ladder begun with {name} = {before[name]!r}, not {value!r}; go on with it by "
                "--resume, or choose another --out"
            )


def _refuse_changed(corpus: Corpus, out: Path, record: Mapping[str, Any]) -> None:
    """Refuse to go on with other text, or another tokenizer, than the ladder was begun on."""
    known = record.get("text", {})
    if not isinstance(known, Mapping):
        raise DataError(f"{out / RECORD}: is damaged: text is no table; put a sound copy in its place")
    for name, now in _text(corpus).items():
        before = known.get(name, now)
        if before != now:
            raise DataError(
                f"{out}: was begun on a corpus with {name} {str(before)[:12]}, and {corpus.directory} has "
                f"{now[:12]}: it was built anew; bring the old one back, or choose another --out"
            )


def _text(corpus: Corpus) -> dict[str, str]:
    return {"tokenizer": corpus.facts.tokenizer_hash, "tokens": corpus.split("train").fingerprint}


def _train(asked: Ladder, corpus: Corpus, out: Path, pool: Pool, say: Say) -> dict[str, Any]:
    begun = read_json(out / RECORD) if (out / RECORD).is_file() else {"sweep": [], "runs": []}
    _refuse_changed(corpus, out, begun)
    record: dict[str, Any] = {**begun, "asked": to_dict(asked), "text": _text(corpus)}
    atomic_write_json(out / RECORD, record)
    rules = None
    if asked.sweep:
        rules, record["sweep"] = _sweep(asked, corpus, out, pool, say)
    made = ladder_plan.trunks(asked, corpus, rules)
    runs = {run["path"]: run for trunk in made for run in describe(trunk)}
    record["runs"] = list(runs.values())
    atomic_write_json(out / RECORD, record)

    def ended(path: str, loss: float) -> None:
        if path in runs:
            runs[path]["loss"] = loss
            atomic_write_json(out / RECORD, record)

    for trunk in made:
        say(f"{trunk.name:<14}learning rate {trunk.settings.learning_rate:.3g}: {ladder_words.reason(trunk)}")
    jobs = [job for trunk in made for job in _jobs(trunk, asked.corpus, out)]
    failed = _do(jobs, out, pool, say, ended)
    if failed:
        path, message = next(iter(failed.items()))
        others = f" (and {len(failed) - 1} more, named above)" if len(failed) > 1 else ""
        raise JobFailed(f"{out / path}: {message}{others}; {_advice(asked, made, jobs, failed)}")
    say(f"{len(runs)} runs are finished; fit a law to them with: lmwright fit {out / 'runs'}")
    return record


def _advice(asked: Ladder, made: Sequence[Trunk], jobs: Iterable[Job], failed: Mapping[str, str]) -> str:
    """Return what to do about the jobs that failed; what diverged would do so again."""
    lost: set[str] = set()
    for job in jobs:  # each after the one it waits for
        if failed.get(job.path) == DIVERGED or job.after in lost:
            lost.add(job.path)
    sizes = [
        1 + place // len(asked.seeds)
        for place, trunk in enumerate(made)
        if any(run["path"] in lost for run in describe(trunk))
    ]
    return ladder_words.advice(asked, max(sizes, default=0), bool(failed.keys() - lost))


def _sweep(asked: Ladder, corpus: Corpus, out: Path, pool: Pool, say: Say) -> tuple[Swept, list[dict[str, Any]]]:
    """Try rates and batches at the smallest sizes, all sizes side by side; return the rules, and the record."""
    results: list[tuple[Trunk, list[Tried]]] = [(trunk, []) for trunk in ladder_sweep.trunks(asked, corpus)]
    while jobs := dict(_trials(asked.corpus, results, out)):
        losses: dict[str, float] = {}
        failed = _do([job for job, _, _ in jobs.values()], out, pool, say, losses.__setitem__)
        if failed:
            path, message = next(iter(failed.items()))
            raise JobFailed(f"{out / path}: {message}; the same command again goes on")
        for path, (_, tried, trial) in jobs.items():
            tried.append(replace(trial, loss=losses[path]))
    rules = ladder_sweep.rules(results)
    for warning in rules.warnings:
        say(f"note          {warning}")
    return rules, [ladder_words.swept(trunk, tried) for trunk, tried in results]


def _trials(
    corpus: str, results: Iterable[tuple[Trunk, list[Tried]]], out: Path
) -> Iterator[tuple[str, tuple[Job, list[Tried], Tried]]]:
    """Yield the jobs that the sweep wants next by their paths, and where their results belong."""
    for trunk, tried in results:
        for batch_size, rate in ladder_sweep.wanted(trunk, tried):
            path = f"sweep/{ladder_sweep.name(trunk, batch_size, rate)}"
            settings = ladder_sweep.run_file(trunk, corpus, batch_size, rate)
            first = (settings, out / path)
            steps = settings["training"]["steps"]
            job = Job(path=path, steps=steps, function=ladder_job.begin, arguments=first, may_diverge=True)
            yield path, (job, tried, Tried(batch_size=batch_size, learning_rate=rate, loss=math.nan))


def describe(trunk: Trunk) -> list[dict[str, Any]]:
    """Return what ladder.json says of the runs of a trunk; their losses are yet to come."""
    count = count_parameters(trunk.config)
    return [
        {
            "path": f"runs/{trunk.run_name(number)}",
            "parameters": count.total,
            "non_embedding": count.non_embedding,
            "tokens": trunk.tokens(number),
            "steps": trunk.steps(number),
            "decay_steps": trunk.steps(number) - trunk.piece(number),
            "flops": trunk.flops(number),
            "batch_size": trunk.settings.batch_size,
            "learning_rate": trunk.settings.learning_rate,
            "reason": ladder_words.reason(trunk),
            "seed": trunk.seed,
            "loss": None,
        }
        for number in range(trunk.lengths)
    ]


def _jobs(trunk: Trunk, corpus: str, out: Path) -> Iterable[Job]:
    """Return the pieces of a trunk, each lengthening the one before, and the cool-down from each."""
    before: str | None = None
    for number in range(trunk.lengths):
        end, rate = trunk.piece(number), trunk.settings.learning_rate
        path = f"trunks/{trunk.name}-{end}"
        cost = trunk.cost * (trunk.lengths - number)  # what waits for a piece: the dearest first
        if before is None:
            settings = trunk.run_file(corpus, steps=end, schedule=trunk.steady(), rate=rate, evaluate=False)
            first = (settings, out / path)
            piece = Job(path=path, steps=end, function=ladder_job.begin, arguments=first, cost=cost)
        else:
            longer = (out / before, trunk.piece(number - 1), out / path, end, trunk.steady(), False)
            piece = Job(
                path=path, steps=end, function=ladder_job.branch, arguments=longer, after=before, cost=cost
            )
        yield replace(piece, evaluated=False)
        steps, run = trunk.steps(number), f"runs/{trunk.run_name(number)}"
        cooling = (out / path, end, out / run, steps, trunk.decaying(number), True)
        yield Job(path=run, steps=steps, function=ladder_job.branch, arguments=cooling, after=path)
        before = path


def _do(
    jobs: Sequence[Job], out: Path, pool: Pool, say: Say, ended: Callable[[str, float], None]
) -> dict[str, str]:
    """Have every job done that is not, each after the one it waits for; return the message of each that failed.

    A run that diverged has ended with an infinite loss, which is a failure unless the job may diverge.
    """
    left = {job.path: job for job in sorted(jobs, key=lambda job: -job.cost)}
    done: set[str] = set()
    failed: dict[str, str] = {}
    under_way: dict[Future[float], tuple[Job, float]] = {}

    def tell(job: Job, what: str) -> None:
        say(f"[{len(done) + len(failed)}/{len(jobs)}] {job.path:<26} {what}")

    def settle(job: Job, loss: float, took: str) -> None:
        if not math.isfinite(loss) and not job.may_diverge:
            fail(job, DIVERGED)
            return
        ended(job.path, loss)
        done.add(job.path)
        tell(job, f"loss {loss:.4f}{'' if job.evaluated else ' of its last batch'}   {took}")

    def fail(job: Job, message: str) -> None:
        failed[job.path] = message
        tell(job, f"FAILED: {message}")

    while left or under_way:
        for job in list(left.values()):
            if job.after is not None and job.after in failed:
                fail(left.pop(job.path), f"cannot begin without {job.after}, which failed")
            elif job.after is None or job.after in done:
                del left[job.path]
                known = ladder_job.outcome(out / job.path, job.steps)
                if known is None:
                    under_way[pool.submit(job.function, *job.arguments)] = job, time.monotonic()
                else:
                    settle(job, known, "was done")
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            job, begun = under_way.pop(future)
            took = f"{time.monotonic() - begun:,.1f} s"
            try:
                settle(job, future.result(), took)
            except LmwrightError as error:
                if ladder_job.outcome(out / job.path, job.steps) == math.inf:
                    settle(job, math.inf, took)
                else:
                    fail(job, str(error))
    return failed
