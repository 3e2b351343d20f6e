"""Runs beside each other: groups, figures with their spread, what can be said of them, and what cannot.

A nat per token is another thing under another vocabulary, so runs of different ones are compared in bits per byte.
A difference is judged against the spread over seeds (see `noise`); one seed has none, and then nothing is claimed.
Knows nothing of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lmwright.inert import visible
from lmwright.report.catalog import state_of, tokenizer_hash
from lmwright.report.contents import CONFIG, ENVIRONMENT, RunContents
from lmwright.report.difference import OUTCOMES, SEED, Difference, differences
from lmwright.report.groups import Group, group, run_names
from lmwright.report.noise import Spread, spread
from lmwright.report.numbers import Number, numbers
from lmwright.report.rules import TRAINED
from lmwright.report.verdicts import Side, Verdict, judge
from lmwright.report.wording import integer, write, write_spread

LN2 = math.log(2)
NATS, BITS = "loss", "bits_per_byte"
UNITS = {NATS: "nats/token", BITS: "bits/byte"}
FIGURES = {NATS: "validation_loss", BITS: "bits_per_byte"}
MACHINE = ("processor", "machine", "cores", "versions.torch")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure of one group: the mean over its seeds and, where there are several, their standard deviation."""

    number: Number
    spread: Spread

    @property
    def text(self) -> str:
        """The mean, with the deviation behind it."""
        style, deviation = self.number.style, self.spread.deviation
        mean = write(self.spread.mean, style)
        if not deviation:  # a single seed, or a figure that no seed changes
            return mean
        return f"{mean} ± {write_spread(deviation, style)}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure over all groups; None where a group lacks it."""

    name: str
    label: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that a page of several runs shows but its curves.

    measure: the key of the evaluation records that is compared. training: whether training losses compare.
    """

    groups: tuple[Group, ...]
    measure: str
    training: bool
    caveats: tuple[str, ...]
    settings: tuple[Difference, ...]
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]
    names: tuple[str, ...]  # of the runs, as they were given

    @property
    def banded(self) -> bool:
        """Whether a group has several seeds."""
        return any(len(one.counted) > 1 for one in self.groups)


def compare(runs: Sequence[RunContents]) -> Comparison:
    """Compare runs; the first group is what the others are compared with."""
    groups = group(runs)
    same = one_vocabulary(runs)
    measure = NATS if same else BITS
    rows = tuple(_rows(groups, same))
    judged = next((row for row in rows if row.name == FIGURES[measure]), None)
    return Comparison(
        groups=tuple(groups),
        measure=measure,
        training=same,
        caveats=tuple(_caveats(groups, runs, same)),
        settings=tuple(_settings(groups, runs)),
        rows=rows,
        verdicts=tuple(_verdicts(groups, judged, UNITS[measure])) if judged and len(_text_sizes(runs)) < 2 else (),
        names=tuple(run_names(runs)),
    )


def one_vocabulary(runs: Sequence[RunContents]) -> bool:
    """Return whether the runs have the same vocabulary, as far as its size and their checkpoints tell."""
    return len({(run.text(CONFIG, "architecture.vocab_size"), tokenizer_hash(run.path)) for run in runs}) == 1


def as_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as JSON holds it."""
    return {
        "measure": UNITS[found.measure],
        "caveats": list(found.caveats),
        "groups": [
            {
                "name": visible(group.name),
                "runs": [str(run.path) for run in group.runs],
                "counted": [str(run.path) for run in group.counted],
                "seeds": group.seeds,
            }
            for group in found.groups
        ],
        "settings": {one.key: list(one.texts) for one in found.settings},
        "figures": {
            row.name: [None if cell is None else asdict(cell.spread) for cell in row.cells] for row in found.rows
        },
        "comparisons": [
            {
                "base": visible(verdict.base),
                "other": visible(verdict.other),
                "difference": verdict.difference,
                "interval": verdict.interval,
                "text": visible(verdict.text),
            }
            for verdict in found.verdicts
        ],
    }


def _rows(groups: Sequence[Group], same: bool) -> list[Row]:
    found = [[numbers(run) for run in group.counted] for group in groups]
    rows = []
    for name in OUTCOMES:
        cells = tuple(_cell([known.get(name) for known in members]) for members in found)
        first = next((cell.number for cell in cells if cell is not None), None)
        if first is not None and (same or first.unit != UNITS[NATS]):
            unit = f", {first.unit}" if first.unit == UNITS[NATS] else ""
            rows.append(Row(name=name, label=first.label + unit, cells=cells))
    return rows


