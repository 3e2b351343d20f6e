"""Run directories as points of a scaling law: what was trained, on how much, and the loss on validation text.

N by the convention, counted from config.json; D the tokens trained on and the loss there, from the last validation
in metrics.jsonl; C the exact FLOPs of the architecture; U the tokens of the corpus as far as they were reached;
family that of the architecture, domain the corpus. A run is finished if its schedule ended and let the rate down:
at a constant rate the loss lies above the law. Runs that begin with the same records are forks of one trunk, and
count as one run. `curves` gives the validations on the way, too. Free of torch.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lmwright.config import closest, convert
from lmwright.errors import ConfigError, DataError
from lmwright.model.config import ModelConfig
from lmwright.report.catalog import find, state_of, tokenizer_hash
from lmwright.report.contents import CONFIG, CORPUS, METRICS, PLAN, RunContents, read_run
from lmwright.report.series import positions
from lmwright.scaling.flops import Convention, count_parameters, flops_per_token
from lmwright.scaling.points import LIMITS, Points

LADDER, GRID = "ladder.json", "runs"  # what a ladder keeps, and the folder of those of its runs that are points
LEAST_LOSS, MOST_LOSS = LIMITS["loss"]
Tell = Callable[[str], None]
METRIC_KEYS = {"nats/token": "loss", "bits/byte": "bits_per_byte"}


def measured(
    directories: Sequence[Path], *, convention: Convention, metric: str = "nats/token", tell: Tell | None = None
) -> Points:
    """Return a point for each run in or below the directories, in the order of their paths.

    metric: nats/token or bits/byte. tell: is told of the runs of a ladder under way that are no points yet. Raises
    ConfigError for another metric, where there is no run, or where runs of different tokenizers are measured by
    the token; DataError for a damaged run, or one that was never validated.
    """
    runs = _read(directories, metric, tell)
    places = [_validations(run, METRIC_KEYS[metric])[-1] for run in runs]
    finished = [_finished(run, step) for run, (step, _, _) in zip(runs, places, strict=True)]
    return _points(runs, places, _trunks(runs), finished, convention, metric)


def curves(directories: Sequence[Path], *, convention: Convention, metric: str = "nats/token") -> Points:
    """Return a point for each validation of each run, none of them finished. Raises as `measured`."""
    read = _read(directories, metric)
    pairs = [(run, place) for run in read for place in _validations(run, METRIC_KEYS[metric])]
    runs = [run for run, _ in pairs]
    names = [str(run.path) for run in runs]
    return _points(runs, [place for _, place in pairs], names, [False] * len(runs), convention, metric)


def curves_of(directories: Sequence[Path], points: Points) -> Points | None:
    """Return the curves of the runs that gave `points`, counted as there; None where the points are curves enough.

    They are where each finished run has several, as the cool-downs of a trunk.
    """
    several = Counter(name for name, done in zip(points.run, points.finished, strict=True) if done)
    if several and min(several.values()) > 1:
        return None
    return curves(directories, convention=points.convention, metric=points.metric)


def grid(directories: Sequence[Path]) -> list[Path]:
    """Return the runs in or below the directories that are points: of a ladder its grid, unless one is named."""
    return [one.path for one in find(directories) if one.path in directories or not _beside_the_grid(one.path)]


def is_ladder(path: Path) -> bool:
    """Return whether `path` is the directory of a ladder."""
    return (path / LADDER).is_file()


def _read(directories: Sequence[Path], metric: str, tell: Tell | None = None) -> list[RunContents]:
    """Return the runs that may be points, read and found to be comparable."""
    if metric not in METRIC_KEYS:
        allowed = ", ".join(METRIC_KEYS)
        raise ConfigError(f"metric {metric!r}{closest(metric, METRIC_KEYS)}; runs are measured in {allowed}")
    found = [read_run(path) for path in grid(directories)]
    waiting = [run for run in found if _to_come(run)]
    if waiting and tell is not None:
        tell(f"{len(waiting)} runs have no loss yet and are left out, the first: {waiting[0].path}")
    runs = [run for run in found if not _to_come(run)]
    if not runs:
        count = len(find(directories))
        beside = f" with a loss but {count} trunks, sweeps and unfinished runs of a ladder" if count else ""
        raise ConfigError(
            f"there is no run in {', '.join(map(str, directories))}{beside}; name directories of runs"
        )
    if metric == "nats/token":
        _refuse_other_tokenizers(runs)
    return runs


def _to_come(run: RunContents) -> bool:
    """Return whether a run of a ladder has not come to its loss."""
    return (
        _part_of_ladder(run.path) == GRID
        and not run.column("evaluation", "loss")
        and state_of(run)[0] != "finished"
    )


def _beside_the_grid(path: Path) -> bool:
    """Return whether a run serves a ladder without being a point of it: a trunk at its full rate, or a sweep's."""
    return _part_of_ladder(path) not in (None, GRID)


def _part_of_ladder(path: Path) -> str | None:
    """Return the name of the part of a ladder that a run lies in; None outside of all ladders."""
    whole = Path(os.path.abspath(path))
    above = next((place for place in whole.parents if is_ladder(place)), None)
    return None if above is None else whole.relative_to(above).parts[0]


