"""Writes report.html and summary.json from a run directory.

The page is one file: style and figures inside, no script, no request to anywhere, and a content security policy
that forbids both. Whatever text a run holds, whether a model or a file wrote it, is shown and never acts: the
template is sandboxed, every value is escaped, and control characters are printed as signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lmwright.errors import ConfigError
from lmwright.report import sections
from lmwright.report.contents import RunContents, read_run
from lmwright.report.figures import compare_figure
from lmwright.report.numbers import numbers, summarise
from lmwright.report.rules import RULE_NAMES
from lmwright.report.wording import visible
from lmwright.runs import atomic_write_json, atomic_write_text

TEMPLATES = Path(__file__).parent / "templates"
REPORT, SUMMARY = "report.html", "summary.json"


def write_report(run: Path, *, out: Path | None = None, force: bool = False) -> Path:
    """Write the report of the run directory `run` to `out`, or to report.html in it, and return where.

    Raises DataError if the run is damaged, ConfigError if the file exists and force is False.
    """
    place = run / REPORT if out is None else out
    _refuse(place, force=force)
    atomic_write_text(place, render(read_run(run)))
    return place


def write_summary(run: Path, *, out: Path | None = None, force: bool = False) -> Path:
    """Write the numbers of the report, with formulas and sources, to `out`, or to summary.json in the run."""
    place = run / SUMMARY if out is None else out
    _refuse(place, force=force)
    atomic_write_json(place, summarise(read_run(run)))
    return place


def write_both(run: Path, *, force: bool = False) -> tuple[Path, Path]:
    """Write report.html and summary.json into the run directory; if one may not be written, neither is."""
    for name in (REPORT, SUMMARY):
        _refuse(run / name, force=force)
    return write_report(run, force=force), write_summary(run, force=force)


def write_comparison(runs: Sequence[Path], *, out: Path, force: bool = False) -> Path:
    """Write one page that shows the curves and the numbers of several runs side by side."""
    _refuse(out, force=force)
    atomic_write_text(out, render_comparison([read_run(run) for run in runs]))
    return out


def render(run: RunContents) -> str:
    """Return the report of one run as an HTML page; equal runs give equal pages."""
    values = numbers(run)
    return _page(
        "report.html",
        run=run,
        title=run.name,
        n=dict.fromkeys(RULE_NAMES) | values,
        found=list(values.values()),
        head=sections.headline(values),
        status=sections.status(run),
        family=run.text("config.json", "architecture.family"),
        blocks=sections.run_blocks(run),
        plan=sections.plan_rows(values),
        memory=sections.memory_rows(run),
        splits=sections.corpus_rows(run),
        rejects=sections.reject_rows(run),
        samples=sections.samples(run),
        samples_left_out=max(0, len(run.samples()) - sections.MOST_SAMPLES),
        sample_settings=sections.sample_settings(run),
        verdict=sections.verdict(run),
        settings=sections.settings(run),
        environment=sections.environment(run),
    )


def render_comparison(runs: Sequence[RunContents]) -> str:
    """Return a page that compares runs: loss against tokens, and each number beside the others'."""
    values = [numbers(run) for run in runs]
    names = list(dict.fromkeys(name for found in values for name in found))
    labels = {name: next(found[name] for found in values if name in found) for name in names}
    curves = sections.block("loss", partial(compare_figure, runs), "Loss of the runs against tokens trained on")
    title = f"{len(runs)} runs compared"
    return _page("comparison.html", title=title, runs=runs, values=values, labels=labels, curves=curves)


def _refuse(place: Path, *, force: bool) -> None:
    if place.is_dir():
        raise ConfigError(f"{place}: is a directory; give the name of a file to write")
    if place.exists() and not force:
        raise ConfigError(f"{place}: already exists; choose another place, or replace it with --force")


def _page(template: str, **values: Any) -> str:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)


def _inert(value: Any) -> Any:
    """Every printed value passes here: text loses what could act or deceive; markup made by this package stays."""
    if hasattr(value, "__html__") or not isinstance(value, str):
        return value
    return visible(value)
