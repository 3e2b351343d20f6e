"""Writes report.html and summary.json from a run directory.

The page is one file: style and figures inside, no script, no request to anywhere, and a content security policy
that forbids both. Whatever text a run holds, whether a model or a file wrote it, is shown and never acts: the
template is sandboxed, every value is escaped, and control characters are printed as signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmwright.errors import ConfigError, DataError
from lmwright.inert import visible
from lmwright.report import law_section, run_points, sections
from lmwright.report.budgeted import budgeted
from lmwright.report.catalog import state_of
from lmwright.report.comparison import NATS, UNITS, as_json, compare
from lmwright.report.comparison_figures import style
from lmwright.report.contents import CONFIG, RunContents, read_run
from lmwright.report.difference import SEED
from lmwright.report.groups import run_names
from lmwright.report.numbers import numbers, summarise
from lmwright.report.rules import RULE_NAMES
from lmwright.runs import RUN_FILES, atomic_write_json, atomic_write_text, read_json, refuse_existing_file

TEMPLATES = Path(__file__).parent / "templates"
REPORT, SUMMARY = "report.html", "summary.json"
MARK = b'<meta name="generator" content="lmwright'  # of a page of ours, in its first KILOBYTE; see base.html
KILOBYTE = 1024
# What the table of the runs shows of each.
PER_RUN = {
    "steps": "steps",
    "trained_tokens": "tokens",
    "training_loss": "training loss",
    "validation_loss": "validation loss",
    "bits_per_byte": "bits/byte",
    "seconds": "time",
}


def write_report(run: Path, *, out: Path | None = None, force: bool = False) -> Path:
    """Write the report of the run directory `run` to `out`, or to report.html in it, and return where.

    Raises DataError if the run is damaged; ConfigError if `out` is no .html name, exists and force is False, or
    holds what is no report.
    """
    place = run / REPORT if out is None else out
    _refuse_page(place, own=out is None, force=force)
    atomic_write_text(place, render(read_run(run)))
    return place


def write_summary(run: Path, *, out: Path | None = None, force: bool = False) -> Path:
    """Write the numbers of the report, with formulas and sources, to `out`, or to summary.json in the run."""
    place = run / SUMMARY if out is None else out
    _refuse_summary(place, own=out is None, force=force)
    atomic_write_json(place, summarise(read_run(run)))
    return place


def write_both(run: Path, *, force: bool = False) -> tuple[Path, Path]:
    """Write report.html and summary.json into the run directory; if one may not be written, neither is."""
    _refuse_page(run / REPORT, own=True, force=force)
    _refuse_summary(run / SUMMARY, own=True, force=force)
    return write_report(run, force=force), write_summary(run, force=force)


def write_ladders(ladders: Sequence[Path], *, out: Path | None = None, force: bool = False) -> Path:
    """Write the law of a ladder, or the laws of several, to `out`, or to report.html in the one; return where."""
    place = ladders[0] / REPORT if out is None else out
    _refuse_page(place, own=out is None, force=force)
    atomic_write_text(place, render_ladders(ladders))
    return place


def write_comparison(runs: Sequence[Path], *, out: Path, force: bool = False) -> Path:
    """Write one page that shows the curves and the numbers of several runs side by side."""
    _refuse_page(out, own=False, force=force)
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
        findings=sections.findings(run),
        family=run.text("config.json", "architecture.family"),
        blocks=sections.run_blocks(run),
        plan=sections.plan_rows(values),
        budget=budgeted(run, values),
        law_section=law_section.run_section(run.path),
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
    """Return a page that compares runs: curves with seeds as bands, what can be said, settings and figures."""
    found = compare(runs)
    values = [numbers(run) for run in runs]
    comparable = {name for row in values for name, n in row.items() if found.training or n.unit != UNITS[NATS]}
    return _page(
        "comparison.html",
        title=f"{len(runs)} runs compared",
        found=found,
        styles=[style(index) for index in range(len(found.groups))],
        blocks=sections.comparison_blocks(found),
        heads={name: head for name, head in PER_RUN.items() if name in comparable},
        runs=[
            (name, run.text(CONFIG, SEED) or "–", state_of(run)[0], figures)
            for name, run, figures in zip(found.names, runs, values, strict=True)
        ],
    )


def render_ladders(ladders: Sequence[Path]) -> str:
    """Return the law of ladders as a page. Raises ConfigError or DataError where their runs give none."""
    found = law_section.ladder_sections(ladders)
    runs = [read_run(path) for path in run_points.grid(ladders)]
    rows = [
        [name, state_of(run)[0], *(values[key].text if key in values else "–" for key in ("parameters", *PER_RUN))]
        for name, run, values in (
            (name, run, numbers(run)) for name, run in zip(run_names(runs), runs, strict=True)
        )
    ]
    return _page(
        "ladder.html",
        title=" and ".join(ladder.resolve().name for ladder in ladders),
        sections=found,
        runs=[["run", "state", "parameters", *PER_RUN.values()], *rows],
    )


def summarise_comparison(runs: Sequence[RunContents]) -> dict[str, Any]:
    """Return what a comparison says, and the numbers of each run, as JSON holds them."""
    return {**as_json(compare(runs)), "runs": [summarise(run) for run in runs]}


def _refuse_page(place: Path, *, own: bool, force: bool) -> None:
    """Raise ConfigError unless a page may be written there. own: it is the run's own report.html."""
    _refuse(place, ".html", force=force)
    if not own and place.exists() and MARK not in _head(place):
        raise ConfigError(f"{place}: is no report of lmwright, so it is not replaced; choose another place")


def _refuse_summary(place: Path, *, own: bool, force: bool) -> None:
    """Raise ConfigError unless a summary may be written there. own: it is the run's own summary.json."""
    _refuse(place, ".json", force=force)
    if not own and place.name in RUN_FILES - {SUMMARY}:
        raise ConfigError(f"{place}: is the name of a file that a run keeps; choose another name")
    if not own and place.exists() and not _is_summary(place):
        raise ConfigError(f"{place}: is no summary of lmwright, so it is not replaced; choose another place")


def _head(place: Path) -> bytes:
    with open(place, "rb") as file:
        return file.read(KILOBYTE)


def _is_summary(place: Path) -> bool:
    try:
        found = read_json(place)
    except DataError:
        return False
    return isinstance(found, dict) and {"format", "run", "numbers"} <= found.keys()


def _refuse(place: Path, suffix: str, *, force: bool) -> None:
    if place.suffix.lower() != suffix:
        raise ConfigError(f"{place}: must be a name that ends in {suffix}, for that is what is written there")
    refuse_existing_file(place, force=force)


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
