"""`lmwright fit`: a scaling law from points that were measured, tried on the largest of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmwright.cli._paths import PATH

if TYPE_CHECKING:
    from lmwright.scaling.points import Points

COMPARISON = "comparison"  # the figure of --by


@click.command(short_help="Fit a scaling law to runs or points; predict the largest rung.")
@click.argument("sources", nargs=-1, type=PATH, metavar="[POINTS.csv | RUN]...")
@click.option(
    "--published", type=click.Choice(["chinchilla", "data-constrained"]), help="Fit the literature's points."
)
@click.option(
    "--law", default="auto", show_default=True, help="Name of the law; auto takes what the points can tell."
)
@click.option(
    "--convention", type=click.Choice(["kaplan", "chinchilla"]),
    help="How N is counted: without embeddings and head, or all (of runs, the default).",
)  # fmt: skip
@click.option("--metric", help="Of the losses: nats/token, or of runs bits/byte.")
@click.option(
    "--hold-out", type=click.Choice(["largest", "none"]), default="largest", show_default=True,
    help="What is predicted before it is fitted.",
)  # fmt: skip
@click.option(
    "--draws", type=click.IntRange(0, 100_000), default=1000, show_default=True, help="Of the bootstrap by run."
)
@click.option(
    "--by", type=click.Choice(["family", "domain"]), help="Fit a law to each family or domain apart, and compare."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--out", type=PATH, help="JSON file for the law, at full precision.")
@click.option("--figures", type=PATH, help="Directory for figures, as SVG.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def command(
    sources: tuple[Path, ...],
    published: str | None,
    out: Path | None,
    figures: Path | None,
    force: bool,
    as_json: bool,
    convention: Any,
    metric: str | None,
    by: Any,
    **settings: Any,
) -> None:
    """Fit a scaling law to points in CSV files, or to finished runs in or below directories.

    The largest rung (the most compute) is held out first: predicted loss stands beside measured. Then the law is
    fitted to all points, with intervals, and says what is compute-optimal. A CSV file has the columns parameters,
    tokens and loss, and may have unique_tokens, flops, run, finished, family, domain, context, convention and
    metric.
    """
    if (published is None) == (not sources):
        raise click.UsageError("give CSV files or directories of runs, or --published with one of its names")
    if published is not None and (convention is not None or metric is not None):
        raise click.UsageError(
            "published points say how N is counted and in what; leave --convention, --metric away"
        )
    if by is not None and out is not None:
        raise click.UsageError("--out holds one law, and --by fits several; fit the runs of one group for its law")
    if force and out is None and figures is None:
        raise click.UsageError("--force is for --out or --figures, and neither is given")

    import json

    from lmwright.recipes import fit, fit_json, fit_words
    from lmwright.recipes.ladder_swept import with_trials
    from lmwright.report import scaling_figures
    from lmwright.runs import atomic_write_text
    from lmwright.scaling.lawfit import fit_law
    from lmwright.scaling.published import points as published_points

    fit.refuse_place(out, force=force)
    names = scaling_figures.FIGURES if by is None else (COMPARISON,)
    scaling_figures.refuse_places(figures, names, force=force)
    points = (
        fit.gather(sources, convention=convention, metric=metric, tell=lambda text: click.echo(text, err=True))
        if published is None
        else published_points(published)
    )
    settings["curves"] = fit.gather_curves(sources, points)
    if by is not None:
        _compare(points, by, figures, as_json, settings)
        return
    found = fit_law(points, **settings)
    places = []
    if out is not None:
        atomic_write_text(out, with_trials(found.fitted, sources).to_json() + "\n")
        places.append(out)
    if figures is not None:
        drawn = scaling_figures.draw(found.fitted, found.points, found.frontier)
        places += scaling_figures.write_figures(figures, drawn)
    if as_json:
        click.echo(json.dumps(fit_json.as_json(found), indent=2, allow_nan=False))
        return
    for line in fit_words.lines(found, published=published):
        click.echo(line)
    for path in places:
        click.echo(path)


def _compare(points: Points, by: Any, figures: Path | None, as_json: bool, settings: dict[str, Any]) -> None:
    """Fit each group apart, and set them beside each other."""
    import json

    from lmwright.recipes import comparison_words
    from lmwright.report.scaling_comparison import comparison_figure
    from lmwright.report.scaling_figures import write_figures
    from lmwright.scaling.groups import compare, fit_apart

    groups = fit_apart(points, by, **settings)
    comparison, why_not = compare(groups)
    places = []
    if figures is not None and comparison is not None:
        places = write_figures(figures, {COMPARISON: comparison_figure(groups, comparison)})
    if as_json:
        found = comparison_words.as_json(by, groups, comparison, why_not)
        click.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    for line in comparison_words.lines(by, groups, comparison, why_not):
        click.echo(line)
    for path in places:
        click.echo(path)