def _points(
    runs: Sequence[RunContents], places: Sequence[tuple[float, float, float]], names: Sequence[str],
    finished: Sequence[bool], convention: Convention, metric: str,
) -> Points:  # fmt: skip
    """Return a row for each place (step, tokens, loss) of a run."""
    rows = [_row(run, tokens, convention) for run, (_, tokens, _) in zip(runs, places, strict=True)]
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    return Points.of(
        **columns,
        tokens=[tokens for _, tokens, _ in places],
        loss=[loss for _, _, loss in places],
        run=names,
        finished=finished,
        family=[run.text(CONFIG, "architecture.family") or "" for run in runs],
        domain=_domains(runs),
        convention=convention,
        metric=metric,
    )


def _row(run: RunContents, tokens: float, convention: Convention) -> dict[str, float]:
    architecture = run.table(CONFIG, "architecture")
    config = convert(architecture, ModelConfig, f"{run.path / CONFIG}: architecture")
    length = run.number(f"{CONFIG}:data.context_length")
    if length is None or not length >= 1:
        raise DataError(f"{run.path / CONFIG}: data.context_length is missing; FLOPs depend on it")
    counted = count_parameters(config)
    return {
        "parameters": counted.non_embedding if convention == "kaplan" else counted.total,
        "unique_tokens": min(tokens, _corpus_tokens(run)),
        "flops": flops_per_token(config, int(length)) * tokens,
        "context": int(length),
    }


def _finished(run: RunContents, step: float) -> bool:
    """Return whether the run ended as planned, was validated there, and had let its rate down."""
    done = run.number(f"{METRICS}:last end.step")
    ended = state_of(run)[0] == "finished" and done == step == run.number(f"{CONFIG}:training.steps")
    schedule = f"{CONFIG}:training.schedule"
    level = run.number(f"{schedule}.floor") == 1 or run.number(f"{schedule}.decay_steps") == 0
    return ended and not level and run.text(CONFIG, "training.schedule.name") != "constant"


def _domains(runs: Sequence[RunContents]) -> list[str]:
    """Return what text each run was trained on: the source of its corpus, or the corpus's directory.

    Directories by their names or, where two share one, by their paths below the folder that all are in.
    """
    named = [run.text(CORPUS, "source") or run.text(CONFIG, "data.corpus") or "" for run in runs]
    places = sorted({name for name in named if os.path.isabs(name)})
    short = {place: os.path.basename(place) for place in places}
    if len(set(short.values())) < len(places):
        above = os.path.commonpath([os.path.dirname(place) for place in places])
        short = {place: os.path.relpath(place, above) for place in places}
    return [short.get(name, name) for name in named]


def _validations(run: RunContents, key: str) -> list[tuple[float, float, float]]:
    """Return step, tokens and loss of the validations that gave a number, at least one."""
    columns = (
        run.column("evaluation", "step"),
        positions(run, "evaluation", "tokens"),
        run.column("evaluation", key),
    )
    known = [row for row in zip(*columns, strict=True) if math.isfinite(sum(row)) and row[1] > 0]
    if not known:
        raise DataError(
            f"{run.path}: has no validation loss, and a law is fitted to nothing else; train it with "
            "training.eval_every above 0, or leave it out"
        )
    for step, _, loss in known:
        if not LEAST_LOSS <= loss <= MOST_LOSS:
            raise DataError(
                f"{run.path / METRICS}: the validation loss of step {step:g} is {loss:g}, which no loss can be "
                f"({LEAST_LOSS:g} to {MOST_LOSS:g}); leave the run out"
            )
    return known


def _corpus_tokens(run: RunContents) -> float:
    """Return the tokens of the training text: those of corpus.json, or what the plan's epochs say."""
    known = run.number(f"{CORPUS}:train.tokens")
    if known is None:
        tokens, epochs = run.number(f"{PLAN}:tokens"), run.number(f"{PLAN}:epochs")
        known = tokens / epochs if tokens and epochs else None
    if known is None or not known > 0:
        raise DataError(
            f"{run.path}: says not how much text its corpus has ({PLAN}: tokens and epochs, or {CORPUS}), so not "
            "how often it was repeated; write the points to a CSV file by hand, or leave the run out"
        )
    return known


def _trunks(runs: Sequence[RunContents]) -> list[str]:
    """Return what each run is called: by its trunk where others begin with the very records that it has."""
    names: dict[Any, str] = {}
    found = []
    for run in runs:
        first = next(iter(run.records("step")), None)
        keys = ("step", "loss", "grad_norm", "seconds")  # the time it took is that of no other run
        mark = str(run.path) if first is None else tuple(str(first.get(key)) for key in keys)
        found.append(names.setdefault(mark, str(run.path)))
    return found


def _refuse_other_tokenizers(runs: Sequence[RunContents]) -> None:
    known = {run.path: digest for run in runs if (digest := tokenizer_hash(run.path)) is not None}
    if len(set(known.values())) > 1:
        first, *rest = known
        other = next(path for path in rest if known[path] != known[first])
        raise ConfigError(
            f"{first} and {other} have different tokenizers, so a loss by the token says nothing between them; "
            "fit with --metric bits/byte, or apart"
        )
