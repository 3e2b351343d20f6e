"""From the contents of a run to what the page shows: rows, blocks and figures, all plain values.

Nothing is marked up here but the figures, which this package draws; text of the run stays text, shortened where it
is huge, and is escaped by the template.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from lmwright.report import figures
from lmwright.report.comparison import NATS, Comparison
from lmwright.report.comparison_figures import TITLES, budgets_figure, overview_figure
from lmwright.report.contents import CONFIG, CORPUS, ENVIRONMENT, PLAN, SAMPLES, VERIFICATION, RunContents, leaves
from lmwright.report.numbers import Number
from lmwright.report.rules import PLANNED, UNLIKE
from lmwright.report.series import curve, smoothed
from lmwright.report.svg import inline_svg
from lmwright.report.wording import integer, percent, plain, shortened, si, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS, MOST_SAMPLES, MOST_FACTS = 400, 24, 24
FINDING_KEYS = ("kind", "step", "name", "message")
VALUE_LIMIT, PROMPT_LIMIT, CONTINUATION_LIMIT = 400, 2_000, 4_000


@dataclass(frozen=True, kw_only=True)
class Block:
    """A figure, once for a wide page and once for a narrow one, and what is written below it."""

    wide: Markup
    narrow: Markup
    caption: str


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """What was planned, what happened, and the difference as a share of the plan."""

    label: str
    planned: Number
    actual: Number | None
    difference: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a run noticed about itself: where, what, and the facts behind it."""

    step: str
    name: str
    message: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A sample cut to a readable length."""

    prompt: str
    continuation: str


def block(name: str, draw: Callable[..., Figure | None], label: str, caption: str = "") -> Block | None:
    """Draw a figure in both shapes, or return None if there is nothing to draw. name: unique in the page."""
    wide, narrow = draw(), draw(narrow=True)
    if wide is None or narrow is None:
        return None
    return Block(
        wide=Markup(inline_svg(wide, prefix=name, label=label)),
        narrow=Markup(inline_svg(narrow, prefix=f"{name}-narrow", label=label)),
        caption=caption,
    )


def run_blocks(run: RunContents) -> dict[str, Block | None]:
    """Return the figures of a run by name; None where the run has nothing for one."""

    def made(name: str, draw: Callable[..., Figure | None], label: str, caption: str = "") -> Block | None:
        return block(name, lambda **of: draw(run, **of), label, caption)

    return {
        "bits": made("bits", figures.bits_figure, "Bits per byte of validation text, this model beside xz"),
        "loss": made("loss", figures.loss_figure, "Loss against tokens trained on", _loss_caption(run)),
        "schedule": made("schedule", figures.schedule_figure, "Learning rate and gradient norm against tokens"),
        "throughput": made("throughput", figures.throughput_figure, "Tokens per second and MFU against tokens"),
    }


def comparison_blocks(found: Comparison) -> dict[str, list[Block]]:
    """Return the figures of a comparison: validation and training, each against every budget."""
    kinds = {"validation": ("evaluation", found.measure)} | (
        {"training": ("step", NATS)} if found.training else {}
    )
    draws = {"overview": overview_figure, "budgets": budgets_figure}
    blocks: dict[str, list[Block]] = {}
    for name, (kind, key) in kinds.items():
        made = [
            block(f"{name}-{shape}", partial(draw, found.groups, kind, key), f"{TITLES[kind, key]}, of each group")
            for shape, draw in draws.items()
        ]
        blocks[name] = [one for one in made if one is not None]
    return blocks


def findings(run: RunContents) -> list[Finding]:
    """Return what the run found out about itself while it trained, in the order of the log."""
    return [
        Finding(
            step=shortened(plain(record.get("step", "?")), VALUE_LIMIT),
            name=shortened(plain(record.get("name", "")).replace("_", " "), VALUE_LIMIT),
            message=shortened(plain(record.get("message", "")), PROMPT_LIMIT),
            facts=flat({key: value for key, value in record.items() if key not in FINDING_KEYS})[:MOST_FACTS],
        )
        for record in run.records("finding")[:MOST_ROWS]
    ]


def headline(numbers: Mapping[str, Number]) -> list[tuple[Number, str]]:
    """Return the few numbers that stand large at the top, each with its label."""
    wanted = (
        ("validation_loss", "nats per token of validation text"),
        ("bits_per_byte", "bits per byte of validation text"),
        ("average_bits_per_byte", "bits per byte, of the averaged weights"),
        ("against_xz", "bits, against xz"),
        ("tokens_per_second", "tokens per second in training"),
        ("mfu", "of the machine’s peak FLOP/s (MFU)"),
        ("seconds", "of training"),
    )
    return [(numbers[name], label) for name, label in wanted if name in numbers]


def status(run: RunContents) -> list[str]:
    """Return what a reader must know before the numbers: that the run has not ended, or why it stopped."""
    notes = list(run.notes)
    for record in run.records("nonfinite"):
        what, documents = record.get("what", "loss"), record.get("documents")
        named = f", on {', '.join(map(str, documents))}" if isinstance(documents, list) and documents else ""
        notes.append(
            shortened(f"The {what} of step {record.get('step', '?')} was not finite{named}.", VALUE_LIMIT)
        )
    step, steps = run.number("metrics.jsonl:last step.step"), run.number("config.json:training.steps")
    if step is not None and not run.records("end"):
        whole = f" of {integer(steps)}" if steps is not None else ""
        notes.append(f"This run has not ended: the last step logged is {integer(step)}{whole}.")
    return notes


def plan_rows(numbers: Mapping[str, Number]) -> list[PlanRow]:
    """Return the planned numbers, each beside the one that came of it."""
    rows = []
    for planned_name, actual_name in PLANNED.items():
        planned, actual = numbers.get(planned_name), numbers.get(actual_name)
        if planned is not None:
            off = "–" if planned_name in UNLIKE else difference(planned, actual)
            label = actual.label if actual is not None else planned.label
            rows.append(PlanRow(label=label, planned=planned, actual=actual, difference=off))
    return rows


def memory_rows(run: RunContents) -> list[tuple[str, str]]:
    """Return the parts of the memory estimate, largest first; those that take none are left out."""
    sizes = [part for part in run.counts(PLAN, "memory_bytes") if part[0] != "total" and part[1]]
    return [(name.replace("_", " "), si(size, "B")) for name, size in sorted(sizes, key=lambda part: -part[1])]


def corpus_rows(run: RunContents) -> list[tuple[str, list[str]]]:
    """Return for each split its documents, tokens, bytes and bytes per token, as text."""
    rows = []
    for split in ("train", "validation"):
        styles = {
            "documents": "integer",
            "tokens": "integer",
            "bytes": "integer",
            "bytes_per_token": "significant",
        }
        values = {key: run.number(f"{CORPUS}:{split}.{key}") for key in styles}
        if any(value is not None for value in values.values()):
            rows.append((split, [write(value, styles[key]) for key, value in values.items()]))
    return rows


def reject_rows(run: RunContents) -> list[tuple[str, str]]:
    """Return how many pieces of the corpus were rejected for each reason, most first."""
    counts = sorted(run.counts(CORPUS, "rejects"), key=lambda row: (-row[1], row[0]))
    return [(why, integer(count)) for why, count in counts[:MOST_ROWS]]


def samples(run: RunContents) -> list[Shown]:
    """Return the samples, cut where they are huge."""
    return [
        Shown(
            prompt=shortened(sample.prompt, PROMPT_LIMIT),
            continuation=shortened(sample.continuation, CONTINUATION_LIMIT),
        )
        for sample in run.samples()[:MOST_SAMPLES]
    ]


def sample_settings(run: RunContents) -> list[tuple[str, str]]:
    """Return the settings with which the samples were drawn."""
    content = run.files.get(SAMPLES)
    return flat(content.get("settings")) if isinstance(content, dict) else []


def verdict(run: RunContents) -> tuple[str, list[tuple[str, str]]] | None:
    """Return 'verified', 'failed' or 'not verified', and what was found; None if nothing was checked."""
    found = run.table(VERIFICATION)
    if not found:
        return None
    word = {True: "verified", False: "failed"}.get(found.get("verified"), "not verified")  # type: ignore[arg-type]
    return word, flat({key: value for key, value in found.items() if key != "verified"})


def settings(run: RunContents) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the resolved configuration: each table of the first level with its rows."""
    config = run.table(CONFIG)
    tables = {key: value for key, value in config.items() if isinstance(value, dict)}
    rest = {key: value for key, value in config.items() if key not in tables}
    groups = [(shortened(name, VALUE_LIMIT), flat(table)) for name, table in tables.items()]
    return ([("run", flat(rest))] if rest else []) + groups


