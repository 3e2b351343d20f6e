"""How a quickstart knows what it will reach: a mini ladder, its law, and a plan of the run by that law.

The ladder is a grid with right angles: four sizes around those that minutes on two cores can train, and three
lengths, the longest about a fifth of the planned run's. Its shapes are counted without embeddings, so that they
do not depend on the vocabulary.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmwright.data.build import Corpus
from lmwright.errors import ConfigError
from lmwright.recipes import budget_run, dial, fit, fit_words, quickstart_stages
from lmwright.recipes.budget_words import row
from lmwright.recipes.dial import Dialled
from lmwright.recipes.ladder import RECORD, asked_before, ladder
from lmwright.recipes.ladder_plan import FEWEST_UNITS, Ladder
from lmwright.runs import atomic_write_text
from lmwright.scaling.fit import Fitted
from lmwright.scaling.flops import Convention
from lmwright.scaling.lawfit import fit_law
from lmwright.scaling.planning import hyper

Say = Callable[[str], None]
LADDER, LAW = "ladder", "law.json"
# Of a run of so many steps; one of so many minutes follows from the law.
ARCHITECTURE = {"family": "llama", "hidden_size": 256, "num_layers": 4, "tie_embeddings": True}
BATCH = 16
COMPILED = 10.0  # minutes of a run for which it is tried whether compiling pays; trying takes half of one
LEAST = 1.2  # times the tokens of the shortest run that has a decay
NO_FLOPS = 0.0


@dataclass(frozen=True, kw_only=True)
class Mini:
    """A ladder that two cores climb in less time than the run that it foretells.

    sizes: parameters without embeddings. tokens: of the shortest of the `lengths`, for a run of `minutes` or of
    `run` tokens, and for longer ones; fewer for a shorter one. convention: by which the law counts. draws: of its
    bootstrap.
    """

    sizes: tuple[float, ...] = (33e3, 107e3, 222e3, 427e3)
    tokens: float = 2e5
    lengths: int = 3
    minutes: float = 2.0
    run: float = 3e6
    workers: int = 2
    convention: Convention = "chinchilla"
    draws: int = 1000


def context(corpus: Corpus) -> int:
    """Return the tokens of a sequence, of the ladder's runs as of the planned one."""
    return budget_run.context(None, NO_FLOPS, corpus.facts.train.tokens, {})


def climb(
    mini: Mini, corpus: Corpus, out: Path, *, minutes: float | None, steps: int | None, seed: int, say: Say
) -> None:
    """Train the ladder in `out`, or go on with the one there. minutes, steps: of the run that it is for."""
    length, unique = context(corpus), corpus.facts.train.tokens
    least = LEAST * 5 * FEWEST_UNITS * length
    most = unique / 2 ** (mini.lengths - 1)  # so that no run of it repeats
    share = steps * BATCH * length / mini.run if minutes is None and steps else (minutes or 0) / mini.minutes
    asked = Ladder(
        corpus=str(corpus.directory),
        sizes=mini.sizes,
        tokens=max(least, min(most, mini.tokens * min(1.0, share))),
        lengths=mini.lengths,
        context_length=length,
        convention="kaplan",
        seeds=(seed,),
        sweep=0,
    )
    begun = (out / LADDER / RECORD).is_file()
    ladder(asked_before(out / LADDER) if begun else asked, out / LADDER, workers_wanted=mini.workers, say=say)


def seed_of(out: Path) -> int | None:
    """Return the seed of the ladder in `out`; None where none was begun."""
    return asked_before(out / LADDER).seeds[0] if (out / LADDER / RECORD).is_file() else None


def fit_ladder(mini: Mini, out: Path, say: Say) -> None:
    """Fit a law to the ladder, after it was tried on the largest rung."""
    points = fit.gather([out / LADDER / "runs"], convention=mini.convention)
    found = fit_law(points, draws=mini.draws)
    for line in fit_words.short_lines(found):
        say(line)
    atomic_write_text(out / LAW, found.fitted.to_json() + "\n")
    say(row("law", f"{out / LAW}; all of it, with intervals: lmwright fit {out / LADDER / 'runs'}"))


def fitted(out: Path) -> bool:
    """Return whether the law is there. Raises ConfigError if something else is."""
    if not (out / LAW).is_file():
        return False
    Fitted.from_json((out / LAW).read_text(encoding="utf-8"), str(out / LAW))
    return True


def plan(corpus: Corpus, out: Path, *, minutes: float | None, steps: int | None, seed: int, say: Say) -> Dialled:
    """Plan the run by the law: of so many minutes or, of a fixed small model, of so many steps."""
    given: dict[str, Any] = {
        "data": {"corpus": str(corpus.directory), "context_length": context(corpus)},
        "training": {"seed": seed},
    }
    if steps is not None:
        given["architecture"] = ARCHITECTURE
        if steps < hyper.FEWEST_UPDATES:
            say(
                row("note", f"{steps} updates are too few for a law, which knows runs whose schedule had its time")
            )
        given["training"] |= {"steps": steps, "batch_size": BATCH, "eval_every": max(1, steps // 4)}
    if minutes is None or minutes < COMPILED:
        given["training"]["compile"] = False
    text = None if minutes is None else f"{60 * minutes:.6g}s"
    return dial.dial(text, given, "quickstart", law=out / LAW, out=out, verify=True, say=say)


def clear(out: Path) -> None:
    """Remove ladder, law, times and settings of an earlier one. Raises ConfigError for what is no ladder."""
    place = out / LADDER
    if place.is_dir():
        if any(place.iterdir()) and not (place / RECORD).is_file():
            raise ConfigError(f"{place}: is no ladder, so it is not replaced; choose another --out")
        shutil.rmtree(place)
    (out / LAW).unlink(missing_ok=True)
    (out / quickstart_stages.RECORD).unlink(missing_ok=True)
    (out / "config.json").unlink(missing_ok=True)  # by which a run is known to have begun