def _cell(known: Sequence[Number | None]) -> Cell | None:
    """Return the figure of a group, if each of its runs has it and it is finite."""
    have = [number for number in known if number is not None and math.isfinite(number.value)]
    if not have or len(have) < len(known):
        return None
    return Cell(number=have[0], spread=spread([number.value for number in have]))


def _settings(groups: Sequence[Group], runs: Sequence[RunContents]) -> list[Difference]:
    """Return the settings that differ, with a text for each group: its value, or its values."""
    place = {id(run): index for index, run in enumerate(runs)}
    found = []
    for one in differences(runs):
        texts = [", ".join(dict.fromkeys(one.texts[place[id(run)]] for run in group.runs)) for group in groups]
        found.append(Difference(file=one.file, key=one.key, values=one.values, texts=tuple(texts)))
    return found


def _verdicts(groups: Sequence[Group], row: Row, unit: str) -> list[Verdict]:
    sides = [
        None if cell is None else Side(name=group.name, figure=cell.spread, tokens=_tokens(group))
        for group, cell in zip(groups, row.cells, strict=True)
    ]
    base = sides[0]
    return [] if base is None else [judge(base, side, unit) for side in sides[1:] if side is not None]


def _tokens(group: Group) -> float | None:
    """Return the tokens that the group's runs were trained on: the most of any."""
    return max((found for run in group.counted if (found := run.number(TRAINED)) is not None), default=None)


def _caveats(groups: Sequence[Group], runs: Sequence[RunContents], same: bool) -> list[str]:
    found = []
    if not same:
        sizes = dict.fromkeys(run.text(CONFIG, "architecture.vocab_size") or "?" for run in runs)
        found.append(
            f"These runs have different vocabularies (of {' and '.join(sizes)} tokens). A token of one then holds "
            "more text than a token of the other, so nats per token do not compare, and are left out. Bits per "
            "byte, which no vocabulary changes, do."
        )
    if len(_text_sizes(runs)) > 1:
        sizes = dict.fromkeys(integer(size) for size in sorted(_text_sizes(runs)))
        found.append(
            f"These runs were validated on different texts (of {' and '.join(sizes)} bytes), so their validation "
            "figures do not compare."
        )
    for one in groups:
        found += [_left_out(run, one) for run in one.rest]
        found += [f"{run.name} {_standing(run)}." for run in one.counted if not run.records("end") and run.metrics]
    if any(len({run.text(ENVIRONMENT, key) for run in runs}) > 1 for key in MACHINE):
        found.append(
            "These runs were made on different machines or versions of torch, so their times do not compare."
        )
    return found


def _left_out(run: RunContents, group: Group) -> str:
    if run.records("end") or not any(one.records("end") for one in group.counted):
        return (
            f"{run.name} has the settings and the seed ({run.text(CONFIG, SEED) or 'none'}) of another run here; "
            "a repeat is no new seed, so it is left out of the mean."
        )
    return f"{run.name} {_standing(run)}; it is drawn as a thin line, and left out of the mean."


def _standing(run: RunContents) -> str:
    step, steps = run.number("metrics.jsonl:last step.step"), run.number(f"{CONFIG}:training.steps")
    whole = f" of {integer(steps)}" if steps is not None else ""
    return f"has not ended ({state_of(run)[0]} at step {integer(step or 0)}{whole})"


def _text_sizes(runs: Sequence[RunContents]) -> set[int]:
    return {size for run in runs if (size := _validation_bytes(run)) is not None}


def _validation_bytes(run: RunContents) -> int | None:
    """Return the bytes of the validation text, from what a validation logged: nats / (ln 2 x bits per byte)."""
    last = [record for record in run.records("evaluation") if record.get(BITS)]
    if not last:
        size = run.number("evaluation.json:bytes")
        return None if size is None else round(size)
    keys = (NATS, BITS, "scored_tokens")
    nats, bits, tokens = (run.number(f"metrics.jsonl:last evaluation.{key}") for key in keys)
    if nats is None or bits is None or tokens is None or not math.isfinite(nats * tokens / bits):
        return None
    return round(nats * tokens / (LN2 * bits))