def environment(run: RunContents) -> list[tuple[str, str]]:
    """Return the machine and the library versions."""
    return flat(run.table(ENVIRONMENT))


def flat(tree: Any) -> list[tuple[str, str]]:
    """Return the leaves of nested tables as rows of dotted key and text."""
    rows = [
        (shortened(key, VALUE_LIMIT), shortened(plain(value), VALUE_LIMIT))
        for key, value in itertools.islice(leaves(tree), MOST_ROWS + 1)
    ]
    return [*rows[:MOST_ROWS], ("…", "more are not shown")] if len(rows) > MOST_ROWS else rows


def difference(planned: Number, actual: Number | None) -> str:
    """Return by which share the actual number is off the planned one, in words."""
    if actual is None or not planned.value or not math.isfinite(planned.value):
        return "–"
    if math.isclose(actual.value, planned.value, rel_tol=1e-9):
        return "exact"
    return percent(actual.value / planned.value - 1, signed=True)


def _loss_caption(run: RunContents) -> str:
    train = curve(run, "step", "loss")
    _, window = smoothed(train)
    notes = []
    if window > 1:
        notes.append(f"Thin: each record of the training loss. Thick: its running mean over {window} records.")
    if curve(run, "evaluation", "average_loss"):
        notes.append("Averaged: validation loss of the moving average of the weights.")
    if train.gaps:
        notes.append(f"Records that are not finite, and so not drawn: {integer(train.gaps)}.")
    return " ".join(notes)
