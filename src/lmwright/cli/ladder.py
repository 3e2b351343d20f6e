"""`lmwright ladder`: a grid of small models, from whose losses a scaling law is fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lmwright.cli._paths import CORPUS, PATH

UNITS = {"k": 1e3, "m": 1e6, "b": 1e9}


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return a number of parameters or of tokens: 250k, 1.5m, 1b or 1500000."""
    if value is None:
        return None
    text = value.strip().lower()
    unit = UNITS.get(text[-1:], 1.0)
    try:
        size = float(text[:-1] if unit > 1 else text) * unit
    except ValueError:
        size = 0.0
    if not 1 <= size <= 1e13:
        raise click.BadParameter(f"{value!r} is no size; give it as 250k, 1.5m or 1b", ctx, param)
    return size


def _sizes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float | None, ...] | None:
    return None if value is None else tuple(_size(ctx, param, part) for part in value.split(","))


def _seeds(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise click.BadParameter(f"{value!r}: give whole numbers, as 0,1,2", ctx, param)
    return tuple(int(part) for part in parts)


@click.command("ladder", short_help="Train a grid of small models for a scaling law.")
@click.option("--corpus", type=CORPUS, help="Directory of a built corpus.")
@click.option("--out", type=PATH, help="Directory for all runs, or to go on in.")
@click.option("--sizes", callback=_sizes, help="Parameters of each size, as 0.5m,1m,2m.")
@click.option("--smallest", callback=_size, help="Instead of --sizes, with --largest and --count.")
@click.option("--largest", callback=_size, help="The last of --count sizes, each as many times the one before.")
@click.option("--count", type=click.IntRange(min=2), help="Sizes from --smallest to --largest.")
@click.option("--tokens-per-parameter", type=float, help="Of the shortest run of each size.  [default: 5]")
@click.option("--tokens", callback=_size, help="In place of that: of the shortest run of all sizes, as 400k.")
@click.option("--lengths", type=int, help="Runs of each size, each twice as long as the last.  [default: 3]")
@click.option("--family", help="Architecture of all of them.  [default: llama]")
@click.option("--context", "context_length", type=int, help="Tokens in a sequence.  [default: 256]")
@click.option(
    "--convention", type=click.Choice(["kaplan", "chinchilla"]),
    help="How sizes are counted: without embeddings and head, or all.  [default: chinchilla]",
)  # fmt: skip
@click.option("--seeds", callback=_seeds, help="Each trains the whole grid.  [default: 0]")
@click.option(
    "--sweep", type=int, help="Smallest sizes that rate and batch are measured at first; 0: none.  [default: 1]"
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Runs at a time, one thread each.",
)
@click.option(
    "--on", type=click.Choice(["processes", "ray"]), default="processes", show_default=True,
    help="Where they run: here, or on a Ray cluster (RAY_ADDRESS, or a local one).",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the ladder in --out, with its own settings.")
@click.option("--dry-run", is_flag=True, help="Print every run and what all cost; write nothing.")
def command(
    out: Path | None,
    smallest: float | None,
    largest: float | None,
    count: int | None,
    workers: int,
    on: str,
    resume: bool,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Train a grid of small models on a built corpus: points for `lmwright fit OUT/runs`.

    Each size is one trunk of constant learning rate, and each length a cool-down that forks from it. Stopped
    halfway, the same command goes on where it was.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    spaced = {"smallest": smallest, "largest": largest, "count": count}
    named = [name for name, value in spaced.items() if value is not None]
    if resume and (given or named or dry_run):
        what = ", ".join([*given, *named, *(["dry-run"] if dry_run else [])]).replace("_", "-")
        raise click.UsageError(f"--resume goes on with the ladder's own settings, so {what} cannot go with it")
    if out is None and not dry_run:
        raise click.UsageError("--out is missing: the directory for the ladder's runs")
    if not resume and "corpus" not in given:
        raise click.UsageError("--corpus is missing: the directory of a built corpus")
    if not resume and (bool(named) == ("sizes" in given) or 0 < len(named) < len(spaced)):
        raise click.UsageError("give --sizes, or all of --smallest, --largest and --count")

    from lmwright.config import convert
    from lmwright.recipes import ladder as recipe
    from lmwright.recipes import ladder_plan, ladder_words

    if resume:
        assert out is not None
        asked = recipe.asked_before(out)
    else:
        if smallest is not None and largest is not None and count is not None:
            given["sizes"] = ladder_plan.sizes_between(smallest, largest, count)
        asked = convert(given, ladder_plan.Ladder, "ladder")
    if dry_run:
        for line in ladder_words.dry_run(asked, workers):
            click.echo(line)
        return
    assert out is not None
    recipe.ladder(asked, out, workers_wanted=workers, on=on, say=click.echo)
