"""`lmwright report`: a run directory, or several, as one page."""

from __future__ import annotations

from pathlib import Path

import click

from lmwright.cli._paths import PATH


@click.command(short_help="Write a run's report: curves, samples, each number with its formula.")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN|LADDER...")
@click.option("--out", type=PATH, help="File to write; needed where several runs are given.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON instead of writing a page.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def command(runs: tuple[Path, ...], out: Path | None, as_json: bool, force: bool) -> None:
    """Write RUN/report.html and RUN/summary.json from the files of the run directory.

    With --out the page alone is written, to that file. Several runs give one page that compares them: loss against
    tokens, steps, FLOPs and time, runs that differ only in their seed as one curve with a band. The directory of a
    ladder gives its scaling law with its figures, several of them a comparison of families or domains.
    """
    import json

    from lmwright.report.contents import read_run
    from lmwright.report.numbers import summarise
    from lmwright.report.page import (
        summarise_comparison,
        write_both,
        write_comparison,
        write_ladders,
        write_report,
    )
    from lmwright.report.run_points import is_ladder

    if as_json and (out is not None or force):
        raise click.UsageError("--json prints and writes nothing; leave --out and --force away")
    ladders = [is_ladder(run) for run in runs]
    if any(ladders):
        if as_json or not all(ladders):
            raise click.UsageError("a ladder's law is a page of its own; as JSON: lmwright fit LADDER --json")
        if len(runs) > 1 and out is None:
            raise click.UsageError("several ladders make one page: say with --out FILE where to write it")
        click.echo(write_ladders(runs, out=out, force=force))
        return
    if as_json:
        contents = [read_run(run) for run in runs]
        found = summarise(contents[0]) if len(contents) == 1 else summarise_comparison(contents)
        click.echo(json.dumps(found, indent=2, allow_nan=False))
    elif len(runs) > 1:
        if out is None:
            raise click.UsageError("several runs make one page: say with --out FILE where to write it")
        click.echo(write_comparison(runs, out=out, force=force))
    elif out is not None:
        click.echo(write_report(runs[0], out=out, force=force))
    else:
        for place in write_both(runs[0], force=force):
            click.echo(place)
